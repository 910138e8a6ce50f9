package local

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/failpoint"
)

const (
	// maxGroup and maxGroupBytes bound what goes into one batch.
	maxGroup      = 1024
	maxGroupBytes = 4 << 20

	// slowSync is how long a sync takes on a disk for which it is worth while to
	// gather, and maxGather for how long that goes on at most.
	slowSync  = 2 * time.Millisecond
	maxGather = 5 * time.Millisecond
)

// An op is a change that waits for its outcome.
type op struct {
	store  *store
	record eventlog.Record // to append, when do is nil
	do     func(*group, *op) error

	outcome   eventlog.Appended
	err       error
	done      chan struct{} // closed once the two above are final
	abandoned atomic.Bool   // nobody waits any more
}

// A group is the changes that become durable together.
type group struct {
	batch   *pebble.Batch
	now     int64 // the engine's time, Unix nanoseconds
	ops     []*op
	changes []*change
	records int
	ids     map[identity]uint64 // sequences of what the batch appends
	dropped []*store
	applied bool // the batch is Pebble's
}

// An identity is an ID within a log.
type identity struct {
	log uint32
	id  [hashBytes]byte
}

// A change is what a group does to one log.
type change struct {
	store   *store
	touched bool
	removes bool           // records that readers may have in memory
	state   state          // afterwards
	view    eventlog.State // the same, for readers
	sum     uint32
	records []eventlog.Record
}

// of returns the group's change of s.
func (g *group) of(s *store) *change {
	for _, c := range g.changes {
		if c.store == s {
			return c
		}
	}
	c := &change{store: s, state: s.next, sum: s.sum}
	g.changes = append(g.changes, c)
	return c
}

// submit hands o to the writer and waits for its outcome.
func (e *Engine) submit(ctx context.Context, o *op) error {
	o.done = make(chan struct{})
	select {
	case <-e.over:
		return e.why()
	case <-e.closing:
		return eventlog.ErrClosed
	default:
	}
	select {
	case e.ops <- o:
	case <-e.over:
		return e.why()
	case <-ctx.Done():
		return fmt.Errorf("%w: too much waits for the disk: %w", eventlog.ErrUnavailable, ctx.Err())
	}
	select {
	case <-o.done:
		return o.err
	case <-e.over:
	case <-ctx.Done():
		o.abandoned.Store(true)
		return fmt.Errorf("%w: not on stable storage in time: %w", eventlog.ErrUnavailable, ctx.Err())
	}
	select {
	case <-o.done: // it was among the last
		return o.err
	default:
		return e.why()
	}
}

// writer applies what is submitted, until the engine closes.
func (e *Engine) writer() {
	for e.closedErr() == nil {
		var o *op
		select {
		case o = <-e.ops:
		case <-e.over:
		case <-e.closing:
			select {
			case o = <-e.ops:
			default:
				return
			}
		}
		for o != nil {
			o = e.write(o)
		}
	}
}

// write makes o and the appends that wait durable as one batch, and returns what
// is to be next. What comes meanwhile gathers for the next batch. A change that is
// no append has a batch of its own, since it reads what was there before.
func (e *Engine) write(o *op) (next *op) {
	g := &group{batch: e.db.NewBatch(), now: e.cfg.Clock().UnixNano()}
	e.writing.Store(e.uptime())
	defer e.writing.Store(0)
	for more := e.gather(); o != nil; {
		e.add(g, o)
		if o.do != nil || len(g.ops) == maxGroup || g.batch.Len() > maxGroupBytes {
			break
		}
		if o = more(len(g.ops)); o != nil && o.do != nil {
			o, next = nil, o
		}
	}
	for _, c := range g.changes {
		if c.touched {
			c.state.changes++
			must(g.batch.Merge(logKey(keyState, c.store.entry.number), c.state.delta().encode(), nil))
			c.store.next, c.store.sum = c.state, c.sum
			c.view = c.store.view()
		}
	}
	err := e.apply(g)
	if err == nil {
		err = e.finish(g)
	}
	if err != nil {
		e.fail(err)
		return nil
	}
	return next
}

// gather returns what brings the next op of a batch that has some already; nil for
// none. Where a sync takes long, and several waited for the last one, it waits for
// as many: for half as long as the sync took, so that those who were answered
// together and come again need not share the disk with a few that were faster.
func (e *Engine) gather() func(got int) *op {
	var late <-chan time.Time
	if e.crowd > 1 && e.synced >= slowSync {
		late = time.After(min(e.synced/2, maxGather))
	}
	return func(got int) *op {
		if late == nil || got >= e.crowd {
			select {
			case o := <-e.ops:
				return o
			default:
				return nil
			}
		}
		select {
		case o := <-e.ops:
			return o
		case <-late:
			late = nil
			return nil
		}
	}
}

// add puts o into g. What changes nothing is answered with g, too: the answer
// follows from changes that are not durable before.
func (e *Engine) add(g *group, o *op) {
	switch {
	case o.abandoned.Load():
		return
	case o.do != nil:
		o.err = o.do(g, o)
	default:
		o.err = o.store.append(g, o)
	}
	g.ops = append(g.ops, o)
}

// apply hands a batch to Pebble, which writes it to the write-ahead log and
// lets the database show it; it is not durable yet. Pebble may panic where it
// can write no more, and its commit pipeline is dead then.
func (e *Engine) apply(g *group) (err error) {
	defer func() { err = recovered(recover(), err) }()
	if g.batch.Empty() {
		return nil
	}
	if err := failpoint.Hit("before-apply"); err != nil {
		return err
	}
	if err := e.db.ApplyNoSyncWait(g.batch, pebble.Sync); err != nil {
		return fmt.Errorf("apply a batch: %w", err)
	}
	g.applied = true // Pebble may have taken what was in the batch, so that it looks empty
	return failpoint.Hit("after-apply-before-sync")
}

// recovered returns what Pebble has panicked with, or else err.
func recovered(p any, err error) error {
	switch p := p.(type) {
	case nil:
		return err
	case error:
		return fmt.Errorf("the database has panicked: %w", p)
	default:
		return fmt.Errorf("the database has panicked: %v", p)
	}
}

// finish waits until g is durable, and answers those who wait for it.
func (e *Engine) finish(g *group) error {
	began := time.Now()
	if g.applied {
		if err := g.batch.SyncWait(); err != nil {
			return fmt.Errorf("sync the write-ahead log: %w", err)
		}
		e.crowd, e.synced = len(g.ops), time.Since(began)
		e.options.Metrics.Committed(g.records, e.synced)
	}
	if err := g.batch.Close(); err != nil {
		return err
	}
	now := e.cfg.Clock().UnixNano()
	for _, c := range g.changes {
		if !c.touched {
			continue
		}
		if err := failpoint.Hit("during-mark-write"); err != nil {
			return err
		}
		err := e.marks.write(c.store.entry.slot, c.mark(now))
		if err == nil && c.state.changes == 1 { // a new log: without a mark, any further change would look like a loss
			err = e.marks.sync()
		}
		if err != nil {
			return err
		}
		c.store.publish(c)
	}
	for _, s := range g.dropped {
		if err := e.marks.clear(s.entry.slot); err != nil {
			return err
		}
	}
	if err := failpoint.Hit("after-sync-before-respond"); err != nil {
		return err
	}
	for _, o := range g.ops {
		close(o.done)
	}
	return nil
}

// mark returns the mark of a log after a change.
func (c *change) mark(now int64) mark {
	m := mark{
		number: c.store.entry.number, epoch: c.store.entry.epoch, changes: c.state.changes,
		last: c.state.last, first: c.state.first, sum: c.sum, time: now,
	}
	if c.store.removing.Load() {
		m.flags = markRemoved
	}
	return m
}
