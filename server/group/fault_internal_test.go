package group

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog/eventlogtest"
)

// A ledger is what members were told while the storage failed.
type ledger struct {
	*fragile

	ctx context.Context

	mu     sync.Mutex
	failed int                             // calls that did
	events int                             // that there are; 0 while there will be more
	acked  map[uint64]*sluicev1.Settlement // by sequence: it took effect
}

// work pulls and acks until all is acked. A verdict of which the outcome is
// unknown is given again, until it is known.
func (l *ledger) work(member string) {
	for !l.over() {
		res, err := l.Pull(l.ctx, &sluicev1.PullRequest{
			ConsumerGroupId: "w", Member: member, MaxEvents: 4, Wait: durationpb.New(100 * time.Millisecond),
		})
		l.note(err)
		for _, d := range res.GetDeliveries() {
			for !l.ack(d) {
			}
		}
	}
}

func (l *ledger) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events > 0 && len(l.acked) == l.events || l.ctx.Err() != nil
}

// note takes an error, which may only say that the storage is not there.
func (l *ledger) note(err error) {
	if err == nil {
		return
	}
	if code := status.Code(apierror.Status(err)); code != codes.Unavailable {
		l.t.Errorf("a call while the storage fails = %v, want UNAVAILABLE", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed++
}

// ack acks d, and says whether the outcome is known.
func (l *ledger) ack(d *sluicev1.Delivery) bool {
	n := d.GetEvents()[0].GetSequence()
	l.mu.Lock()
	if l.acked[n] != nil {
		l.t.Errorf("event %d comes again after it was acked", n)
	}
	l.mu.Unlock()
	res, err := l.Settle(l.ctx, ackOf(d))
	if err != nil {
		l.note(err)
		return l.ctx.Err() != nil
	}
	switch o := res.GetItems()[0].GetOutcome(); o {
	case sluicev1.Outcome_OUTCOME_DONE, sluicev1.Outcome_OUTCOME_ALREADY_DONE:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.acked[n] = ackOf(d).GetItems()[0]
	case sluicev1.Outcome_OUTCOME_LEASE_LOST: // it ran out meanwhile, and comes again
	default:
		l.t.Errorf("event %d: outcome %v", n, o)
	}
	return true
}

// check wants all that took effect to have stayed so, and nothing to be left.
func (l *ledger) check() {
	l.t.Helper()
	if len(l.acked) != l.events {
		l.t.Errorf("%d events of %d were acked", len(l.acked), l.events)
	}
	for items := range slices.Chunk(slices.Collect(maps.Values(l.acked)), 1000) {
		res, err := l.Settle(l.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: items})
		if err != nil {
			l.t.Fatal(err)
		}
		for _, item := range res.GetItems() {
			if item.GetOutcome() != sluicev1.Outcome_OUTCOME_ALREADY_DONE {
				l.t.Errorf("settled again: %v, want ALREADY_DONE", item)
			}
		}
	}
	if st := l.standing(); st.GetPending()+st.GetOutstanding() != 0 || st.GetLag().GetEvents() != 0 {
		l.t.Errorf("all was acked, and the status is %v", st)
	}
}

// TestStorageFails has the storage fail under members that work: appends that
// fail and are stored, and others that are not. What was answered DONE stays done,
// and nothing is forgotten.
func TestStorageFails(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{
		// A delivery that was stored, but of which nobody was told, runs out.
		Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(time.Second)},
		Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{durationpb.New(0)}, MaxAttempts: -1},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l := &ledger{fragile: f, ctx: ctx, acked: map[uint64]*sluicev1.Settlement{}}
	f.standing() // there is a journal
	journal := f.journalOf()
	f.faults.Set(journal, eventlogtest.Fault{Flaky: 25})
	var members sync.WaitGroup
	for i := range 16 { // so that a write of theirs is always under way
		members.Go(func() { l.work(fmt.Sprint("m", i)) })
	}
	failed := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.failed
	}
	for n := 0; n < 10 || failed() < 5 && ctx.Err() == nil; n++ {
		f.write("a", "b", "c", "d", "e", "f", "g", "h")
	}
	for failed() < 20 && ctx.Err() == nil {
		f.write("a")
		if _, err := f.GetConsumerGroupStatus(ctx, &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "w"}); err != nil {
			l.note(err)
		}
	}
	f.faults.Set(journal, eventlogtest.Fault{})
	l.mu.Lock()
	l.events = int(f.events.Durable())
	l.mu.Unlock()
	members.Wait()
	l.check()
	f.restart()
	l.check()
	if res, err := f.Pull(ctx, &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m"}); err != nil || len(res.GetDeliveries()) > 0 {
		t.Errorf("pulled %v, %v, want nothing: all was acked", res, err)
	}
}
