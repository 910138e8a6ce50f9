package group

import (
	"context"
	"errors"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/subscription"
)

const (
	// retryDelay is how long to wait before a storage is asked again that could
	// not be used.
	retryDelay = 100 * time.Millisecond

	// maxStep is how long a feed grows while an expression is evaluated.
	maxStep = time.Second

	// maxDamage is how many events that cannot be read go into one feed.
	maxDamage = 256
)

// A feed is a part of the log as a filter sees it: events, or a range of those
// that cannot be read.
type feed struct {
	events   []schedule.Event
	records  []eventlog.Record // those of events
	position uint64            // up to here there are no others
	first    uint64            // the oldest event held; 0 is no news
	damaged  uint64            // from here to position nothing can be read; 0 is no such thing
}

// A feeder reads the log for a group, in a goroutine of its own.
type feeder struct {
	feeds chan feed // without a buffer: it reads one feed ahead
	stop  context.CancelFunc
	done  chan struct{}
}

// idleFeeder returns a feeder that reads nothing.
func idleFeeder() *feeder {
	f := &feeder{stop: func() {}, done: make(chan struct{})}
	close(f.done)
	return f
}

// feed starts a feeder that begins after position. spec is what filter was made
// of; when it is too expensive the group is paused.
func (r *runner) feed(filter *subscription.Filter, spec *sluicev1.EventFilter, position uint64) *feeder {
	ctx, stop := context.WithCancel(r.ctx)
	f := &feeder{feeds: make(chan feed), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		// It ends with ctx, with the log, or when the filter is too expensive.
		err := r.service.events.Follow(ctx, position+1, func(step eventlog.Step) error {
			err := f.pass(ctx, r, filter, step, position)
			position = step.Position
			return err
		})
		if isTooExpensive(err) {
			r.holdSoon(spec)
		}
	}()
	return f
}

// close ends the feeder, and waits for it.
func (f *feeder) close() {
	f.stop()
	<-f.done
}

// pass hands on what the log holds after position.
func (f *feeder) pass(ctx context.Context, r *runner, filter *subscription.Filter, step eventlog.Step, position uint64) error {
	out := feed{first: step.First}
	sent := time.Now()
	for _, rec := range step.Records {
		e, ok, err := r.service.selectEvent(ctx, rec, filter)
		if err != nil || time.Since(sent) > maxStep {
			out.position = rec.Sequence - 1
			if err := f.send(ctx, out); err != nil {
				return err
			}
			out, sent = feed{}, time.Now()
		}
		var damaged *eventlog.DamagedError
		switch {
		case errors.As(err, &damaged):
			if err := f.passDamage(ctx, r, damaged); err != nil {
				return err
			}
		case err != nil:
			return err
		case ok:
			out.events = append(out.events, e)
			out.records = append(out.records, rec)
		}
	}
	if step.Damaged != nil {
		part := *step.Damaged
		part.First = max(part.First, position+1)
		return f.passDamage(ctx, r, &part)
	}
	out.position = step.Position
	return f.send(ctx, out)
}

// passDamage hands on that events cannot be read, in parts.
func (f *feeder) passDamage(ctx context.Context, r *runner, d *eventlog.DamagedError) error {
	r.reportDamage(d.First, d.Last, d.Err)
	for first := d.First; first <= d.Last; first += maxDamage {
		if err := f.send(ctx, feed{damaged: first, position: min(first+maxDamage-1, d.Last)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *feeder) send(ctx context.Context, out feed) error {
	select {
	case f.feeds <- out:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
