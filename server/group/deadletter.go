package group

import (
	"context"
	"slices"
	"strconv"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/subscription"
)

const (
	maxSelected      = 10_000
	maxDiscardReason = 256

	// maxPageBytes bounds a page, unless one event is larger.
	maxPageBytes = 1 << 20
)

// ListDeadLetters implements ConsumerGroupService.
func (s *Service) ListDeadLetters(ctx context.Context, req *sluicev1.ListDeadLettersRequest) (*sluicev1.ListDeadLettersResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if len(req.GetChatKeys()) > maxSelected {
		return nil, apierror.InvalidField("chat_keys", "must not be more than %d", maxSelected)
	}
	b := bindingOf("dead letters", r.incarnation, req.GetChatKeys(), req.GetIncludeRaw())
	token, err := b.last(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	after, _ := strconv.ParseUint(token, 10, 64) // ours, or ""
	var letters []schedule.DeadLetter
	err = r.call(ctx, func(c *core) error {
		letters = c.scheduler.DeadLetters(after, size+1, chatIDs(req.GetChatKeys()))
		return nil
	})
	if err != nil {
		return nil, err
	}
	res := &sluicev1.ListDeadLettersResponse{}
	sequences := make([]uint64, len(letters))
	for i, l := range letters {
		sequences[i] = l.Sequence
	}
	found, err := s.shelf.get(ctx, sequences)
	if err != nil {
		return nil, err
	}
	bytes := 0
	for i, l := range letters {
		bytes += len(found.records[l.Sequence].Data)
		if i == size || i > 0 && bytes > maxPageBytes {
			res.NextPageToken = b.token(strconv.FormatUint(letters[i-1].Sequence, 10))
			break
		}
		out := &sluicev1.DeadLetter{
			Event:       s.decode(found, l.Sequence, req.GetIncludeRaw()),
			LastFailure: failureProto(l.Failure),
			ChatState:   sluicev1.ChatState(l.State),
			DeadTime:    timeProto(l.Time),
		}
		if l.Failure != nil {
			out.Attempts = uint32(l.Failure.Attempt) //nolint:gosec // small
		}
		res.DeadLetters = append(res.DeadLetters, out)
	}
	return res, nil
}

// RedriveDeadLetters implements ConsumerGroupService.
func (s *Service) RedriveDeadLetters(ctx context.Context, req *sluicev1.RedriveDeadLettersRequest) (*sluicev1.RedriveDeadLettersResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	sel, err := selection(req.GetSelection())
	if err != nil {
		return nil, err
	}
	if req.GetMaxEventsPerSecond() > 1<<31-1 {
		return nil, apierror.InvalidField("max_events_per_second", "is too large")
	}
	if err := r.readAgain(ctx, sel); err != nil {
		return nil, err
	}
	var n schedule.Count
	err = r.call(ctx, func(c *core) error {
		n = c.scheduler.Redrive(sel, int(req.GetMaxEventsPerSecond()), req.GetDryRun())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sluicev1.RedriveDeadLettersResponse{Events: uint32(n.Events), Chats: uint32(n.Chats)}, nil //nolint:gosec // bounded
}

// readAgain has the group know what the selected dead letters are that nobody
// could read. Those that still cannot be read, or that the group's filter does not
// select, stay as they are.
func (r *runner) readAgain(ctx context.Context, sel schedule.Selection) error {
	var unread []uint64
	var filter *subscription.Filter
	err := r.call(ctx, func(c *core) error {
		unread, filter = c.scheduler.Unread(sel), c.filter
		return nil
	})
	var events []schedule.Event
	for err == nil && len(unread) > 0 {
		span := unread[:near(unread)]
		unread = unread[len(span):]
		err = r.service.scan(ctx, filter, span[0], span[len(span)-1], func(e schedule.Event) {
			if _, ok := slices.BinarySearch(span, e.Sequence); ok {
				events = append(events, e)
			}
		}, func(*eventlog.DamagedError) {})
	}
	if err != nil || len(events) == 0 {
		return err
	}
	return r.call(ctx, func(c *core) error {
		c.scheduler.Recover(events)
		c.replace = true // rather than all events in the journal
		return nil
	})
}

// DiscardDeadLetters implements ConsumerGroupService.
func (s *Service) DiscardDeadLetters(ctx context.Context, req *sluicev1.DiscardDeadLettersRequest) (*sluicev1.DiscardDeadLettersResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	sel, err := selection(req.GetSelection())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetReason()); n == 0 || n > maxDiscardReason {
		return nil, apierror.InvalidField("reason", "must be 1 to %d bytes", maxDiscardReason)
	}
	var n schedule.Count
	err = r.call(ctx, func(c *core) error {
		n = c.scheduler.Discard(sel, req.GetDryRun())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !req.GetDryRun() {
		s.logger.Info("dead letters discarded", "group", r.name, "events", n.Events, "chats", n.Chats, "reason", req.GetReason())
	}
	return &sluicev1.DiscardDeadLettersResponse{Events: uint32(n.Events), Chats: uint32(n.Chats)}, nil //nolint:gosec // bounded
}

// selection checks which dead letters are meant.
func selection(in *sluicev1.DeadLetterSelection) (schedule.Selection, error) {
	sel := schedule.Selection{Sequences: in.GetSequences(), Chats: chatIDs(in.GetChatKeys()), All: in.GetAll()}
	switch {
	case len(sel.Sequences) == 0 && len(sel.Chats) == 0 && !sel.All:
		return sel, apierror.InvalidField("selection", "must have a field that is set")
	case len(sel.Sequences) > maxSelected:
		return sel, apierror.InvalidField("selection.sequences", "must not be more than %d", maxSelected)
	case len(sel.Chats) > maxSelected:
		return sel, apierror.InvalidField("selection.chat_keys", "must not be more than %d", maxSelected)
	case slices.Contains(in.GetChatKeys(), ""):
		return sel, apierror.InvalidField("selection.chat_keys", "must not have an empty one")
	}
	return sel, nil
}

func chatIDs(keys []string) []uint64 {
	ids := make([]uint64, len(keys))
	for i, key := range keys {
		ids[i] = schedule.ChatID(key)
	}
	return ids
}
