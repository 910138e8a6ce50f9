package group

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/record"
)

const (
	maxBlockedShown = 100
	maxMembersShown = 1000
)

// A standing is how a group stands.
type standing struct {
	schedule.Status

	position uint64 // the log was read up to here
	durable  uint64 // the log's end
	now      time.Time
	reached  []string
	blocked  []schedule.ChatStatus
	members  []schedule.MemberStatus
	order    schedule.Order
}

// standing returns how the group stands; details are its chats and members.
func (r *runner) standing(ctx context.Context, details bool) (*standing, error) {
	st := &standing{}
	err := r.call(ctx, func(c *core) error {
		c.notice()
		st.Status = c.scheduler.Status()
		st.position, st.durable = c.scheduler.Position(), c.service.events.Durable()
		st.now = time.Now()
		if details {
			st.reached = c.scheduler.LimitsReached()
			st.blocked = c.scheduler.TroubledChats(maxBlockedShown)
			st.members = c.scheduler.Members()
			st.order = c.scheduler.Config().Order
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return st, r.service.addUnread(ctx, st)
}

// addUnread makes the first event that the group has not read the oldest one
// when it has settled all others.
func (s *Service) addUnread(ctx context.Context, st *standing) error {
	if st.OldestSequence != 0 || st.unread() == 0 {
		return nil
	}
	records, err := s.events.Read(st.position+1).Next(ctx, 1)
	var gone *eventlog.TruncatedError
	var damaged *eventlog.DamagedError
	switch {
	case errors.As(err, &gone), err == nil && len(records) == 0:
		return nil // it was removed meanwhile: the next look will tell
	case errors.As(err, &damaged):
		st.OldestSequence, st.OldestTime = damaged.First, st.now // nobody knows when
		return nil
	case err != nil:
		return err
	}
	st.OldestSequence, st.OldestTime = records[0].Sequence, records[0].Time
	if o, err := record.ParseOutline(records[0].Data); err == nil {
		st.OldestTime = o.Received
	}
	return nil
}

// unread is how many events of the log the group has not read.
func (st *standing) unread() uint64 { return max(st.durable, st.position) - st.position }

// lag is how many events the group has not settled.
func (st *standing) lag() uint64 {
	return uint64(st.Waiting+st.Outstanding) + st.unread() //nolint:gosec // not negative
}

// age is how long ago the oldest of them was received.
func (st *standing) age() time.Duration {
	if st.OldestSequence == 0 {
		return 0
	}
	return max(0, st.now.Sub(st.OldestTime))
}

// GetConsumerGroupStatus implements ConsumerGroupService.
func (s *Service) GetConsumerGroupStatus(ctx context.Context, req *sluicev1.GetConsumerGroupStatusRequest) (*sluicev1.GetConsumerGroupStatusResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	st, err := r.standing(ctx, true)
	if err != nil {
		return nil, err
	}
	out := &sluicev1.ConsumerGroupStatus{
		Pending:     uint32(st.Waiting),     //nolint:gosec // bounded
		Outstanding: uint32(st.Outstanding), //nolint:gosec // bounded
		Lag: &sluicev1.GroupLag{
			Events: st.lag(), Age: durationpb.New(st.age()), OldestSequence: st.OldestSequence,
		},
		DeadLetters:       uint32(st.DeadLetters),  //nolint:gosec // bounded
		BlockedChatsTotal: uint32(st.Troubled),     //nolint:gosec // bounded
		MembersTotal:      uint32(len(st.members)), //nolint:gosec // bounded
		LimitsReached:     st.reached,
		Position:          st.position,
		PauseReason:       r.configuration().GetPauseReason(),
	}
	if out.BlockedChats, err = s.blockedChats(ctx, st); err != nil {
		return nil, err
	}
	for _, m := range st.members[:min(len(st.members), maxMembersShown)] {
		member := &sluicev1.GroupMember{Name: m.Name, Connected: m.Connected, Outstanding: uint32(m.Events)} //nolint:gosec // bounded
		if m.Connected {
			member.Credits = &sluicev1.Credits{Events: uint32(m.Credits.Events), Bytes: uint64(m.Credits.Bytes)} //nolint:gosec // bounded
		}
		out.Members = append(out.Members, member)
	}
	return &sluicev1.GetConsumerGroupStatusResponse{Status: out}, nil
}

// blockedChats returns the chats that do not go on, with their names.
func (s *Service) blockedChats(ctx context.Context, st *standing) ([]*sluicev1.BlockedChat, error) {
	sequences := make([]uint64, len(st.blocked))
	for i, chat := range st.blocked {
		sequences[i] = chat.Sequence
	}
	found, err := s.shelf.get(ctx, sequences)
	if err != nil {
		return nil, err
	}
	out := make([]*sluicev1.BlockedChat, len(st.blocked))
	for i, chat := range st.blocked {
		out[i] = &sluicev1.BlockedChat{
			State:           sluicev1.ChatState(chat.State),
			Sequence:        chat.Sequence,
			Waiting:         uint32(chat.Waiting), //nolint:gosec // bounded
			LastFailure:     failureProto(chat.Failure),
			Since:           timestamppb.New(chat.Since),
			NextAttemptTime: timeProto(chat.Next),
		}
		if chat.Failure != nil {
			out[i].Attempts = uint32(chat.Failure.Attempt) //nolint:gosec // small
		}
		if st.order != schedule.Total {
			out[i].ChatKey = s.decode(found, chat.Sequence, false).GetChatKey()
		}
	}
	return out, nil
}
