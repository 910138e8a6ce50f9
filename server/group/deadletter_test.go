package group_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// letters returns the dead letters of the group "w".
func (g *gate) letters() *sluicev1.ListDeadLettersResponse {
	g.t.Helper()
	res, err := g.groups.ListDeadLetters(g.ctx, &sluicev1.ListDeadLettersRequest{ConsumerGroupId: "w"})
	if err != nil {
		g.t.Fatalf("ListDeadLetters() = %v", err)
	}
	return res
}

// parkAll parks one event of each of some chats, and returns the chats' keys.
func (g *gate) parkAll(chats ...string) []string {
	g.t.Helper()
	g.create(&sluicev1.ConsumerGroup{})
	g.post(chats...)
	var keys []string
	for _, d := range g.pullAll("m1", len(chats)) {
		g.settle(done, park(d))
		keys = append(keys, d.GetEvents()[0].GetChatKey())
	}
	return keys
}

// TestRedriveWithRate holds that dead letters come again no faster than asked,
// and that a dry run only counts.
func TestRedriveWithRate(t *testing.T) {
	g := start(t)
	g.parkAll("a", "b", "c")
	redrive := func(dryRun bool) {
		t.Helper()
		res, err := g.groups.RedriveDeadLetters(g.ctx, &sluicev1.RedriveDeadLettersRequest{
			ConsumerGroupId: "w", Selection: &sluicev1.DeadLetterSelection{All: true}, MaxEventsPerSecond: 10, DryRun: dryRun,
		})
		if want := (&sluicev1.RedriveDeadLettersResponse{Events: 3, Chats: 3}); err != nil || !proto.Equal(res, want) {
			t.Fatalf("RedriveDeadLetters(dry run %v) = %v, %v, want %v", dryRun, res, err, want)
		}
	}
	before := g.letters()
	redrive(true)
	if now := g.letters(); !proto.Equal(now, before) {
		t.Errorf("dead letters after a dry run = %v, want %v", now, before)
	}
	if got := g.pull("m1", 3, 0); len(got) != 0 {
		t.Errorf("pulled %v after a dry run, want nothing", got)
	}
	began := time.Now()
	redrive(false)
	var got []uint64
	for i := range 3 {
		d := g.pullAll("m1", 1)
		if took, want := time.Since(began), time.Duration(i)*100*time.Millisecond; took < want {
			t.Errorf("letter %d came after %v, want 10 a second", i+1, took)
		}
		got = append(got, sequences(d)...)
		g.ackAll(d)
	}
	if !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("redriven came %v, want 1, 2 and 3", got)
	}
	if all := g.letters().GetDeadLetters(); len(all) != 0 {
		t.Errorf("dead letters after the redrive: %v", all)
	}
}

// TestDiscard holds that discarding takes a reason, and that what is discarded
// is settled for good.
func TestDiscard(t *testing.T) {
	g := start(t)
	keys := g.parkAll("a", "b", "c")
	discard := func(reason string, dryRun bool) (*sluicev1.DiscardDeadLettersResponse, error) {
		return g.groups.DiscardDeadLetters(g.ctx, &sluicev1.DiscardDeadLettersRequest{
			ConsumerGroupId: "w", Selection: &sluicev1.DeadLetterSelection{Sequences: []uint64{1}, ChatKeys: keys[2:]},
			Reason: reason, DryRun: dryRun,
		})
	}
	before := g.letters()
	_, err := discard("", false)
	wantError(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	want := &sluicev1.DiscardDeadLettersResponse{Events: 2, Chats: 2}
	if res, err := discard("test", true); err != nil || !proto.Equal(res, want) {
		t.Errorf("dry run = %v, %v, want %v", res, err, want)
	}
	if now := g.letters(); !proto.Equal(now, before) {
		t.Errorf("dead letters after a dry run = %v, want %v", now, before)
	}
	if res, err := discard("test", false); err != nil || !proto.Equal(res, want) {
		t.Errorf("DiscardDeadLetters() = %v, %v, want %v", res, err, want)
	}
	for range 2 { // and after a restart
		if all := g.letters().GetDeadLetters(); len(all) != 1 || all[0].GetEvent().GetSequence() != 2 {
			t.Errorf("dead letters = %v, want event 2", all)
		}
		if st := g.status(); st.GetPending()+st.GetOutstanding() != 0 {
			t.Errorf("status = %v, want nothing to come again", st)
		}
		g.Restart()
	}
}
