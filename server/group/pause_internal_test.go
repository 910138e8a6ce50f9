package group

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
)

// costly selects everything, and takes several milliseconds for each event.
const costly = `[1,2,3,4,5,6,7].map(a,[1,2,3,4,5,6,7].map(b,[1,2,3,4,5,6,7].map(c,[1,2,3,4,5,6,7].map(d,a+b))))!=[]`

// standsStill wants the group "w" to be paused by the server, and returns up to
// where it has read.
func (f *fragile) standsStill() uint64 {
	f.t.Helper()
	st := f.standing()
	if got := st.GetPauseReason(); got != sluicev1.PauseReason_PAUSE_REASON_EXPRESSION_TOO_EXPENSIVE {
		f.t.Fatalf("pause_reason is %v, want that the expression is too expensive", got)
	}
	return st.GetPosition()
}

// await waits until the status of the group "w" is as it should be.
func (f *fragile) await(ok func(*sluicev1.ConsumerGroupStatus) bool) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(f.standing()); {
		if time.Now().After(end) {
			f.t.Fatalf("the group does not come to it: %v", f.standing())
		}
	}
}

// update changes the group "w".
func (f *fragile) update(group *sluicev1.ConsumerGroup, paths ...string) (*sluicev1.ConsumerGroup, error) {
	f.t.Helper()
	res, err := f.UpdateConsumerGroup(f.t.Context(), &sluicev1.UpdateConsumerGroupRequest{
		ConsumerGroupId: "w", ConsumerGroup: group, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
	})
	return res.GetConsumerGroup(), err
}

// TestExpensiveGroupIsPaused holds that a group whose expression takes too long is
// paused with the reason in its status, that it stays so over a restart without
// looking at anything again, and that it goes on where it was when somebody resumes
// it, or gives it another filter.
func TestExpensiveGroupIsPaused(t *testing.T) {
	f := openFragile(t)
	f.maxExcess = time.Millisecond
	store(t, f.Service, 10)
	f.create(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{Expression: costly}})
	f.await(func(st *sluicev1.ConsumerGroupStatus) bool { return st.GetPauseReason() != 0 })
	before := f.standsStill()
	if before >= 10 || f.log.count("is paused") != 1 {
		t.Errorf("it has read up to %d, and says so %d times, want that it stopped before the end and said so", before, f.log.count("is paused"))
	}

	f.restart()
	if after := f.standsStill(); after > before {
		t.Errorf("it has read up to %d after a restart, want no more than %d", after, before)
	}
	var spent time.Duration
	if err := f.known("w").call(t.Context(), func(c *core) error { spent = c.filter.Spent(); return nil }); err != nil || spent > 0 {
		t.Errorf("its expression took %v after a restart, %v, want nothing", spent, err)
	}
	if g, err := f.update(&sluicev1.ConsumerGroup{Limits: &sluicev1.GroupLimits{MaxEventsPerSecond: 100_000}}, "limits"); err != nil || !held(g) || !g.GetPaused() {
		t.Errorf("UpdateConsumerGroup() of a limit = %v, %v, want that it stays paused", g, err)
	}

	// Resumed, it tries again; here there is time for the rest.
	if g, err := f.update(&sluicev1.ConsumerGroup{}, "paused"); err != nil || held(g) || g.GetPaused() {
		t.Errorf("UpdateConsumerGroup() of paused = %v, %v, want that it goes on", g, err)
	}
	if got := f.takeAll(10); !slices.Equal(got, upTo(10)) {
		t.Errorf("got %v, want all in order", got)
	}
}

// TestExpensiveFilterPausesAGroup holds that a new filter which is too expensive
// for what waits is refused for now: the group is paused, and drops nothing.
func TestExpensiveFilterPausesAGroup(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{})
	store(t, f.Service, 10)
	f.await(func(st *sluicev1.ConsumerGroupStatus) bool { return st.GetPosition() == 10 })
	f.maxExcess = time.Millisecond
	_, err := f.update(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{Expression: "!(" + costly + ")"}}, "filter")
	wantReason(t, err, sluicev1.ErrorReason_ERROR_REASON_EXPRESSION_TOO_EXPENSIVE)
	if got := status.Code(apierror.Status(err)); got != codes.ResourceExhausted {
		t.Errorf("UpdateConsumerGroup() = %v, want RESOURCE_EXHAUSTED", got)
	}
	f.standsStill()
	f.restart()
	f.standsStill()
	res, err := f.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m", MaxEvents: 10, Wait: durationpb.New(0)})
	if err != nil || len(res.GetDeliveries()) > 0 {
		t.Errorf("Pull() = %v, %v, want nothing while it is paused", res, err)
	}
	if g, err := f.update(&sluicev1.ConsumerGroup{}, "filter"); err != nil || held(g) || g.GetPaused() {
		t.Errorf("UpdateConsumerGroup() of the filter = %v, %v, want that it goes on", g, err)
	}
	if got := f.takeAll(10); !slices.Equal(got, upTo(10)) {
		t.Errorf("got %v, want all in order", got)
	}
}

// TestExpressionOverItsLimit holds that a group is also paused whose expression is
// given up for each event, which then does not match, and that this is counted.
func TestExpressionOverItsLimit(t *testing.T) {
	const ten = "[1,2,3,4,5,6,7,8,9,10]"
	f := openFragile(t)
	f.maxExcess = time.Millisecond
	store(t, f.Service, 10)
	f.create(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{
		Expression: ten + ".all(a," + ten + ".all(b," + ten + ".all(c," + ten + ".all(d,a+b+c+d+a+b+c+d+a+b+c+d>0))))",
	}})
	f.await(func(st *sluicev1.ConsumerGroupStatus) bool { return st.GetPauseReason() != 0 })
	if at := f.standsStill(); at >= 10 {
		t.Errorf("it has read up to %d, want that it stopped before the end", at)
	}
	f.maxExcess = time.Hour
	if _, err := f.update(&sluicev1.ConsumerGroup{}, "paused"); err != nil {
		t.Fatal(err)
	}
	f.await(func(st *sluicev1.ConsumerGroupStatus) bool { return st.GetPosition() == 10 })
	if n := testutil.ToFloat64(f.Service.metrics.filterErrors); n < 1 || n > 20 {
		t.Errorf("%v events are counted as not to be decided, want up to 10, and as many again after it was resumed", n)
	}
}
