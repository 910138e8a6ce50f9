package eventlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// errStorageFailed is why an append that was under way when its node failed has
// no outcome.
var errStorageFailed = fmt.Errorf("%w: the storage failed", ErrUnavailable)

// A committer makes appends durable. It publishes each as it comes, collects
// the acknowledgements, and runs one sync at a time: each sync makes durable
// all that was acknowledged before it began, so that while one runs, the next
// group gathers. There is no timer and no batch size: a lone append pays one
// sync, a crowd shares it.
//
// An acknowledgement says that the record was written to its file, not that
// the file was synced; only the sync that begins after it says that.
type committer struct {
	nc      *nats.Conn
	sync    func([]write) error // makes them durable; nil: they are when acknowledged
	fail    func(error)         // takes the node out of service
	metrics *metrics
	inbox   string         // reply subject of publish t is inbox + t
	acks    chan *nats.Msg // one for each in inflight at most, so it never overflows
	writes  []write        // run's, to be used again
	runs    sync.WaitGroup

	mu       sync.Mutex
	token    uint64
	inflight map[uint64]*pending // published, not acknowledged
	acked    []*pending          // acknowledged, not durable; run's, and stop's after it
	oldest   time.Time           // when the silence since the last acknowledgement began
	stopped  error               // why nothing more is taken
	wake     chan struct{}       // size 1: stopped or idle is set
	idle     chan struct{}       // closed when drained; nil until drain
}

// A pending append is published and waits for its outcome.
type pending struct {
	log         *Log
	record      Record
	conditional bool // only as the record at its sequence
	duplicate   bool
	err         error
	done        chan struct{} // closed once the fields above are final

	token uint64
	msg   *nats.Msg // as published
}

// finish sets the outcome.
func (p *pending) finish(err error) {
	p.err = err
	close(p.done)
}

func newCommitter(nc *nats.Conn, commit func([]write) error, fail func(error), m *metrics) (*committer, error) {
	c := &committer{
		nc:       nc,
		sync:     commit,
		fail:     fail,
		metrics:  m,
		inbox:    nats.NewInbox() + ".",
		acks:     make(chan *nats.Msg, maxInflight),
		inflight: make(map[uint64]*pending),
		wake:     make(chan struct{}, 1),
	}
	if _, err := nc.ChanSubscribe(c.inbox+"*", c.acks); err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	c.runs.Go(c.run)
	return c, nil
}

// maxInflight bounds the appends under way. It takes a callback each, so what
// reaches it is no traffic of the vendor's.
const maxInflight = 1 << 15

// publish sends p on its way. Its outcome comes through p.done; when publish
// returns an error there is none.
func (c *committer) publish(p *pending) error {
	msg := &nats.Msg{Subject: p.log.cfg.Name + "." + p.record.Subject, Data: p.record.Data}
	if p.record.ID != "" {
		msg.Header = nats.Header{server.JSMsgId: []string{p.record.ID}}
	}
	if p.conditional {
		msg.Header = nats.Header{server.JSExpectedLastSeq: []string{strconv.FormatUint(p.record.Sequence-1, 10)}}
	}
	c.mu.Lock()
	if c.stopped != nil {
		c.mu.Unlock()
		return c.stopped
	}
	if len(c.inflight) == maxInflight {
		c.mu.Unlock()
		return fmt.Errorf("%w: too many appends are under way", ErrUnavailable)
	}
	c.token++
	token := c.token
	p.token = token
	if len(c.inflight) == 0 {
		c.oldest = time.Now()
	}
	c.inflight[token] = p
	c.mu.Unlock()
	msg.Reply = c.inbox + strconv.FormatUint(token, 36)
	p.msg = msg
	if err := c.nc.PublishMsg(msg); err != nil {
		c.mu.Lock()
		delete(c.inflight, token)
		c.mu.Unlock()
		c.signal() // it may have been what drain waits for
		return fmt.Errorf("%w: publish: %w", ErrUnavailable, err)
	}
	return nil
}

// await returns the outcome of p, which was published, or ErrUnavailable when
// ctx ends first: then it has none.
//
// What a cluster's leader took down with it nobody will ever acknowledge, so a
// publish that can be repeated is, in the same place: whichever is acknowledged
// first counts.
func (c *committer) await(ctx context.Context, p *pending) error {
	var again <-chan time.Time // never
	if c.sync == nil && p.record.ID != "" {
		t := time.NewTicker(republishInterval)
		defer t.Stop()
		again = t.C
	}
	for {
		select {
		case <-p.done:
			return p.err
		case <-again:
			// Whoever is not connected learns so from the connection.
			_ = c.nc.PublishMsg(p.msg)
		case <-ctx.Done():
			if p.log.engine.dir == nil {
				c.forget(p)
			}
			return fmt.Errorf("%w: no acknowledgement: %w", ErrUnavailable, ctx.Err())
		}
	}
}

// forget gives up p, which a cluster may never acknowledge: drain would wait for
// it. An embedded server that owes an acknowledgement has failed, which is for
// stalled to find.
func (c *committer) forget(p *pending) {
	c.mu.Lock()
	delete(c.inflight, p.token)
	c.mu.Unlock()
	c.signal()
}

// republishInterval is how long a publish to a cluster may go unanswered before
// it is repeated.
const republishInterval = time.Second

// acknowledge takes an acknowledgement of the server's.
func (c *committer) acknowledge(m *nats.Msg) {
	token, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, c.inbox), 36, 64)
	if err != nil {
		return
	}
	sequence, duplicate, err := parseAck(m)
	c.mu.Lock()
	p, ok := c.inflight[token]
	if !ok || c.stopped != nil {
		c.mu.Unlock()
		return
	}
	delete(c.inflight, token)
	c.oldest = time.Now()
	if err == nil {
		p.record.Sequence, p.duplicate = sequence, duplicate
		p.record.Time = c.oldest
		c.acked = append(c.acked, p)
	}
	c.mu.Unlock()
	if err != nil {
		p.finish(err)
	}
}

// signal wakes run.
func (c *committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// run syncs until stop.
func (c *committer) run() {
	var group, spare []*pending
	for {
		select {
		case m := <-c.acks:
			c.acknowledge(m)
		case <-c.wake:
		}
		for len(c.acks) > 0 { // all that there is goes with one sync
			c.acknowledge(<-c.acks)
		}
		c.mu.Lock()
		if c.stopped != nil {
			c.mu.Unlock()
			return
		}
		group, c.acked = c.acked, spare[:0]
		c.mu.Unlock()
		if len(group) > 0 {
			began := time.Now()
			if err := c.commit(group); err != nil {
				// The pages that could not be written may be gone: a second
				// sync would report success for them.
				c.fail(fmt.Errorf("sync: %w", err))
				for _, p := range group {
					p.finish(errStorageFailed)
				}
				return
			}
			c.metrics.sync.Observe(time.Since(began).Seconds())
			c.metrics.group.Observe(float64(len(group)))
			c.settle(group)
			for _, p := range group {
				p.finish(nil)
			}
		}
		clear(group) // let go of the records
		spare = group
		c.mu.Lock()
		if c.idle != nil && c.drainedLocked() {
			close(c.idle)
			c.idle = nil
		}
		c.mu.Unlock()
	}
}

// commit makes a group durable.
func (c *committer) commit(group []*pending) error {
	if c.sync == nil {
		return nil
	}
	c.writes = c.writes[:0]
	for _, p := range group {
		i := slices.IndexFunc(c.writes, func(w write) bool { return w.log == p.log.cfg.Name })
		if i < 0 {
			i = len(c.writes)
			c.writes = append(c.writes, write{log: p.log.cfg.Name})
		}
		if !p.duplicate {
			c.writes[i].size += int64(len(p.record.Data))
		}
	}
	return c.sync(c.writes)
}

// settle tells each log which of its records are durable now, and a cluster's
// other gateways. Acknowledgements come in the order of the log.
func (c *committer) settle(group []*pending) {
	for i := 0; i < len(group); {
		j := i + 1
		for j < len(group) && group[j].log == group[i].log {
			j++
		}
		l := group[i].log
		last := l.advance(group[i:j])
		if l.engine.dir == nil {
			// Should it get lost, they ask for it.
			_ = c.nc.Publish(l.endSubject(), strconv.AppendUint(nil, last, 10))
		}
		i = j
	}
}

func (c *committer) drainedLocked() bool { return len(c.inflight) == 0 && len(c.acked) == 0 }

// drain waits until nothing is under way, or ctx ends. The caller lets nothing
// new in.
func (c *committer) drain(ctx context.Context) error {
	idle := make(chan struct{})
	c.mu.Lock()
	c.idle = idle
	c.mu.Unlock()
	c.signal()
	stopped := make(chan struct{})
	go func() {
		c.runs.Wait() // run ends early when a sync fails
		close(stopped)
	}()
	select {
	case <-idle:
		return nil
	case <-stopped:
		return errStorageFailed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stalled reports that appends are under way and none has been acknowledged for
// longer than an append may take.
func (c *committer) stalled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.inflight) > 0 && time.Since(c.oldest) > stallTimeout
}

// stallTimeout is how long the storage may keep silent while it owes an
// acknowledgement. A disk that is slow, not broken, is faster than that.
const stallTimeout = 5 * time.Second

// stop fails what is under way with err and lets nothing new in.
func (c *committer) stop(err error) {
	if !errors.Is(err, ErrClosed) {
		err = errStorageFailed
	}
	c.mu.Lock()
	if c.stopped == nil {
		c.stopped = err
	}
	under := c.acked
	for _, p := range c.inflight {
		under = append(under, p)
	}
	c.acked, c.inflight = nil, nil
	c.mu.Unlock()
	c.signal()
	c.runs.Wait()
	for _, p := range under {
		p.finish(err)
	}
}

// JetStream's error codes for a stream that did not take a record, for an
// account at its share of the disk, and for a stream that does not end where it
// was expected to.
const (
	codeStoreFailed  = 10077
	codeInsufficient = 10023
	codeNoResources  = 10047
	codeWrongLast    = 10071
)

// parseAck returns what an acknowledgement says.
func parseAck(m *nats.Msg) (sequence uint64, duplicate bool, err error) {
	if m.Header.Get("Status") == "503" {
		return 0, false, fmt.Errorf("%w: no stream takes the record", ErrUnavailable)
	}
	// {"stream":"EVENTS","seq":17} is by far the most common answer.
	if _, rest, ok := bytes.Cut(m.Data, []byte(`","seq":`)); ok && bytes.HasPrefix(m.Data, []byte(`{"stream":"`)) {
		if digits, ok := bytes.CutSuffix(rest, []byte("}")); ok {
			if n, err := strconv.ParseUint(string(digits), 10, 64); err == nil {
				return n, false, nil
			}
		}
	}
	var ack server.JSPubAckResponse
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, false, fmt.Errorf("%w: acknowledgement: %w", ErrUnavailable, err)
	}
	switch {
	case ack.Error == nil && ack.PubAck != nil && ack.Sequence > 0:
		return ack.Sequence, ack.Duplicate, nil
	case ack.Error == nil:
		return 0, false, fmt.Errorf("%w: empty acknowledgement", ErrUnavailable)
	case ack.Error.ErrCode == codeStoreFailed && ack.Error.Description == server.ErrMaxBytes.Error(),
		ack.Error.ErrCode == codeInsufficient, ack.Error.ErrCode == codeNoResources:
		return 0, false, fmt.Errorf("%w: %s", ErrFull, ack.Error.Description)
	case ack.Error.ErrCode == codeWrongLast:
		return 0, false, ErrConflict
	}
	return 0, false, fmt.Errorf("%w: %s", ErrUnavailable, ack.Error.Description)
}
