package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// A Log is an append-only sequence of records. It is safe for concurrent use.
type Log struct {
	engine  *Engine
	cfg     LogConfig
	epoch   string
	durable atomic.Uint64 // newest record that is on stable storage

	mu     sync.Mutex
	tail   tail          // newest durable records, for readers that keep up
	sums   []checksum    // of the newest durable records, for the high-water mark
	moved  bool          // since the last mark
	grown  chan struct{} // closed, and replaced, when durable advances
	closed bool
	asked  time.Time // when a cluster was last asked for the end
}

// Log opens the log that cfg names, creating it when there is none. It is
// checked against the high-water mark first: a *DataLossError says that the
// storage holds less than was once acknowledged.
//
// Opening a log that is open already returns the same Log.
func (e *Engine) Log(ctx context.Context, cfg LogConfig) (*Log, error) {
	e.mu.Lock()
	l := e.logs[cfg.Name]
	e.mu.Unlock()
	if l != nil {
		return l, nil
	}
	n, err := e.running(ctx)
	if err != nil {
		return nil, err
	}
	l = &Log{engine: e, cfg: cfg, grown: make(chan struct{})}
	if err := l.open(ctx, n); err != nil {
		return nil, fmt.Errorf("open log %s: %w", cfg.Name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.node != n { // it failed meanwhile, and its successor knows nothing of l
		return nil, fmt.Errorf("open log %s: %w", cfg.Name, errStorageFailed)
	}
	if other := e.logs[cfg.Name]; other != nil {
		return other, nil
	}
	e.logs[cfg.Name] = l
	return l, nil
}

// advance makes a group durable, in order of sequence, and returns the newest
// sequence in it.
func (l *Log) advance(group []*pending) uint64 {
	last := uint64(0)
	l.mu.Lock()
	for _, p := range group {
		last = max(last, p.record.Sequence)
		if p.duplicate {
			continue
		}
		l.tail.push(p.record)
		if l.engine.dir != nil {
			l.sum(p.record)
		}
	}
	l.mu.Unlock()
	l.reach(last)
	return last
}

// reach makes records up to sequence visible to readers.
func (l *Log) reach(sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sequence <= l.durable.Load() {
		return
	}
	l.durable.Store(sequence)
	l.moved = true
	close(l.grown)
	l.grown = make(chan struct{})
}

// wait returns once the log holds a durable record after sequence, and its
// newest one.
func (l *Log) wait(ctx context.Context, sequence uint64) (uint64, error) {
	for {
		l.mu.Lock()
		durable, grown, closed := l.durable.Load(), l.grown, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return 0, ErrClosed
		case durable > sequence:
			return durable, nil
		}
		var silence <-chan time.Time // never
		if l.engine.dir == nil {
			silence = time.After(askInterval)
		}
		select {
		case <-grown:
		case <-silence:
			l.askEnd(ctx)
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// askInterval is after how much silence readers that wait have a cluster asked
// for the end of the log: what tells of it can get lost.
const askInterval = time.Second

// askEnd asks the cluster for the end of the log, for all readers that wait.
// When there is no answer the next time will do.
func (l *Log) askEnd(ctx context.Context) {
	l.mu.Lock()
	since := time.Since(l.asked)
	if since >= askInterval {
		l.asked = time.Now()
	}
	l.mu.Unlock()
	if since < askInterval {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askInterval)
	defer cancel()
	_, _ = l.End(ctx)
}

func (l *Log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.grown)
		l.grown = make(chan struct{})
	}
}

// Durable returns the sequence of the newest durable record; 0 when there was
// none, ever.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Epoch returns the name of the log's history: 16 hex digits, chosen when the
// log is made and again when it goes on after a loss of data. A position means
// something only together with it.
func (l *Log) Epoch() string { return l.epoch }

// Append stores r and returns once it is durable, or was so already.
//
// It returns ErrFull, ErrUnavailable, ErrClosed, or the error of ctx. After any
// error but ErrFull the record may or may not be stored; appending it again
// with the same ID is safe. r.Data must not be modified afterwards, whatever
// the outcome.
func (l *Log) Append(ctx context.Context, r Record) (Appended, error) {
	r.Sequence = 0
	return l.bounded(ctx, r)
}

// bounded appends r, at its sequence unless that is 0, as long as it may take.
func (l *Log) bounded(ctx context.Context, r Record) (Appended, error) {
	e := l.engine
	if len(r.Data) > e.cfg.MaxRecord {
		return Appended{}, fmt.Errorf("eventlog: a record of %d bytes is over the limit of %d", len(r.Data), e.cfg.MaxRecord)
	}
	if e.full.Load() {
		e.metrics.appends.WithLabelValues("full").Inc()
		return Appended{}, fmt.Errorf("%w: the disk is short of space", ErrFull)
	}
	bounded := ctx
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > e.cfg.CommitTimeout {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, e.cfg.CommitTimeout)
		defer cancel()
	}
	a, err := l.append(bounded, r)
	switch {
	case err == nil && a.Duplicate:
		e.metrics.appends.WithLabelValues("duplicate").Inc()
	case err == nil:
		e.metrics.appends.WithLabelValues("stored").Inc()
	case errors.Is(err, ErrFull):
		e.metrics.appends.WithLabelValues("full").Inc()
	case errors.Is(err, ErrConflict):
		e.metrics.appends.WithLabelValues("conflict").Inc()
	default:
		e.metrics.appends.WithLabelValues("unknown").Inc()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	return a, err
}

// AppendAt stores r as the record at sequence, from 1, and returns once it is
// durable. r has no ID: the log never tries by itself again.
//
// It returns ErrConflict when the log does not end right before sequence, and
// has stored nothing then; else the errors of Append. While several gateways
// append to a log in this way, none overwrites what it has not seen.
func (l *Log) AppendAt(ctx context.Context, sequence uint64, r Record) error {
	r.Sequence = sequence
	_, err := l.bounded(ctx, r)
	return err
}

// append appends r, again where the storage failed under it and ctx allows.
func (l *Log) append(ctx context.Context, r Record) (Appended, error) {
	for {
		n, err := l.engine.running(ctx)
		if err != nil {
			return Appended{}, err
		}
		p := &pending{log: l, record: r, conditional: r.Sequence > 0, done: make(chan struct{})}
		if err = n.commits.publish(p); err == nil {
			err = n.commits.await(ctx, p)
		}
		switch {
		case err == nil:
			return Appended{Sequence: p.record.Sequence, Duplicate: p.duplicate}, nil
		case errors.Is(err, ErrFull), errors.Is(err, ErrClosed), r.ID == "":
			return Appended{}, err
		}
		select {
		case <-time.After(retryDelay):
		case <-ctx.Done():
			return Appended{}, err
		}
	}
}

// retryDelay is how long an append waits before it tries a storage again that
// has just refused it.
const retryDelay = 20 * time.Millisecond

// Get returns the durable record at sequence, or ErrNotFound.
func (l *Log) Get(ctx context.Context, sequence uint64) (Record, error) {
	if sequence == 0 || sequence > l.Durable() {
		return Record{}, ErrNotFound
	}
	n, err := l.engine.running(ctx)
	if err != nil {
		return Record{}, err
	}
	records, err := n.fetches.request(ctx, l.cfg.Name, server.JSApiMsgGetRequest{Seq: sequence})
	if err != nil {
		return Record{}, err
	}
	if len(records) == 0 {
		return Record{}, ErrNotFound
	}
	return records[0], nil
}

// Delete removes the record at sequence, or returns ErrNotFound. Its ID is
// remembered for the dedupe window all the same.
func (l *Log) Delete(ctx context.Context, sequence uint64) error {
	n, err := l.engine.running(ctx)
	if err != nil {
		return err
	}
	if l.forget(sequence) {
		if err := l.engine.mark(); err != nil { // first, or a crash in between looks like a loss
			return fmt.Errorf("%w: write the high-water mark: %w", ErrUnavailable, err)
		}
	}
	if err := n.remove(l.cfg.Name, sequence); err != nil {
		return err
	}
	l.mu.Lock()
	l.tail = tail{}
	l.mu.Unlock()
	return l.engine.dir.sync()
}

// Trim removes every record before sequence. What it removes is no loss of data
// at the next start.
func (l *Log) Trim(ctx context.Context, sequence uint64) error {
	n, err := l.engine.running(ctx)
	if err != nil {
		return err
	}
	if l.forgetBefore(sequence) {
		if err := l.engine.mark(); err != nil { // first, or a crash in between looks like a loss
			return fmt.Errorf("%w: write the high-water mark: %w", ErrUnavailable, err)
		}
	}
	stream, err := n.js.Stream(ctx, l.cfg.Name)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSequence(sequence))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = tail{}
	return nil
}

// Remove deletes the log named name with all its records, for good. A log that
// is not there is no error. Nobody may use the Log any more.
func (e *Engine) Remove(ctx context.Context, name string) error {
	n, err := e.running(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	l := e.logs[name]
	delete(e.logs, name)
	e.mu.Unlock()
	if l != nil {
		l.close()
	}
	if err := e.dir.forget(name); err != nil { // first, or a crash in between looks like a loss
		return fmt.Errorf("%w: write the high-water mark: %w", ErrUnavailable, err)
	}
	if err := n.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: delete log %s: %w", ErrUnavailable, name, err)
	}
	return e.dir.sync()
}

// State returns the extent of the log.
func (l *Log) State(ctx context.Context) (State, error) {
	n, err := l.engine.running(ctx)
	if err != nil {
		return State{}, err
	}
	stream, err := n.js.Stream(ctx, l.cfg.Name)
	if err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s := stream.CachedInfo().State
	st := State{First: s.FirstSeq, Last: l.Durable(), Count: s.Msgs, Bytes: s.Bytes}
	if s.Msgs == 0 || s.FirstSeq == 0 {
		st.First = s.LastSeq + 1
	} else {
		st.Since = s.FirstTime
	}
	return st, nil
}

// SequenceAt returns the sequence of the first durable record that was stored
// at t or later, and Durable()+1 when there is none.
func (l *Log) SequenceAt(ctx context.Context, t time.Time) (uint64, error) {
	n, err := l.engine.running(ctx)
	if err != nil {
		return 0, err
	}
	durable := l.Durable()
	records, err := n.fetches.request(ctx, l.cfg.Name, server.JSApiMsgGetRequest{StartTime: &t, Batch: 1})
	if err != nil {
		return 0, err
	}
	if len(records) == 0 || records[0].Sequence > durable {
		return durable + 1, nil
	}
	return records[0].Sequence, nil
}
