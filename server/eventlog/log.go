package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultCommitTimeout = 3 * time.Second
	defaultMaxRecord     = 1 << 20

	// readTimeout bounds one read of the storage.
	readTimeout = 5 * time.Second
)

// Options are what an engine gives each of its logs.
type Options struct {
	CommitTimeout time.Duration // bounds an Append; 0 means 3 s
	MaxRecord     int           // largest Record.Data, in bytes; 0 means 1 MiB
	Metrics       *Metrics      // required
	Logger        *slog.Logger  // required
}

// A Log is an append-only sequence of records. It is safe for concurrent use.
type Log struct {
	cfg     LogConfig
	epoch   string
	store   Store
	options Options
	durable atomic.Uint64 // newest record that is on stable storage

	mu       sync.Mutex
	tail     tail
	grown    chan struct{} // closed, and replaced, when durable advances and somebody waits
	waiting  bool          // somebody waits for grown
	closed   bool
	reported uint64 // first record of the damage that was logged last
}

// NewLog returns a Log over what store keeps, for an engine. durable is the
// newest sequence that is on stable storage.
func NewLog(cfg LogConfig, epoch string, durable uint64, store Store, options Options) *Log {
	options.CommitTimeout = cmp.Or(options.CommitTimeout, defaultCommitTimeout)
	options.MaxRecord = cmp.Or(options.MaxRecord, defaultMaxRecord)
	l := &Log{cfg: cfg, epoch: epoch, store: store, options: options, grown: make(chan struct{})}
	l.durable.Store(durable)
	return l
}

// Name returns the name of the log.
func (l *Log) Name() string { return l.cfg.Name }

// Config returns what the log was opened with.
func (l *Log) Config() LogConfig { return l.cfg }

// MaxRecord returns the largest Record.Data that the log takes, in bytes.
func (l *Log) MaxRecord() int { return l.options.MaxRecord }

// Epoch returns the name of the log's history: 16 hex digits, chosen when the
// log is made and again when it goes on after a loss of data. A position means
// something only together with it.
func (l *Log) Epoch() string { return l.epoch }

// Durable returns the sequence of the newest durable record; 0 when there was
// none, ever.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// State returns the extent of the log. It costs no request.
func (l *Log) State() State { return l.store.State() }

// Append stores r and returns once it is durable, or was so already.
//
// It returns ErrFull, ErrUnavailable, ErrClosed, or the error of ctx. After any
// error but ErrFull the record may or may not be stored; appending it again
// with the same ID is safe. r.Data must not be modified afterwards, whatever
// the outcome.
func (l *Log) Append(ctx context.Context, r Record) (Appended, error) {
	r.Sequence = 0
	return l.append(ctx, r)
}

// AppendAt stores r as the record at sequence, from 1, and returns once it is
// durable. r must have no ID.
//
// It returns ErrConflict when the log does not end right before sequence, and
// has stored nothing then; else the errors of Append. While several gateways
// append to a log in this way, none overwrites what it has not seen.
func (l *Log) AppendAt(ctx context.Context, sequence uint64, r Record) error {
	r.Sequence, r.ID = sequence, ""
	_, err := l.append(ctx, r)
	return err
}

func (l *Log) append(ctx context.Context, r Record) (Appended, error) {
	if n := len(r.Data); n > l.options.MaxRecord {
		return Appended{}, fmt.Errorf("eventlog: a record of %d bytes is over the limit of %d", n, l.options.MaxRecord)
	}
	bounded := ctx
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > l.options.CommitTimeout {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, l.options.CommitTimeout)
		defer cancel()
	}
	a, err := l.store.Append(bounded, r)
	m := l.options.Metrics
	switch {
	case err == nil && a.Duplicate:
		m.duplicate.Inc()
	case err == nil:
		m.stored.Inc()
	case errors.Is(err, ErrFull):
		m.full.Inc()
	case errors.Is(err, ErrConflict):
		m.conflict.Inc()
	default:
		m.unknown.Inc()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	return a, err
}

// Get returns the durable record at sequence, or ErrNotFound. The other errors
// are a *DamagedError, ErrUnavailable, ErrClosed and the error of ctx.
func (l *Log) Get(ctx context.Context, sequence uint64) (Record, error) {
	durable := l.Durable()
	if sequence == 0 || sequence > durable {
		return Record{}, ErrNotFound
	}
	if records := l.recent(sequence, 1, durable); records != nil {
		return records[0], nil
	}
	records, _, err := l.fetch(ctx, sequence, sequence, 1)
	var gone *TruncatedError
	switch {
	case errors.As(err, &gone):
		return Record{}, ErrNotFound
	case err != nil:
		return Record{}, err
	case len(records) == 0:
		return Record{}, ErrNotFound
	}
	return records[0], nil
}

// ReadKey returns durable records with that key, at most limit (1 to 1000) and
// MaxReadBytes, in order from the one at from on or, in reverse, from the
// one at from back; from 0 is the oldest one, or the newest. It reads no other
// record. It returns none only when there is none.
//
// The errors are those of Get, but never ErrNotFound; a *DamagedError is about
// the first record there is to return.
func (l *Log) ReadKey(ctx context.Context, key string, from uint64, limit int, reverse bool) ([]Record, error) {
	if reverse && (from == 0 || from > l.Durable()) {
		from = l.Durable()
	}
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	records, err := l.store.ReadKey(bounded, key, from, min(max(limit, 1), maxRead), reverse)
	return records, l.explain(ctx, err)
}

// maxRead is the most records that one read returns.
const maxRead = 1000

// SequenceAt returns the sequence of the first durable record that was stored
// at t or later, and Durable()+1 when there is none.
func (l *Log) SequenceAt(ctx context.Context, t time.Time) (uint64, error) {
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	sequence, err := l.store.SequenceAt(bounded, t)
	return sequence, l.explain(ctx, err)
}

// End returns the sequence at which the log ends, by what the storage itself
// says: records of other gateways are among those, however new. When it returns,
// readers are shown all of them, and AppendAt of the next sequence fails when
// there are others by then, or some on their way.
//
// It returns ErrUnavailable when the storage cannot be asked.
func (l *Log) End(ctx context.Context) (uint64, error) {
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	end, err := l.store.End(bounded)
	return end, l.explain(ctx, err)
}

// Delete removes the record at sequence, or returns ErrNotFound. Its ID is
// remembered for the dedupe window all the same. Other errors are those of
// Append.
func (l *Log) Delete(ctx context.Context, sequence uint64) error {
	if sequence == 0 || sequence > l.Durable() {
		return ErrNotFound
	}
	return l.remove(ctx, func(ctx context.Context) error { return l.store.Delete(ctx, sequence) })
}

// Trim removes every record before sequence. The errors are those of Append.
func (l *Log) Trim(ctx context.Context, sequence uint64) error {
	return l.remove(ctx, func(ctx context.Context) error { return l.store.Trim(ctx, sequence) })
}

func (l *Log) remove(ctx context.Context, remove func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, l.options.CommitTimeout)
	defer cancel()
	l.Forget()
	err := remove(bounded)
	l.Forget() // what was pushed meanwhile may follow on what is gone
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Forget drops the records that are kept in memory. An engine calls it before it
// removes records.
func (l *Log) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = tail{}
}

// Advance tells that all records up to last are durable now, those of records,
// which are in order, among them. An engine calls it, in order.
func (l *Log) Advance(records []Record, last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		if !l.cfg.Exclusive { // nobody reads along
			l.tail.push(r)
		}
	}
	if last <= l.durable.Load() {
		return
	}
	l.durable.Store(last)
	l.wake()
}

// Close wakes the readers for the last time: from now on they get ErrClosed. An
// engine calls it.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake()
}

// wake wakes who waits. l.mu is held.
func (l *Log) wake() {
	if l.waiting {
		close(l.grown)
		l.grown, l.waiting = make(chan struct{}), false
	}
}

// wait returns once the log holds a durable record after sequence, and its
// newest one.
func (l *Log) wait(ctx context.Context, sequence uint64) (uint64, error) {
	for {
		l.mu.Lock()
		durable, grown, closed := l.durable.Load(), l.grown, l.closed
		l.waiting = l.waiting || durable <= sequence
		l.mu.Unlock()
		switch {
		case closed:
			return 0, ErrClosed
		case durable > sequence:
			return durable, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// recent returns up to limit and MaxReadBytes of the newest records, from the
// one at first on; nil when they are not at hand.
func (l *Log) recent(first uint64, limit int, durable uint64) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.from(first, limit, durable)
}

// fetch is Store.Fetch, bounded in time.
func (l *Log) fetch(ctx context.Context, from, to uint64, limit int) ([]Record, uint64, error) {
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	records, through, err := l.store.Fetch(bounded, from, to, limit)
	return records, through, l.explain(ctx, err)
}

// explain returns what the caller of a read should see of err: its own ctx's
// error, or that the storage did not answer. Damage is counted and logged.
func (l *Log) explain(ctx context.Context, err error) error {
	var damaged *DamagedError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		l.options.Metrics.readErrors.Inc()
		return fmt.Errorf("%w: a read took longer than %v", ErrUnavailable, readTimeout)
	case errors.As(err, &damaged):
		l.report(damaged)
	case errors.Is(err, ErrUnavailable):
		l.options.Metrics.readErrors.Inc()
	}
	return err
}

// report counts and logs damage, unless it was the last that was reported.
func (l *Log) report(damaged *DamagedError) {
	l.mu.Lock()
	again := l.reported == damaged.First
	l.reported = damaged.First
	l.mu.Unlock()
	if again {
		return
	}
	l.options.Metrics.damaged.Add(float64(damaged.Last - damaged.First + 1))
	l.options.Logger.Error("stored records are damaged and cannot be read; sluice verify lists all of them",
		"log", damaged.Log, "first_sequence", damaged.First, "last_sequence", damaged.Last, "err", damaged.Err)
}
