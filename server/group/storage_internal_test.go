package group

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/subscription"
)

// open returns a Service over logs of its own, with the group "w".
func open(t *testing.T) *Service {
	t.Helper()
	s := stopped(t)
	s.Start()
	create(t, s, "w")
	return s
}

// stopped returns a Service over logs of its own that was not started.
func stopped(t *testing.T) *Service {
	t.Helper()
	engine, err := local.Open(t.Context(), local.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return over(t, engine, eventlog.LogConfig{Name: "EVENTS"})
}

// over returns a Service over the logs of an engine that was not started. In the
// end both are closed.
func over(t *testing.T, engine eventlog.Engine, cfg eventlog.LogConfig) *Service {
	t.Helper()
	events, err := engine.Log(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	positions, err := subscription.New(subscription.Config{Log: events})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), Config{Engine: engine, Events: events, Positions: positions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// create creates a group.
func create(t *testing.T, s *Service, name string) {
	t.Helper()
	if _, err := s.CreateConsumerGroup(t.Context(), &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: name}); err != nil {
		t.Fatal(err)
	}
}

// store appends n events, each of a chat of its own.
func store(t *testing.T, s *Service, n int) {
	t.Helper()
	for range n {
		e := &sluicev1.Event{ChatKey: fmt.Sprint(s.events.Durable()), ReceiveTime: timestamppb.Now(), Body: &sluicev1.Event_Message{Message: &sluicev1.Message{}}}
		data, err := record.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.events.Append(t.Context(), eventlog.Record{Subject: record.Subject(e), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
}

// take pulls until n deliveries have come.
func take(t *testing.T, s *Service, n int) []*sluicev1.Delivery {
	t.Helper()
	var all []*sluicev1.Delivery
	for len(all) < n {
		res, err := s.Pull(t.Context(), &sluicev1.PullRequest{
			ConsumerGroupId: "w", Member: "m", MaxEvents: uint32(n - len(all)), Wait: durationpb.New(20 * time.Second),
		})
		if err != nil || len(res.GetDeliveries()) == 0 {
			t.Fatalf("Pull() = %v, %v, want a delivery", res, err)
		}
		all = append(all, res.GetDeliveries()...)
	}
	return all
}

func ackOf(d *sluicev1.Delivery) *sluicev1.SettleRequest {
	return &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: []*sluicev1.Settlement{
		{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Ack{Ack: &sluicev1.Ack{}}},
	}}
}

// TestJournalGrewByItself holds that a group whose journal is not what it knows
// stores nothing and says so, reads itself again, and goes on.
func TestJournalGrewByItself(t *testing.T) {
	s := open(t)
	store(t, s, 2)
	got := take(t, s, 2)
	r, err := s.group(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.engine.Log(t.Context(), eventlog.LogConfig{Name: journalLog(r.incarnation)})
	if err != nil {
		t.Fatal(err)
	}
	// The end of an entry, as of a write that was given up.
	if _, err := own.Append(t.Context(), eventlog.Record{Subject: kindBatch + ".2.2", Data: []byte("late")}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Settle(t.Context(), ackOf(got[0]))
	if code := status.Code(apierror.Status(err)); code != codes.Unavailable {
		t.Fatalf("Settle() = %v, want UNAVAILABLE", err)
	}
	for i, d := range got {
		res, err := s.Settle(t.Context(), ackOf(d))
		if want := sluicev1.Outcome_OUTCOME_DONE; err != nil || res.GetItems()[0].GetOutcome() != want {
			t.Errorf("settle %d: %v, %v, want %v", i, res, err, want)
		}
	}
}

// TestRemovedEvents holds that events that retention or an operator removed are
// passed over, and that nothing waits for them.
func TestRemovedEvents(t *testing.T) {
	s := open(t)
	hold := pauser(t, s)
	store(t, s, 3)
	for _, n := range []uint64{1, 2} {
		if err := s.events.Delete(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	hold(false)
	if d := take(t, s, 1)[0]; d.GetEvents()[0].GetSequence() != 3 {
		t.Errorf("pulled %v, want event 3", d)
	}
	for {
		res, err := s.GetConsumerGroupStatus(t.Context(), &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "w"})
		if err != nil {
			t.Fatal(err)
		}
		if st := res.GetStatus(); st.GetPending() == 0 && st.GetOutstanding() == 1 {
			break
		}
	}
}

// pauser pauses the group, and returns what pauses it again or lets it go on.
func pauser(t *testing.T, s *Service) func(paused bool) {
	t.Helper()
	set := func(paused bool) {
		t.Helper()
		req := &sluicev1.UpdateConsumerGroupRequest{ConsumerGroupId: "w", ConsumerGroup: &sluicev1.ConsumerGroup{Paused: paused}}
		req.UpdateMask = &fieldmaskpb.FieldMask{Paths: []string{"paused"}}
		if _, err := s.UpdateConsumerGroup(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	return set
}

// TestCatalogIsCompacted holds that the catalog does not grow for ever, and
// that a group survives it.
func TestCatalogIsCompacted(t *testing.T) {
	s := open(t)
	hold := pauser(t, s)
	for i := range 100 {
		hold(i%2 == 0)
	}
	if n := s.catalog.log.State().Count; n > 80 {
		t.Errorf("the catalog holds %d records of one group", n)
	}
	again, err := openCatalog(t.Context(), s.engine)
	if err != nil {
		t.Fatal(err)
	}
	if all := again.entries(); len(all) != 1 || all[0].group.GetPaused() {
		t.Errorf("the catalog holds %v, want the group as it is", all)
	}
}

func FuzzParseLease(f *testing.F) {
	f.Add(leaseName(7, 9))
	f.Add("")
	f.Fuzz(func(t *testing.T, name string) {
		incarnation, id, ok := parseLease(name)
		if ok && leaseName(incarnation, id) != name {
			t.Errorf("parseLease(%q) = %x, %d, which is named %q", name, incarnation, id, leaseName(incarnation, id))
		}
	})
}
