package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A committer appends. Each record is published as it comes; that it is
// acknowledged means that a majority of the replicas has it on its disks. The
// acknowledgements that come together are taken together, so that readers and
// the other gateways are told once for all of them.
type committer struct {
	link    *link
	metrics *eventlog.Metrics
	stop    chan struct{}
	runs    sync.WaitGroup
	pending atomic.Int64 // appends under way

	mu   sync.Mutex
	acks []ack
	wake chan struct{} // of size 1: acks is not empty
}

// maxPending bounds the appends under way. Each has a caller, so more than that
// is no traffic of the vendor's.
const maxPending = 1 << 15

// A publication is an append under way.
type publication struct {
	store  *store
	record eventlog.Record
	sent   time.Time
	answer chan ack // of size 1: of repetitions the first counts
}

// An ack is the answer to a publication.
type ack struct {
	of        *publication
	sequence  uint64
	duplicate bool
	err       error
}

func newCommitter(l *link, m *eventlog.Metrics) *committer {
	c := &committer{
		link: l, metrics: m, stop: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	c.runs.Go(c.run)
	return c
}

// append appends r, and again where nobody answers, as long as that is safe and
// ctx lasts.
func (c *committer) append(ctx context.Context, s *store, r eventlog.Record) (eventlog.Appended, error) {
	if c.pending.Add(1) > maxPending {
		c.pending.Add(-1)
		return eventlog.Appended{}, fmt.Errorf("%w: too many appends are under way", eventlog.ErrUnavailable)
	}
	defer c.pending.Add(-1)
	s.health.expect()
	defer s.health.done()
	p := &publication{store: s, record: r, sent: time.Now(), answer: make(chan ack, 1)}
	reply, cancel := c.link.listen(func(m *nats.Msg) { c.receive(p, m) })
	defer cancel()
	msg := &nats.Msg{Subject: s.subject(r), Reply: reply, Data: r.Data}
	switch {
	case r.Sequence > 0:
		msg.Header = nats.Header{headerLast: {strconv.FormatUint(r.Sequence-1, 10)}}
	case r.ID != "":
		msg.Header = nats.Header{headerID: {r.ID}}
	}
	again := time.NewTimer(askAgain)
	defer again.Stop()
	why := errors.New("no acknowledgement")
	for {
		c.link.send(msg)
		again.Reset(askAgain)
	wait:
		select {
		case a := <-p.answer:
			if !errors.Is(a.err, eventlog.ErrUnavailable) || r.ID == "" {
				return eventlog.Appended{Sequence: a.sequence, Duplicate: a.duplicate}, a.err
			}
			why = a.err // nobody leads now, or a twin is under way
			again.Reset(retryDelay)
			goto wait
		case <-again.C:
			// What a leader took down with it nobody will ever acknowledge.
			if r.ID == "" {
				goto wait
			}
		case <-ctx.Done():
			return eventlog.Appended{}, fmt.Errorf("%w: %w: %w", eventlog.ErrUnavailable, why, ctx.Err())
		case <-c.stop:
			return eventlog.Appended{}, eventlog.ErrClosed
		}
	}
}

// receive takes the answer to p.
func (c *committer) receive(p *publication, m *nats.Msg) {
	a := ack{of: p}
	a.sequence, a.duplicate, a.err = parseAck(m)
	if !errors.Is(a.err, eventlog.ErrUnavailable) {
		p.store.health.answered()
	}
	if a.err != nil {
		a.tell()
		return
	}
	c.mu.Lock()
	c.acks = append(c.acks, a)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// tell answers who appended.
func (a ack) tell() {
	select {
	case a.of.answer <- a:
	default: // it has been answered
	}
}

// run takes acknowledgements until the end.
func (c *committer) run() {
	var spare []ack
	for {
		select {
		case <-c.wake:
		case <-c.stop:
			return
		}
		c.mu.Lock()
		group := c.acks
		c.acks = spare[:0]
		c.mu.Unlock()
		for i := 0; i < len(group); {
			j := i + 1
			for j < len(group) && group[j].of.store == group[i].of.store {
				j++
			}
			c.settle(group[i:j])
			i = j
		}
		if len(group) > 0 {
			c.metrics.Committed(len(group), time.Since(group[0].of.sent))
		}
		clear(group) // let go of the records
		spare = group
	}
}

// settle tells a log, who appended to it, and the other gateways what is durable
// now. Acknowledgements come in the order of the log.
func (c *committer) settle(group []ack) {
	s := group[0].of.store
	var records []eventlog.Record
	last, size := uint64(0), 0
	now := time.Now()
	for _, a := range group {
		last = max(last, a.sequence)
		if a.duplicate {
			continue
		}
		r := a.of.record
		r.Sequence, r.Time, r.KeyHash = a.sequence, now, eventlog.HashKey(r.Key)
		r.Key, r.ID = "", ""
		size += len(r.Data) + recordOverhead
		records = append(records, r)
	}
	s.extend(last, size, now)
	if s.cfg.Deletes { // another gateway may have removed one of them
		records = nil
	}
	s.log.Advance(records, last)
	for _, a := range group {
		a.tell()
	}
	if !s.cfg.Exclusive {
		// Should it get lost, they ask for it.
		c.link.send(&nats.Msg{Subject: s.endSubject(), Data: strconv.AppendUint(nil, last, 10)})
	}
}

// recordOverhead is about what a stream adds to a record, in bytes.
const recordOverhead = 64

// close fails what is under way.
func (c *committer) close() {
	close(c.stop)
	c.runs.Wait()
}

// parseAck returns what an acknowledgement says.
func parseAck(m *nats.Msg) (sequence uint64, duplicate bool, err error) {
	// {"stream":"EVENTS","seq":17} is by far the most common answer.
	if _, rest, ok := bytes.Cut(m.Data, []byte(`","seq":`)); ok && bytes.HasPrefix(m.Data, []byte(`{"stream":"`)) {
		if digits, ok := bytes.CutSuffix(rest, []byte("}")); ok {
			if n, err := strconv.ParseUint(string(digits), 10, 64); err == nil {
				return n, false, nil
			}
		}
	}
	var answer outcome
	if err := decode(m, &answer); err != nil {
		return 0, false, err
	}
	switch fault := answer.Error; {
	case fault == nil && answer.Sequence > 0:
		return answer.Sequence, answer.Duplicate, nil
	case fault == nil:
		return 0, false, fmt.Errorf("%w: an empty acknowledgement", eventlog.ErrUnavailable)
	case fault.Code == codeStoreFailed && fault.Description == textMaxBytes,
		fault.Code == codeInsufficient, fault.Code == codeNoResources:
		return 0, false, fmt.Errorf("%w: %s", eventlog.ErrFull, fault.Description)
	case fault.Code == codeWrongLast, fault.Code == codeWrongLastNoSeq:
		return 0, false, eventlog.ErrConflict
	default:
		return 0, false, fault.unavailable()
	}
}
