package group

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/subscription"
)

// A sifted is what was found of events that waited while the group went on.
type sifted struct {
	waiting []uint64 // in order
	drop    []uint64 // those that the new filter does not select, in order
}

// reconfigure has the group take over its newest configuration. When that has
// another filter, what waits is looked at first, which takes seconds for
// millions and nothing from the group; what came to wait meanwhile is looked at
// by the group. A group whose filter is too expensive for that is paused. It is
// safe for concurrent use.
func (r *runner) reconfigure(ctx context.Context) error {
	r.reconfiguring.Lock()
	defer r.reconfiguring.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)() // what is looked at is of no use then
	group := r.configuration()
	err := r.takeOver(ctx, group)
	if isTooExpensive(err) {
		return errors.Join(r.hold(ctx, group.GetFilter()), err)
	}
	return err
}

// takeOver has the group take over a configuration.
func (r *runner) takeOver(ctx context.Context, group *sluicev1.ConsumerGroup) error {
	filter, err := r.service.compile(group.GetFilter())
	if err != nil {
		return err
	}
	var looked sifted
	err = r.call(ctx, func(c *core) error {
		if !held(group) && !proto.Equal(orNew(group.GetFilter()), c.filterSpec) {
			looked.waiting = c.scheduler.Waiting()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if looked.drop, err = r.service.sift(ctx, looked.waiting, filter); err != nil {
		return err
	}
	return r.call(ctx, func(c *core) error { return c.configure(c.ctx, group, &looked) })
}

// siftRest returns which of the waiting events, which are in order, the filter
// does not select. It looks only at those that were not looked at before.
func (s *Service) siftRest(ctx context.Context, waiting []uint64, filter *subscription.Filter, looked *sifted) ([]uint64, error) {
	if looked == nil {
		return s.sift(ctx, waiting, filter)
	}
	before := looked.waiting
	rest := slices.DeleteFunc(waiting, func(sequence uint64) bool {
		for len(before) > 0 && before[0] < sequence {
			before = before[1:]
		}
		return len(before) > 0 && before[0] == sequence
	})
	drop, err := s.sift(ctx, rest, filter)
	return append(looked.drop, drop...), err
}

// sift returns those of the waiting events, which are in order, that the log
// holds and the filter does not select. What cannot be read goes on waiting: it is
// nobody's to drop.
func (s *Service) sift(ctx context.Context, waiting []uint64, filter *subscription.Filter) (drop []uint64, err error) {
	for len(waiting) > 0 {
		span := waiting[:near(waiting)]
		waiting = waiting[len(span):]
		err := scan(ctx, s.events, span[0], span[len(span)-1], func(rec eventlog.Record) error {
			if _, ok := slices.BinarySearch(span, rec.Sequence); !ok {
				return nil
			}
			_, selected, err := s.selectEvent(ctx, rec, filter)
			switch d := (*eventlog.DamagedError)(nil); {
			case errors.As(err, &d):
			case err != nil:
				return err
			case !selected:
				drop = append(drop, rec.Sequence)
			}
			return nil
		}, func(*eventlog.DamagedError) error { return nil })
		if err != nil {
			return nil, err
		}
	}
	return drop, nil
}
