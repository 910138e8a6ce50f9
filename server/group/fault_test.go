package group_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A ledger is what members were told while the storage failed.
type ledger struct {
	g *gate

	mu     sync.Mutex
	failed bool                            // a call did
	posted int                             // events; 0 while there will be more
	acked  map[uint64]*sluicev1.Settlement // by sequence: it took effect
}

// work pulls and acks until all is acked. A verdict of which the outcome is
// unknown is given again, until it is known.
func (l *ledger) work(member string) {
	for !l.over() {
		res, err := l.g.work.Pull(l.g.ctx, &sluicev1.PullRequest{
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
	return l.posted > 0 && len(l.acked) == l.posted || l.g.ctx.Err() != nil
}

// note takes an error, which may only say that the storage is not there.
func (l *ledger) note(err error) {
	if err == nil {
		return
	}
	if code := status.Code(err); code != codes.Unavailable {
		l.g.t.Errorf("a call while the storage fails = %v, want UNAVAILABLE", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = true
}

// ack acks d, and says whether the outcome is known.
func (l *ledger) ack(d *sluicev1.Delivery) bool {
	n := d.GetEvents()[0].GetSequence()
	l.mu.Lock()
	if l.acked[n] != nil {
		l.g.t.Errorf("event %d comes again after it was acked", n)
	}
	l.mu.Unlock()
	res, err := l.g.work.Settle(l.g.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: []*sluicev1.Settlement{ack(d)}})
	if err != nil {
		l.note(err)
		return l.g.ctx.Err() != nil
	}
	switch o := res.GetItems()[0].GetOutcome(); o {
	case done, sluicev1.Outcome_OUTCOME_ALREADY_DONE:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.acked[n] = ack(d)
	case sluicev1.Outcome_OUTCOME_LEASE_LOST: // it ran out meanwhile, and comes again
	default:
		l.g.t.Errorf("event %d: outcome %v", n, o)
	}
	return true
}

// check wants all that took effect to have stayed so, and nothing to be left.
func (l *ledger) check() {
	l.g.t.Helper()
	if len(l.acked) != l.posted {
		l.g.t.Errorf("%d events of %d were acked", len(l.acked), l.posted)
	}
	for items := range slices.Chunk(slices.Collect(maps.Values(l.acked)), 1000) {
		l.g.settle(sluicev1.Outcome_OUTCOME_ALREADY_DONE, items...)
	}
	if st := l.g.status(); st.GetPending()+st.GetOutstanding() != 0 || st.GetLag().GetEvents() != 0 {
		l.g.t.Errorf("all was acked, and the status is %v", st)
	}
}

// TestStorageFails has the storage fail under members that work, and come back
// by itself: what was answered DONE stays done, and nothing is forgotten.
func TestStorageFails(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{
		// A delivery that was stored, but of which nobody was told, runs out.
		Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(2 * time.Second)},
		Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{durationpb.New(0)}},
	})
	l := &ledger{g: g, acked: map[uint64]*sluicev1.Settlement{}}
	var members sync.WaitGroup
	for i := range 16 { // so that a write of theirs is always under way
		members.Go(func() { l.work(fmt.Sprint("m", i)) })
	}
	// The storage cannot write its high-water mark over a directory, and gives up.
	obstacle := filepath.Join(g.Config.DataDir, "highwater.json.tmp")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	chats := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for failed := false; !failed && g.ctx.Err() == nil; {
		g.post(chats...)
		l.mu.Lock()
		failed = l.failed
		l.mu.Unlock()
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.posted = g.posted
	l.mu.Unlock()
	members.Wait()
	l.check()
	g.Restart()
	l.check()
	if got := g.pull("m1", 1, 0); len(got) != 0 {
		t.Errorf("pulled %v, want nothing: all was acked", got)
	}
}
