package group

import (
	"bytes"
	"context"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/subscription"
)

// A core is the state of a group in the hands of its goroutine.
type core struct {
	*runner
	lease *cluster.Lease // of the group; nil when there are no other gateways

	scheduler *schedule.Scheduler
	journal   journal
	counts    *counts
	feeder    *feeder
	sessions  map[string]*session // by member
	pulls     map[string][]*pull  // by member; the first is served, the others wait

	// filter is what the log is read with; filterSpec is where it comes from.
	filter     *subscription.Filter
	filterSpec *sluicev1.EventFilter

	// damaged are events that cannot be read and for which there is no room among
	// the dead letters yet. The group reads no further meanwhile.
	damaged feed

	idle  bool          // the server has paused the group, which reads no further
	spent time.Duration // on the filter's expression, when the newest snapshot was taken

	oldest uint64 // nothing before it is in the log, as far as the group knows
	ahead  int    // about how many events were read and not handed out
	sated  bool   // reading on can wait, see readEnough

	replace  bool   // the next write is a snapshot
	snapshot uint64 // position at the newest one
	again    bool   // something was granted after Flush
	done     []finished
	writing  *flight // nil when nothing is being written
	written  chan error
	failed   bool // the write did
}

// writeTimeout bounds a write of several records; the log bounds each of them.
const writeTimeout = 10 * time.Second

// finished is an input that is done, but not yet on stable storage.
type finished struct {
	input
	err error
}

// A flight is what is let out when a write is on stable storage.
type flight struct {
	done  []finished
	out   *schedule.Output
	pulls []*pull
}

// serve drives the scheduler until the storage fails or ctx ends. One write at
// a time is under way; what comes meanwhile goes into the next.
func (c *core) serve(ctx context.Context) error {
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		select {
		case in := <-c.inputs:
			c.tick()
			c.apply(in)
		case f := <-c.feeds():
			c.tick()
			c.take(f)
		case <-wake.C:
		case err := <-c.written:
			if err != nil {
				c.failed = true
				return err
			}
			c.tick()
			c.release()
		case <-ctx.Done():
			return ctx.Err()
		}
		c.takeReady()
		c.takeDamage()
		for c.writing == nil {
			out, err := c.flush()
			if err != nil {
				return err
			}
			wake.Stop()
			if !out.Wake.IsZero() {
				wake.Reset(time.Until(out.Wake))
			}
			if !c.again {
				break
			}
		}
	}
}

// feeds is where the log's events come from; nil while there is no room, or no
// need.
func (c *core) feeds() <-chan feed {
	if c.sated || c.full() {
		return nil
	}
	return c.feeder.feeds
}

// full says whether a limit keeps the group from reading on.
func (c *core) full() bool { return c.scheduler.Full() || c.damaged.damaged > 0 }

// maxAhead is how many events that are not handed out a group has read while its
// members have all that they are ready to hold.
const maxAhead = 2048

// readEnough says whether reading on can wait: it would take time from handing
// out, and what is read long before it is handed out must be read again. With
// turns it cannot, for who reads late takes chats for quiet that are not.
func (c *core) readEnough() bool {
	if c.ahead < maxAhead || len(c.sessions) == 0 || len(c.pulls) > 0 || c.scheduler.Config().Turn.Quiet > 0 {
		return false
	}
	for name, m := range c.sessions {
		if held := c.scheduler.Held(name); held.Events < m.credits.Events && held.Bytes < m.credits.Bytes {
			return false
		}
	}
	return true
}

// takeReady takes all inputs that are there, up to maxInputs.
func (c *core) takeReady() {
	for range maxInputs {
		select {
		case in := <-c.inputs:
			c.apply(in)
		case f := <-c.feeds():
			c.take(f)
		default:
			return
		}
	}
}

func (c *core) tick() { c.scheduler.Tick(time.Now()) }

func (c *core) apply(in input) { c.done = append(c.done, finished{in, in.do(c)}) }

func (c *core) take(f feed) {
	if f.damaged > 0 {
		c.damaged = f
		c.takeDamage()
		return
	}
	if f.first > 0 {
		c.truncate(f.first)
	}
	for _, e := range f.events {
		c.scheduler.Append(e)
	}
	c.scheduler.Advance(f.position)
	c.ahead += len(f.events)
	if len(c.sessions)+len(c.pulls) > 0 {
		c.service.shelf.put(f.records...)
		c.sated = c.readEnough()
	}
}

// truncate settles what retention has removed before first, and says so: nobody
// will get it.
func (c *core) truncate(first uint64) {
	c.oldest = max(c.oldest, first)
	unread := first - min(first, c.scheduler.Position()+1)
	before := c.scheduler.Unsettled()
	c.scheduler.Truncate(first)
	pending := before - c.scheduler.Unsettled()
	if pending == 0 && unread == 0 {
		return
	}
	c.service.metrics.removed.WithLabelValues(c.name).Add(float64(pending))
	c.service.logger.Warn("retention has removed events before a consumer group had settled them",
		"group", c.name, "pending_events", pending, "unread_events", unread, "first_sequence", first)
}

// notice settles what retention has removed by now.
func (c *core) notice() {
	if first := c.service.events.State().First; first > c.oldest {
		c.truncate(min(first, c.scheduler.Position()+1))
		c.oldest = first
	}
}

// takeDamage makes dead letters of what cannot be read, as far as there is room.
func (c *core) takeDamage() {
	f := &c.damaged
	room := uint64(c.scheduler.RoomForLetters()) //nolint:gosec // not negative
	if f.damaged == 0 || room == 0 {
		return
	}
	last := min(f.damaged+room-1, f.position)
	c.damage(f.damaged, last)
	if f.damaged = last + 1; last == f.position {
		*f = feed{}
	}
}

// flush ends a round: what follows from it is let out at once when nothing is
// to be stored, and else when it is.
func (c *core) flush() (*schedule.Output, error) {
	c.again = false
	c.tick()
	out := c.scheduler.Flush()
	c.writing = &flight{done: c.done, out: out, pulls: c.serveOutput(out)}
	c.done = nil
	for _, d := range out.Deliveries {
		if d.Attempt == 1 {
			c.ahead -= min(c.ahead, len(d.Sequences))
		}
		c.counts.attempts.Observe(float64(d.Attempt))
		c.counts.sizes.Observe(float64(len(d.Sequences)))
	}
	c.sated = c.readEnough()

	behind := c.scheduler.Position() - min(c.snapshot, c.scheduler.Position())
	switch {
	case c.replace || c.journal.due() || c.looked() || behind > uint64(max(maxBehind, c.journal.snapshot/8)):
		data, err := c.takeSnapshot()
		if err != nil {
			c.failed = true
			return out, err
		}
		go c.write(data, c.journal.replace)
	case len(out.Journal) > 0:
		go c.write(bytes.Clone(out.Journal), c.journal.batch)
	case c.lease != nil && !c.lease.Held():
		c.failed = true
		return out, errDeposed // it may know less than who leads now
	default:
		c.release()
	}
	return out, nil
}

// write stores data, even while the group stops.
func (c *core) write(data []byte, store func(context.Context, []byte) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), writeTimeout)
	defer cancel()
	c.written <- store(ctx, data)
}

// release lets out what was decided before the write that has ended.
func (c *core) release() {
	f := c.writing
	c.writing = nil
	for _, d := range f.done {
		d.finish(d.err)
	}
	for _, revoked := range f.out.Revoked {
		if m := c.sessions[revoked.Member]; m != nil {
			m.push(frame{revoked: leaseName(c.incarnation, revoked.Lease)})
		}
		c.counts.ended[endedLost].Inc()
	}
	for _, d := range f.out.Deliveries {
		c.hand(f, d)
	}
	for _, p := range f.pulls {
		if p.over = true; p.gone {
			c.giveBack(p.deliveries)
		}
		p.done <- nil
	}
	for _, name := range f.out.Silent {
		if m := c.sessions[name]; m != nil {
			delete(c.sessions, name)
			m.end(memberSilent(name))
		}
	}
}

// hand gives a delivery to whom it is for; back to the group when they are not
// there any more.
func (c *core) hand(f *flight, d schedule.Delivery) {
	for _, p := range f.pulls {
		if p.member == d.Member {
			p.deliveries = append(p.deliveries, d)
			return
		}
	}
	if m := c.sessions[d.Member]; m != nil {
		m.push(frame{delivery: &d})
		return
	}
	c.giveBack([]schedule.Delivery{d})
}

// close tells everybody that the state is given up. A write that is under way
// ends first, and what it makes durable is let out.
func (c *core) close(reason error) {
	c.feeder.close()
	if f := c.writing; f != nil {
		if !c.failed && <-c.written == nil {
			c.release()
		} else {
			c.done = append(f.done, c.done...)
			for _, p := range f.pulls {
				p.done <- reason
			}
		}
	}
	for _, d := range c.done {
		d.finish(reason)
	}
	for _, queue := range c.pulls {
		for _, p := range queue {
			p.done <- reason
		}
	}
	for _, m := range c.sessions {
		m.end(reason)
	}
}
