package group

import (
	"context"
	"strconv"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/subscription"
)

const maxSeekChats = 100

// A seek is a move of a group, or of some chats of it.
type seek struct {
	next   uint64   // where to
	chats  []uint64 // as schedule.ChatID returns them; none is the whole group
	wanted map[uint64]bool
	dryRun bool

	// What the log holds from next on, as far as it was looked at.
	filter  *subscription.Filter
	scanned uint64
	count   uint64
	events  []schedule.Event         // of the chats
	damaged []*eventlog.DamagedError // what cannot be read, so that nobody knows its chats
}

// SeekConsumerGroup implements ConsumerGroupService.
func (s *Service) SeekConsumerGroup(ctx context.Context, req *sluicev1.SeekConsumerGroupRequest) (*sluicev1.SeekConsumerGroupResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	if req.GetTo() == nil {
		return nil, apierror.InvalidField("to", "must be set")
	}
	if len(req.GetChatKeys()) > maxSeekChats {
		return nil, apierror.InvalidField("chat_keys", "must not be more than %d", maxSeekChats)
	}
	k := &seek{dryRun: req.GetDryRun(), wanted: map[uint64]bool{}}
	for i, key := range req.GetChatKeys() {
		if key == "" {
			return nil, apierror.InvalidField("chat_keys["+strconv.Itoa(i)+"]", "must not be empty")
		}
		if id := schedule.ChatID(key); !k.wanted[id] {
			k.wanted[id] = true
			k.chats = append(k.chats, id)
		}
	}
	if k.next, err = s.positions.Resolve(ctx, req.GetTo(), "to"); err != nil {
		return nil, err
	}
	// Most of the log is looked at here, and what came meanwhile by the group.
	var position uint64
	err = r.call(ctx, func(c *core) error {
		position, k.filter = c.scheduler.Position(), c.filter
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := k.scan(ctx, s, position); err != nil {
		return nil, err
	}
	res := &sluicev1.SeekConsumerGroupResponse{Sequence: k.next}
	err = r.call(ctx, func(c *core) error { return c.seek(k, res) })
	if err != nil {
		return nil, err
	}
	return res, nil
}

// scan looks at the log up to a position.
func (k *seek) scan(ctx context.Context, s *Service, position uint64) error {
	first := max(k.next, k.scanned+1)
	if position < first {
		return nil
	}
	err := s.scan(ctx, k.filter, first, position, func(e schedule.Event) {
		switch {
		case len(k.chats) == 0:
			k.count++
		case k.wanted[e.Chat]:
			k.count++
			k.events = append(k.events, e)
		}
	}, func(d *eventlog.DamagedError) {
		k.count += d.Last - d.First + 1
		k.damaged = append(k.damaged, d)
	})
	k.scanned = position
	return err
}

// seek moves the group.
func (c *core) seek(k *seek, res *sluicev1.SeekConsumerGroupResponse) error {
	if len(k.chats) > 0 && c.scheduler.Config().Order != schedule.ByChat {
		return &apierror.Error{
			Code:    codes.FailedPrecondition,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_SEEK_NOT_BY_CHAT,
			Message: "the group does not keep chats in order: it can only be moved as a whole",
		}
	}
	if k.filter != c.filter { // it changed meanwhile
		*k = seek{next: k.next, chats: k.chats, wanted: k.wanted, dryRun: k.dryRun, filter: c.filter}
	}
	if err := k.scan(c.ctx, c.service, c.scheduler.Position()); err != nil {
		return err
	}
	skipped, anyway := c.scheduler.SeekCount(k.next, k.chats)
	res.Skipped = uint64(skipped)                      //nolint:gosec // not negative
	res.Again = k.count - min(k.count, uint64(anyway)) //nolint:gosec // not negative
	switch {
	case k.dryRun:
	case len(k.chats) > 0:
		c.scheduler.SeekChats(k.chats, k.next, k.events)
		for _, d := range k.damaged { // it may be of these chats
			c.damageAll(d)
		}
		c.replace = true // rather than all events in the journal
	default:
		c.scheduler.Seek(k.next)
		c.refeed()
	}
	return nil
}
