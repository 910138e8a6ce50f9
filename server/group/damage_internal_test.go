package group

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// write appends an event of each chat.
func (f *fragile) write(chats ...string) {
	f.t.Helper()
	for _, chat := range chats {
		e := &sluicev1.Event{ChatKey: chat, ReceiveTime: timestamppb.Now(), Body: &sluicev1.Event_Message{Message: &sluicev1.Message{}}}
		data, err := record.Encode(e)
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := f.events.Append(f.t.Context(), eventlog.Record{Subject: record.Subject(e), Data: data}); err != nil {
			f.t.Fatal(err)
		}
	}
}

// create creates the group "w", which reads all.
func (f *fragile) create(g *sluicev1.ConsumerGroup) {
	f.t.Helper()
	g.Start = &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}}
	if _, err := f.CreateConsumerGroup(f.t.Context(), &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: "w", ConsumerGroup: g}); err != nil {
		f.t.Fatal(err)
	}
}

// letters returns the dead letters, as "sequence cause chat".
func (f *fragile) letters() []string {
	f.t.Helper()
	res, err := f.ListDeadLetters(f.t.Context(), &sluicev1.ListDeadLettersRequest{ConsumerGroupId: "w"})
	if err != nil {
		f.t.Fatal(err)
	}
	var all []string
	for _, l := range res.GetDeadLetters() {
		all = append(all, fmt.Sprint(l.GetEvent().GetSequence(), " ", l.GetLastFailure().GetCause(), " ", l.GetEvent().GetChatKey()))
	}
	return all
}

// wantLetters waits until the dead letters are those.
func (f *fragile) wantLetters(want ...string) {
	f.t.Helper()
	var got []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if got = f.letters(); slices.Equal(got, want) {
			return
		}
	}
	f.t.Fatalf("dead letters are %q, want %q", got, want)
}

func (f *fragile) standing() *sluicev1.ConsumerGroupStatus {
	f.t.Helper()
	res, err := f.GetConsumerGroupStatus(f.t.Context(), &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "w"})
	if err != nil {
		f.t.Fatal(err)
	}
	return res.GetStatus()
}

// redrive redrives all dead letters, and wants so many of them to go.
func (f *fragile) redrive(want uint32) {
	f.t.Helper()
	for _, dry := range []bool{true, false} {
		res, err := f.RedriveDeadLetters(f.t.Context(), &sluicev1.RedriveDeadLettersRequest{
			ConsumerGroupId: "w", Selection: &sluicev1.DeadLetterSelection{All: true}, DryRun: dry,
		})
		if err != nil || res.GetEvents() != want {
			f.t.Fatalf("RedriveDeadLetters() = %v, %v, want %d", res, err, want)
		}
	}
}

// takeAll pulls and acks n deliveries, and returns the sequences of their events.
func (f *fragile) takeAll(n int) (got []uint64) {
	f.t.Helper()
	for range n {
		d := take(f.t, f.Service, 1)[0]
		for _, e := range d.GetEvents() {
			got = append(got, e.GetSequence())
		}
		if o, err := settled(f.t, f.Service, d); err != nil || o != sluicev1.Outcome_OUTCOME_DONE {
			f.t.Fatalf("Settle() = %v, %v", o, err)
		}
	}
	return got
}

const damagedCause = " FAILURE_CAUSE_DAMAGED "

// TestDamageAhead holds that a group goes on behind events that it cannot read,
// keeps each as a dead letter, also over a restart, and delivers it in order when
// it can be read by the time of a redrive.
func TestDamageAhead(t *testing.T) {
	f := openFragile(t)
	f.write("a", "b", "a", "a")
	f.damage(2, 3)
	f.create(&sluicev1.ConsumerGroup{})
	if got := f.takeAll(2); !slices.Equal(got, []uint64{1, 4}) {
		t.Fatalf("delivered %v, want 1 and 4", got)
	}
	f.wantLetters("2"+damagedCause, "3"+damagedCause)
	if n, v := f.log.count("dead letters", "first_sequence=2", "last_sequence=3"), f.metric("sluice_group_damaged_events_total"); n != 1 || v != "2" {
		t.Errorf("%d lines, metric %s, want 1 and 2", n, v)
	}
	f.redrive(0)
	f.repair()
	f.restart()
	f.wantLetters("2"+damagedCause+"b", "3"+damagedCause+"a") // they show what they are
	f.write("a")
	if st := f.standing(); st.GetDeadLetters() != 2 {
		t.Fatalf("status = %v, want 2 dead letters: nobody redrove them", st)
	}
	f.redrive(2)
	if got := f.takeAll(3); !slices.Contains(got, 2) || slices.Index(got, 3) > slices.Index(got, 5) {
		t.Errorf("delivered %v, want 2, and 3 before 5", got)
	}
	f.wantLetters()
}

// TestDamageAtDelivery holds that an event that was read and cannot be read again
// becomes a dead letter without an attempt, and that its chat goes on whatever
// on_exhausted says.
func TestDamageAtDelivery(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{
		Paused: true,
		Retry:  &sluicev1.RetryPolicy{MaxAttempts: 1, OnExhausted: sluicev1.OnExhausted_ON_EXHAUSTED_BLOCK_CHAT},
	})
	f.write("a", "a", "b")
	for f.standing().GetPending() < 3 {
	}
	f.forget()
	f.damage(1, 1)
	pauser(t, f.Service)(false)
	got := f.takeAll(2)
	slices.Sort(got)
	if !slices.Equal(got, []uint64{2, 3}) {
		t.Fatalf("delivered %v, want 2 and 3", got)
	}
	f.wantLetters("1" + damagedCause)
	if st := f.standing(); st.GetBlockedChatsTotal() != 0 || st.GetPending()+st.GetOutstanding() != 0 {
		t.Errorf("status = %v, want nothing blocked", st)
	}
	// It is of a chat that is known, so it is tried, and found to be damaged again.
	f.redrive(1)
	f.write("a")
	if got := f.takeAll(1); !slices.Equal(got, []uint64{4}) {
		t.Fatalf("delivered %v, want 4", got)
	}
	f.wantLetters("1" + damagedCause)
	f.repair()
	f.redrive(1)
	d := take(t, f.Service, 1)[0]
	if d.GetAttempt() != 1 || d.GetEvents()[0].GetSequence() != 1 {
		t.Errorf("delivered %v, want the first attempt of 1", d)
	}
}

// TestDamageInATurn holds that a member gets what can be read of a turn, and that
// its ack is of that alone.
func TestDamageInATurn(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{Paused: true, Turn: &sluicev1.TurnPolicy{Quiet: durationpb.New(10 * time.Millisecond)}})
	f.write("a", "a", "a")
	for f.standing().GetPending() < 3 {
	}
	f.forget()
	f.damage(2, 2)
	pauser(t, f.Service)(false)
	if got := f.takeAll(1); !slices.Equal(got, []uint64{1, 3}) {
		t.Fatalf("delivered %v, want 1 and 3", got)
	}
	f.wantLetters("2" + damagedCause)
	f.restart()
	f.wantLetters("2" + damagedCause)
}

// TestUnavailableSettlesNothing holds that what cannot be read now is given back,
// costs no attempt, and comes when it can be read.
func TestUnavailableSettlesNothing(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{Paused: true})
	f.write("a", "b")
	for f.standing().GetPending() < 2 {
	}
	f.forget()
	f.setDown(true)
	pauser(t, f.Service)(false)
	_, err := f.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m", MaxEvents: 2, Wait: durationpb.New(time.Minute)})
	if code := status.Code(apierror.Status(err)); code != codes.Unavailable {
		t.Fatalf("Pull() = %v, want UNAVAILABLE", err)
	}
	if _, err := f.ListDeadLetters(t.Context(), &sluicev1.ListDeadLettersRequest{ConsumerGroupId: "w"}); err != nil {
		t.Errorf("ListDeadLetters() of none = %v", err)
	}
	f.write("a")
	f.setDown(false)
	for range 3 {
		d := take(t, f.Service, 1)[0]
		if d.GetAttempt() != 1 {
			t.Errorf("delivered %v, want a first attempt", d)
		}
		if _, err := settled(t, f.Service, d); err != nil {
			t.Fatal(err)
		}
	}
	if st := f.standing(); st.GetDeadLetters() != 0 || st.GetLag().GetEvents() != 0 {
		t.Errorf("status = %v, want all settled", st)
	}
}

// TestDamageOfManyAndNoRoom holds that a group makes dead letters of 10,000
// events that it cannot read, as far as there is room, reads no further then, says
// so, and goes on when there is room again.
func TestDamageOfManyAndNoRoom(t *testing.T) {
	const many, room = 10_000, 6_000
	f := openFragile(t)
	f.write("a")
	storeMany(t, f.Service, many, 1)
	f.write("c")
	f.damage(2, many+1)
	f.create(&sluicev1.ConsumerGroup{Limits: &sluicev1.GroupLimits{MaxDeadLetters: room}})
	if got := f.takeAll(1); !slices.Equal(got, []uint64{1}) {
		t.Fatalf("delivered %v, want 1", got)
	}
	for f.standing().GetDeadLetters() < room {
	}
	for range 2 {
		st := f.standing()
		if st.GetDeadLetters() != room || st.GetPosition() != room+1 || !slices.Contains(st.GetLimitsReached(), "max_dead_letters") {
			t.Fatalf("status = %v, want it to stand still at max_dead_letters", st)
		}
		f.restart()
	}
	res, err := f.DiscardDeadLetters(t.Context(), &sluicev1.DiscardDeadLettersRequest{
		ConsumerGroupId: "w", Selection: &sluicev1.DeadLetterSelection{All: true}, Reason: "test",
	})
	if err != nil || res.GetEvents() != room {
		t.Fatalf("DiscardDeadLetters() = %v, %v", res, err)
	}
	if got := f.takeAll(1); !slices.Equal(got, []uint64{many + 2}) {
		t.Fatalf("delivered %v, want the event behind the damage", got)
	}
	if st := f.standing(); st.GetDeadLetters() != many-room {
		t.Errorf("status = %v, want %d dead letters", st, many-room)
	}
}

// TestDamageOfOneThatDoesNotDecode holds that an event that the storage can read
// and nobody can decode is damaged, too.
func TestDamageOfOneThatDoesNotDecode(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{})
	if _, err := f.events.Append(t.Context(), eventlog.Record{Subject: "odd", Data: []byte{0xff}}); err != nil {
		t.Fatal(err)
	}
	f.write("a")
	if got := f.takeAll(1); !slices.Equal(got, []uint64{2}) {
		t.Fatalf("delivered %v, want 2", got)
	}
	f.wantLetters("1" + damagedCause)
}

// TestSeekOverDamage holds that a seek of a chat keeps what cannot be read, since
// it may be of that chat.
func TestSeekOverDamage(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{})
	f.write("a", "b", "a")
	f.takeAll(3)
	f.forget()
	f.damage(1, 2)
	res, err := f.SeekConsumerGroup(t.Context(), &sluicev1.SeekConsumerGroupRequest{
		ConsumerGroupId: "w", ChatKeys: []string{"a"},
		To: &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: 1}},
	})
	if err != nil || res.GetAgain() != 3 {
		t.Fatalf("SeekConsumerGroup() = %v, %v, want 3 again", res, err)
	}
	if got := f.takeAll(1); !slices.Equal(got, []uint64{3}) {
		t.Fatalf("delivered %v, want 3", got)
	}
	f.wantLetters("1"+damagedCause, "2"+damagedCause)
}

// TestFilterChangeOverDamage holds that what cannot be read is not dropped when
// the filter changes.
func TestFilterChangeOverDamage(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{Paused: true})
	f.write("a", "b")
	for f.standing().GetPending() < 2 {
	}
	f.forget()
	f.damage(1, 1)
	change := &sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{ChatIds: []string{"none"}}}
	if _, err := f.UpdateConsumerGroup(t.Context(), &sluicev1.UpdateConsumerGroupRequest{ConsumerGroupId: "w", ConsumerGroup: change}); err != nil {
		t.Fatal(err)
	}
	pauser(t, f.Service)(false)
	if res, err := f.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m"}); err != nil || len(res.GetDeliveries()) > 0 {
		t.Fatalf("Pull() = %v, %v, want nothing", res, err)
	}
	f.wantLetters("1" + damagedCause)
}

// TestErrorsOfReads holds that the shelf tells damage, removal and no answer
// apart.
func TestErrorsOfReads(t *testing.T) {
	f := openFragile(t)
	f.write("a", "b", "c", "d")
	if err := f.events.Delete(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	f.damage(3, 3)
	found, err := f.shelf.get(t.Context(), []uint64{4, 1, 2, 3})
	if err != nil || len(found.records) != 2 || len(found.damaged) != 1 || found.damaged[3] == nil {
		t.Errorf("get() = %v, %v, want 1 and 4, 3 damaged, 2 removed", found, err)
	}
	f.forget()
	f.setDown(true)
	if _, err := f.shelf.get(t.Context(), []uint64{1}); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("get() = %v, want ErrUnavailable", err)
	}
}

// TestDamageWhileRestarting holds that what a group had read and cannot read again
// after a restart becomes a dead letter, unless it was settled.
func TestDamageWhileRestarting(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{})
	f.write("a", "b", "c", "c")
	got := take(t, f.Service, 3)
	if _, err := settled(t, f.Service, got[0]); err != nil {
		t.Fatal(err)
	}
	f.restart(func() { f.damage(1, 4) })
	f.wantLetters("4" + damagedCause) // 1 is settled, 2 and 3 are out
	for _, d := range got[1:] {
		if o, err := settled(t, f.Service, d); err != nil || o != sluicev1.Outcome_OUTCOME_DONE {
			t.Errorf("Settle() = %v, %v, want DONE", o, err)
		}
	}
	f.repair()
	f.restart()
	if st := f.standing(); st.GetDeadLetters() != 1 || st.GetOutstanding()+st.GetPending() != 0 {
		t.Errorf("status = %v, want one dead letter", st)
	}
	f.redrive(1)
	if got := f.takeAll(1); !slices.Equal(got, []uint64{4}) {
		t.Errorf("delivered %v, want 4", got)
	}
}

// TestDamageAtDeliveryWithoutRoom holds that a chat waits whose next event cannot
// be read and cannot become a dead letter either, and that others go on.
func TestDamageAtDeliveryWithoutRoom(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{
		Paused: true, Limits: &sluicev1.GroupLimits{MaxDeadLetters: 1},
		Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{durationpb.New(0)}},
	})
	f.write("a", "b", "b", "c")
	for f.standing().GetPending() < 4 {
	}
	f.forget()
	f.damage(1, 2)
	pauser(t, f.Service)(false)
	if got := f.takeAll(1); !slices.Equal(got, []uint64{4}) {
		t.Fatalf("delivered %v, want 4", got)
	}
	for f.standing().GetBlockedChatsTotal() != 1 {
	}
	if st := f.standing(); st.GetDeadLetters() != 1 || !slices.Contains(st.GetLimitsReached(), "max_dead_letters") ||
		st.GetBlockedChats()[0].GetLastFailure().GetCause() != sluicev1.FailureCause_FAILURE_CAUSE_DAMAGED {
		t.Errorf("status = %v, want a chat that waits because of max_dead_letters", st)
	}
	if _, err := f.DiscardDeadLetters(t.Context(), &sluicev1.DiscardDeadLettersRequest{
		ConsumerGroupId: "w", Selection: &sluicev1.DeadLetterSelection{All: true}, Reason: "test",
	}); err != nil {
		t.Fatal(err)
	}
	if got := f.takeAll(1); !slices.Equal(got, []uint64{3}) && f.standing().GetPending() > 0 {
		t.Errorf("delivered %v, want 3", got)
	}
}
