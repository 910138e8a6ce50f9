package group

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// beside returns another Service over the logs of s. Each of them leads every
// group, and knows nothing of the other: as a gateway that was deposed and has
// not noticed.
func beside(t *testing.T, s *Service) *Service {
	t.Helper()
	other, err := New(t.Context(), Config{Engine: s.engine, Events: s.events, Positions: s.positions})
	if err != nil {
		t.Fatal(err)
	}
	other.Start()
	t.Cleanup(other.Close)
	return other
}

// settled settles a delivery, and returns what becomes of it.
func settled(t *testing.T, s *Service, d *sluicev1.Delivery) (sluicev1.Outcome, error) {
	t.Helper()
	res, err := s.Settle(t.Context(), ackOf(d))
	if err != nil {
		return 0, err
	}
	return res.GetItems()[0].GetOutcome(), nil
}

// TestDeposedLeaderStoresNothing holds that a gateway that leads a group without
// knowing that another has taken over says nothing that only it knows: its
// verdicts are not taken, what it hands out is void, and the fence of what comes
// after is higher.
func TestDeposedLeaderStoresNothing(t *testing.T) {
	deposed := open(t)
	store(t, deposed, 3)
	old := take(t, deposed, 2)

	next := beside(t, deposed)
	if outcome, err := settled(t, next, old[0]); err != nil || outcome != sluicev1.Outcome_OUTCOME_DONE {
		t.Fatalf("the next leader answers %v, %v, want DONE", outcome, err)
	}
	fresh := take(t, next, 1)[0]
	if fresh.GetChatFence() <= old[1].GetChatFence() {
		t.Errorf("the fence went from %d to %d", old[1].GetChatFence(), fresh.GetChatFence())
	}

	outcome, err := settled(t, deposed, old[1])
	if code := status.Code(apierror.Status(err)); code != codes.Unavailable {
		t.Fatalf("a leader that was deposed answers %v, %v, want UNAVAILABLE", outcome, err)
	}
	// By now it has read what happened, and is the leader again: what it refused
	// was not stored, and what the other stored was not lost.
	for _, tt := range []struct {
		d    *sluicev1.Delivery
		want sluicev1.Outcome
	}{
		{old[0], sluicev1.Outcome_OUTCOME_ALREADY_DONE},
		{old[1], sluicev1.Outcome_OUTCOME_DONE},
		{fresh, sluicev1.Outcome_OUTCOME_DONE},
	} {
		if outcome, err := settled(t, deposed, tt.d); err != nil || outcome != tt.want {
			t.Errorf("after it has read again, event %d: %v, %v, want %v", tt.d.GetEvents()[0].GetSequence(), outcome, err, tt.want)
		}
	}
}

// TestNextLeaderKnowsTheEnd holds that a leader that has not heard of the newest
// events does not take them for lost, and hand them out again.
func TestNextLeaderKnowsTheEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	nats := natstest.Start(t)
	var engines [2]*cluster.Engine
	for i := range engines {
		var err error
		if engines[i], err = cluster.Open(t.Context(), cluster.Config{URL: nats.URL}); err != nil {
			t.Fatal(err)
		}
	}
	before := over(t, engines[0], eventlog.LogConfig{Name: "EVENTS"})
	before.Start()
	deaf := eventlog.LogConfig{Name: "EVENTS", Exclusive: true}
	if _, err := engines[1].Log(t.Context(), deaf); err != nil {
		t.Fatal(err)
	}
	if _, err := before.CreateConsumerGroup(t.Context(), &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: "w"}); err != nil {
		t.Fatal(err)
	}
	store(t, before, 2)
	for _, d := range take(t, before, 2) {
		if outcome, err := settled(t, before, d); err != nil || outcome != sluicev1.Outcome_OUTCOME_DONE {
			t.Fatalf("settled %v, %v, want DONE", outcome, err)
		}
	}
	next := over(t, engines[1], deaf)
	next.Start()
	if end := next.events.Durable(); end != 0 {
		t.Fatalf("the next leader has heard of %d events", end)
	}
	store(t, before, 1)
	if d := take(t, next, 1)[0]; d.GetEvents()[0].GetSequence() != 3 {
		t.Errorf("the next leader hands out %v, want event 3", d)
	}
}

// TestCatalogOfTwo holds that a change of the catalog that was decided without
// knowing another is not made.
func TestCatalogOfTwo(t *testing.T) {
	s := open(t)
	stale, err := openCatalog(t.Context(), s.engine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteConsumerGroup(t.Context(), &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "w"}); err != nil {
		t.Fatal(err)
	}
	e, ok := stale.named("w")
	if !ok {
		t.Fatal("the catalog does not know the group")
	}
	if err := stale.set(t.Context(), e); !errors.Is(err, eventlog.ErrConflict) {
		t.Fatalf("a change of a group that was deleted = %v, want ErrConflict", err)
	}
	// Compaction by the other removes what this one has not read yet.
	for range 100 {
		if err := s.change(t.Context(), func() error { return s.catalog.delete(t.Context(), 7) }); err != nil {
			t.Fatal(err)
		}
	}
	state := stale.log.State()
	if state.First <= stale.end+1 {
		t.Fatalf("the catalog begins at %d, want a part of it gone that was not read", state.First)
	}
	if err := stale.catchUp(t.Context()); err != nil {
		t.Fatalf("catchUp() = %v", err)
	}
	if _, ok := stale.named("w"); ok || stale.end != state.Last {
		t.Errorf("the catalog is read up to %d of %d, and has the group: %v", stale.end, state.Last, ok)
	}
}
