package show

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// blockedFor is a failure of that long ago, whose texts would control a terminal.
func blockedFor(now time.Time, ago time.Duration) *sluicev1.BlockedChat {
	return &sluicev1.BlockedChat{
		ChatKey: "acme/c\x1b[31m", State: sluicev1.ChatState_CHAT_STATE_RETRYING, Sequence: 17, Waiting: 3, Attempts: 2,
		LastFailure: &sluicev1.Failure{Cause: sluicev1.FailureCause_FAILURE_CAUSE_NACK, Reason: "exit status 1\n", Member: "m1"},
		Since:       timestamppb.New(now.Add(-ago)), NextAttemptTime: timestamppb.New(now.Add(25 * time.Second)),
	}
}

func TestGroupStatus(t *testing.T) {
	now := received.In(shanghai)
	stopped := blockedFor(now, time.Hour)
	stopped.ChatKey, stopped.State, stopped.NextAttemptTime, stopped.LastFailure = "", sluicev1.ChatState_CHAT_STATE_BLOCKED, nil, nil
	var out strings.Builder
	err := GroupStatus(&out,
		&sluicev1.ConsumerGroup{
			Name: "w", Order: sluicev1.Order_ORDER_CHAT, Turn: &sluicev1.TurnPolicy{Quiet: durationpb.New(2 * time.Second)},
			CreateTime: timestamppb.New(received),
		},
		&sluicev1.ConsumerGroupStatus{
			Pending: 3, Outstanding: 2, DeadLetters: 1, Position: 120,
			Lag:          &sluicev1.GroupLag{Events: 5, Age: durationpb.New(12 * time.Second), OldestSequence: 17},
			BlockedChats: []*sluicev1.BlockedChat{stopped, blockedFor(now, 5*time.Second)}, BlockedChatsTotal: 300,
			Members: []*sluicev1.GroupMember{
				{Name: "m1", Connected: true, Outstanding: 2, Credits: &sluicev1.Credits{Events: 16}},
				{Name: "puller\x1b"},
			},
			MembersTotal: 2, LimitsReached: []string{"max_blocked_chats"},
			PauseReason: sluicev1.PauseReason_PAUSE_REASON_EXPRESSION_TOO_EXPENSIVE,
		}, now)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "group_status.txt", out.String())
}

func TestGroupLines(t *testing.T) {
	var out strings.Builder
	for _, g := range []*sluicev1.ConsumerGroup{
		{Name: "plain", Order: sluicev1.Order_ORDER_NONE},
		{Name: "bot", Order: sluicev1.Order_ORDER_CHAT, Turn: &sluicev1.TurnPolicy{Quiet: durationpb.New(2 * time.Second)}, Paused: true},
		{Name: "stopped", Order: sluicev1.Order_ORDER_CHAT, Paused: true, PauseReason: sluicev1.PauseReason_PAUSE_REASON_EXPRESSION_TOO_EXPENSIVE},
	} {
		if err := GroupLine(&out, g); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []*sluicev1.DeadLetter{
		{Event: &sluicev1.Event{Sequence: 7}, DeadTime: timestamppb.New(received)}, // the log no longer holds it
		{
			Event: &sluicev1.Event{Sequence: 8, ChatKey: "acme/c\x1b[31m"}, DeadTime: timestamppb.New(received), Attempts: 5,
			ChatState:   sluicev1.ChatState_CHAT_STATE_DIVERTED,
			LastFailure: &sluicev1.Failure{Cause: sluicev1.FailureCause_FAILURE_CAUSE_PARKED, Reason: "no\nsense", Member: "m1"},
		},
	} {
		if err := DeadLetterLine(&out, d, shanghai); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "group_lines.txt", out.String())
}
