package group

import (
	"context"
	"errors"
	"reflect"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/subscription"
)

// load reads the state of the group. The first thing it writes is all of that:
// should the journal have grown by something that was still under way, here or
// at the gateway that led before, this write shows it.
func (r *runner) load(ctx context.Context, lease *cluster.Lease) (*core, error) {
	log, err := r.service.engine.Log(ctx, eventlog.LogConfig{Name: journalLog(r.incarnation), Exclusive: true, Deletes: true})
	if err != nil {
		return nil, err
	}
	// Who led before may have read further than this gateway has heard of.
	end, err := r.service.events.End(ctx)
	if err != nil {
		return nil, err
	}
	c := &core{
		runner: r, lease: lease, journal: journal{log: log}, counts: r.service.metrics.of(r.name),
		sessions: map[string]*session{}, pulls: map[string][]*pull{},
		written: make(chan error, 1), // one place: there is one write at a time
	}
	group := r.configuration()
	epoch, err := c.restore(ctx, group)
	if err != nil {
		return nil, err
	}
	c.filter = c.filter.Bounded(r.service.maxExcess) // from here on: what a journal says is to be known, and is little
	c.scheduler.Start(time.Now())
	if epoch != r.service.events.Epoch() {
		end = min(end, r.service.opened)
	}
	c.fit(epoch, end)
	if err := c.configure(ctx, group, nil); err != nil {
		return nil, err
	}
	c.scheduler.Flush()
	data, err := c.takeSnapshot()
	if err != nil {
		return nil, err
	}
	if err := c.journal.replace(ctx, data); err != nil {
		return nil, err
	}
	c.startFeeder()
	return c, nil
}

// fit makes the state, which is of a history of the log, one of what the log is
// now. A log that goes on after a loss ended at end: what was read after that is
// gone, and other events take its place. All else stays, and what was lost before
// is found to be removed when it is to be delivered.
func (c *core) fit(epoch string, end uint64) {
	lost := c.scheduler.Position() > end
	if lost || epoch != c.service.events.Epoch() {
		c.service.logger.Warn("the log has lost events since a consumer group read it: the group keeps what the log still holds",
			"group", c.name, "position", c.scheduler.Position(), "last_sequence", end)
	}
	if lost {
		c.scheduler.Cut(end)
	}
}

// restore makes the scheduler what the journal says, and returns the epoch of the
// log of events that it speaks of.
func (c *core) restore(ctx context.Context, group *sluicev1.ConsumerGroup) (epoch string, err error) {
	read, err := c.journal.load(ctx)
	if err != nil {
		return "", err
	}
	if read.lost > 0 {
		c.service.logger.Warn("the end of a consumer group's journal is gone: what the group has settled since may come again",
			"group", c.name, "log", c.journal.log.Name(), "first_sequence", read.lost, "last_sequence", c.journal.last)
	}
	if read.snapshot.data == nil {
		c.scheduler = schedule.New(scheduleConfig(group), c.first-1, firstLease(group))
		return c.epoch, c.setFilter(group.GetFilter())
	}
	saved, err := c.journal.decode(read.snapshot)
	if err != nil {
		return "", err
	}
	if err := c.setFilter(saved.filter); err != nil {
		return "", err
	}
	c.scheduler = saved.scheduler
	end := c.service.events.Durable()
	if saved.epoch != c.service.events.Epoch() {
		end = min(end, c.service.opened) // what came after is not what the journal speaks of
	}
	for _, batch := range read.batches {
		err := c.scheduler.Replay(batch.data, func(upTo uint64) error {
			return c.service.scan(ctx, c.filter, c.scheduler.Position()+1, min(upTo, end), c.scheduler.Append, c.damageAll)
		})
		if errors.Is(err, schedule.ErrCorrupt) {
			return "", c.journal.broken(batch.first, batch.last, err, read.snapshot)
		}
		if err != nil {
			return "", err
		}
	}
	return saved.epoch, nil
}

// damageAll makes dead letters of what the group has read and cannot read any
// more, whether there is room for them or not.
func (c *core) damageAll(d *eventlog.DamagedError) {
	c.reportDamage(d.First, d.Last, d.Err)
	for first := d.First; first <= d.Last; first += maxDamage {
		c.damage(first, min(first+maxDamage-1, d.Last))
	}
}

// damage makes dead letters of at most maxDamage events.
func (c *core) damage(first, last uint64) {
	letters := c.scheduler.Damage(first, last)
	c.service.metrics.damaged.WithLabelValues(c.name).Add(float64(letters))
}

func (c *core) setFilter(spec *sluicev1.EventFilter) error {
	filter, err := subscription.Compile(spec)
	if err == nil {
		c.filter, c.filterSpec = filter, orNew(spec)
	}
	return err
}

// configure takes over a configuration. What waits and no longer matches is
// dropped; looked is what is known of that already, and may be nil. Of a group
// that the server has paused the filter is not touched.
func (c *core) configure(ctx context.Context, group *sluicev1.ConsumerGroup, looked *sifted) error {
	cfg := scheduleConfig(group)
	if !reflect.DeepEqual(cfg, c.scheduler.Config()) {
		c.scheduler.Configure(cfg)
	}
	was := c.idle
	switch {
	case held(group) && was:
		return nil
	case held(group):
		c.replace = true // what was read is not to be looked at again
	case !proto.Equal(orNew(group.GetFilter()), c.filterSpec):
		if err := c.refilter(ctx, group.GetFilter(), looked); err != nil {
			return err
		}
	case was:
		c.filter, c.spent = c.filter.Bounded(c.service.maxExcess), 0 // it is tried again
	default:
		return nil
	}
	c.idle = held(group)
	c.refeed()
	return nil
}

// refilter takes over a filter.
func (c *core) refilter(ctx context.Context, spec *sluicev1.EventFilter, looked *sifted) error {
	filter, err := c.service.compile(spec)
	if err != nil {
		return err
	}
	drop, err := c.service.siftRest(ctx, c.scheduler.Waiting(), filter, looked)
	if err != nil {
		return err
	}
	c.filter, c.filterSpec, c.spent = filter, orNew(spec), 0
	c.scheduler.Drop(drop)
	c.replace = true // what was read with the old filter must not be read again
	return nil
}

// refeed has the log read on from the scheduler's position.
func (c *core) refeed() {
	if c.feeder != nil {
		c.feeder.close()
		c.startFeeder()
	}
}

func (c *core) startFeeder() {
	c.ahead, c.sated, c.damaged = 0, false, feed{}
	if c.idle {
		c.feeder = idleFeeder()
	} else {
		c.feeder = c.feed(c.filter, c.filterSpec, c.scheduler.Position())
	}
}

func (c *core) takeSnapshot() ([]byte, error) {
	c.replace, c.snapshot, c.spent = false, c.scheduler.Position(), c.filter.Spent()
	return encodeSnapshot(c.filterSpec, c.service.events.Epoch(), c.scheduler.Snapshot())
}
