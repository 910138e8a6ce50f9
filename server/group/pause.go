package group

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/subscription"
)

const (
	// maxExcess is how much longer than what is cheap a group's expression may take
	// before the server pauses the group, see subscription.Filter.Bounded.
	maxExcess = 5 * time.Second

	// maxLook is for how long a restart evaluates a group's expression again.
	maxLook = 2 * time.Second
)

// held says whether the server has paused a group, which then reads no further.
func held(g *sluicev1.ConsumerGroup) bool {
	return g.GetPauseReason() != sluicev1.PauseReason_PAUSE_REASON_UNSPECIFIED
}

// hold pauses the group because the expression of that filter is too expensive,
// unless it has another one by now. It is in the catalog then: a restart does not
// evaluate it again.
func (r *runner) hold(ctx context.Context, filter *sluicev1.EventFilter) error {
	s := r.service
	return s.change(ctx, func() error {
		e, ok := s.catalog.groups[r.incarnation]
		if !ok || held(e.group) || !proto.Equal(orNew(e.group.GetFilter()), orNew(filter)) {
			return nil
		}
		e.group = proto.CloneOf(e.group)
		e.group.Paused, e.group.PauseReason = true, sluicev1.PauseReason_PAUSE_REASON_EXPRESSION_TOO_EXPENSIVE
		e.group.UpdateTime = timestamppb.Now()
		if err := s.catalog.set(ctx, e); err != nil {
			return err
		}
		s.logger.Warn("a consumer group is paused: its filter's expression takes too long; resume it with another filter", "group", r.name)
		return nil
	})
}

// holdSoon has the group paused as soon as that can be stored. It does not wait:
// the goroutines of a group must not, because hold may have to stop it.
func (r *runner) holdSoon(filter *sluicev1.EventFilter) {
	r.service.running.Go(func() {
		for r.hold(r.ctx, filter) != nil && eventlog.Pause(r.ctx, retryDelay) == nil {
		}
	})
}

// compile returns the filter that spec describes, bounded.
func (s *Service) compile(spec *sluicev1.EventFilter) (*subscription.Filter, error) {
	filter, err := subscription.Compile(spec)
	if err != nil {
		return nil, err
	}
	return filter.Bounded(s.maxExcess), nil
}

// looked says whether so much time went into the group's expression since the
// last snapshot that it is time for another, which takes time as well.
func (c *core) looked() bool {
	return c.filter.Spent()-c.spent > maxLook+time.Duration(c.journal.snapshot)*100*time.Nanosecond
}

func isTooExpensive(err error) bool { return errors.Is(err, subscription.ErrTooExpensive) }
