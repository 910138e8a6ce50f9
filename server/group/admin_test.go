package group_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

// TestPause holds that a paused group hands nothing out, but settles.
func TestPause(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	g.post("a", "b")
	out := g.pullAll("m1", 1)
	g.update(&sluicev1.ConsumerGroup{Paused: true})
	if got := g.pull("m1", 1, 0); len(got) != 0 {
		t.Errorf("a paused group hands out %v", got)
	}
	g.settle(done, ack(out[0]))
	g.update(&sluicev1.ConsumerGroup{}, "paused")
	if got := sequences(g.pullAll("m1", 1)); !slices.Equal(got, []uint64{2}) {
		t.Errorf("pulled %v after the pause, want 2", got)
	}
}

// TestUpdate holds that a mask changes what it names and nothing else.
func TestUpdate(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{Retry: &sluicev1.RetryPolicy{MaxAttempts: 7}})
	g.update(&sluicev1.ConsumerGroup{Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(time.Minute)}})
	get := func() *sluicev1.ConsumerGroup {
		t.Helper()
		res, err := g.groups.GetConsumerGroup(g.ctx, &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: "w"})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetConsumerGroup()
	}
	if got := get(); got.GetRetry().GetMaxAttempts() != 7 || got.GetLease().GetDuration().GetSeconds() != 60 {
		t.Errorf("group = %v, want 7 attempts and a lease of a minute", got)
	}
	g.update(&sluicev1.ConsumerGroup{}, "retry.max_attempts")
	if got := get(); got.GetRetry().GetMaxAttempts() != 5 || got.GetLease().GetDuration().GetSeconds() != 60 {
		t.Errorf("group = %v, want the default of 5 attempts and a lease of a minute", got)
	}
	before := get()
	g.Restart()
	if got := get(); !proto.Equal(got, before) {
		t.Errorf("group after a restart = %v, want %v", got, before)
	}
}

// TestDelete holds that nothing of a deleted group is left to one of its name.
func TestDelete(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{Start: earliest()})
	g.post("a")
	old := g.pullAll("m1", 1)[0]
	stream := g.consume("m2", 0)
	stream.opened()
	if _, err := g.groups.DeleteConsumerGroup(g.ctx, &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "w"}); err != nil {
		t.Fatal(err)
	}
	_, err := stream.Recv()
	wantError(t, err, codes.NotFound, "GROUP_NOT_FOUND")
	_, err = g.groups.GetConsumerGroup(g.ctx, &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: "w"})
	wantError(t, err, codes.NotFound, "GROUP_NOT_FOUND")
	g.Restart()
	_, err = g.groups.GetConsumerGroup(g.ctx, &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: "w"})
	wantError(t, err, codes.NotFound, "GROUP_NOT_FOUND")

	g.create(&sluicev1.ConsumerGroup{Start: earliest()})
	_, err = g.work.Settle(g.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: []*sluicev1.Settlement{ack(old)}})
	wantError(t, err, codes.FailedPrecondition, "LEASE_OF_ANOTHER_GROUP")
	if got := g.pullAll("m1", 1)[0]; got.GetAttempt() != 1 {
		t.Errorf("the new group hands out %v, want a first attempt", got)
	}
}

// TestSeek holds that a dry run says what happens, and changes nothing.
func TestSeek(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	g.post("a", "b", "a", "b")
	for n := 0; n < 3; { // both of one chat, and one of the other
		d := g.pullAll("m1", 1)
		g.ackAll(d)
		n++
	}
	seek := func(dryRun bool, to uint64, chats ...string) *sluicev1.SeekConsumerGroupResponse {
		t.Helper()
		res, err := g.groups.SeekConsumerGroup(g.ctx, &sluicev1.SeekConsumerGroupRequest{
			ConsumerGroupId: "w", To: at(to), DryRun: dryRun, ChatKeys: chats,
		})
		if err != nil {
			t.Fatalf("SeekConsumerGroup() = %v", err)
		}
		return res
	}
	want := &sluicev1.SeekConsumerGroupResponse{Again: 3, Sequence: 1}
	if got := seek(true, 1); !proto.Equal(got, want) {
		t.Errorf("dry run = %v, want %v", got, want)
	}
	if st := g.status(); st.GetPending()+st.GetOutstanding() != 1 {
		t.Errorf("status after a dry run = %v, want one event left", st)
	}
	if got := seek(false, 1); !proto.Equal(got, want) {
		t.Errorf("seek = %v, want %v", got, want)
	}
	var all []uint64
	var chat string // of event 1
	for range 4 {
		d := g.pullAll("m1", 1)
		if d[0].GetOrigin() != sluicev1.Origin_ORIGIN_SEEK {
			t.Errorf("origin of %v, want SEEK", d)
		}
		if e := d[0].GetEvents()[0]; e.GetSequence() == 1 {
			chat = e.GetChatKey()
		}
		all = append(all, sequences(d)...)
		g.ackAll(d)
	}
	slices.Sort(all)
	if !slices.Equal(all, []uint64{1, 2, 3, 4}) {
		t.Errorf("after the seek came %v, want all", all)
	}
	if got := seek(false, 1, chat); got.GetAgain() != 2 {
		t.Errorf("seek of one chat = %v, want 2 again", got)
	}
	g.Restart()
	d := g.pullAll("m1", 1)
	g.ackAll(d)
	if all := append(sequences(d), sequences(g.pullAll("m1", 1))...); !slices.Equal(all, []uint64{1, 3}) {
		t.Errorf("after the seek of a chat came %v, want 1 and 3", all)
	}
}

// everything returns what the API shows of all groups.
func (g *gate) everything() []proto.Message {
	g.t.Helper()
	groups, err := g.groups.ListConsumerGroups(g.ctx, &sluicev1.ListConsumerGroupsRequest{})
	if err != nil {
		g.t.Fatal(err)
	}
	all := []proto.Message{groups}
	for _, group := range groups.GetConsumerGroups() {
		st, err := g.groups.GetConsumerGroupStatus(g.ctx, &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: group.GetName()})
		if err != nil {
			g.t.Fatal(err)
		}
		st.GetStatus().GetLag().Age = nil // which grows
		letters, err := g.groups.ListDeadLetters(g.ctx, &sluicev1.ListDeadLettersRequest{ConsumerGroupId: group.GetName()})
		if err != nil {
			g.t.Fatal(err)
		}
		all = append(all, st, letters)
	}
	return all
}

// unread says whether m is the status of a group that has not read all.
func unread(m proto.Message) bool {
	res, ok := m.(*sluicev1.GetConsumerGroupStatusResponse)
	return ok && res.GetStatus().GetPosition() < 3
}

// TestBadRequests holds that what is wrong gets a code with a reason, and
// changes nothing.
func TestBadRequests(t *testing.T) {
	g := start(t)
	if _, err := g.groups.CreateConsumerGroup(g.ctx, &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: "other"}); err != nil {
		t.Fatal(err)
	}
	g.create(&sluicev1.ConsumerGroup{Order: sluicev1.Order_ORDER_NONE})
	g.post("a", "b", "c")
	held := g.pullAll("m", 2)
	g.settle(done, park(held[1]))
	res, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{ConsumerGroupId: "other", Member: "m", Wait: durationpb.New(patience)})
	if err != nil || len(res.GetDeliveries()) != 1 {
		t.Fatalf("Pull() = %v, %v, want a delivery", res, err)
	}
	foreign := res.GetDeliveries()[0]

	createAs := func(id string, group *sluicev1.ConsumerGroup) func() error {
		return func() error {
			_, err := g.groups.CreateConsumerGroup(g.ctx, &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: id, ConsumerGroup: group})
			return err
		}
	}
	create := func(group *sluicev1.ConsumerGroup) func() error { return createAs("x", group) }
	settle := func(items ...*sluicev1.Settlement) func() error { // with one that is good
		return func() error {
			_, err := g.work.Settle(g.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: append([]*sluicev1.Settlement{ack(held[0])}, items...)})
			return err
		}
	}
	pull := func(req *sluicev1.PullRequest) func() error {
		return func() error {
			_, err := g.work.Pull(g.ctx, req)
			return err
		}
	}
	update := func(group *sluicev1.ConsumerGroup, paths ...string) func() error {
		return func() error {
			_, err := g.groups.UpdateConsumerGroup(g.ctx, &sluicev1.UpdateConsumerGroupRequest{
				ConsumerGroupId: "w", ConsumerGroup: group, UpdateMask: mask(paths...),
			})
			return err
		}
	}
	seek := func(req *sluicev1.SeekConsumerGroupRequest) func() error {
		return func() error {
			_, err := g.groups.SeekConsumerGroup(g.ctx, req)
			return err
		}
	}
	redrive := func(req *sluicev1.RedriveDeadLettersRequest) func() error {
		return func() error {
			_, err := g.groups.RedriveDeadLetters(g.ctx, req)
			return err
		}
	}
	discard := func(req *sluicev1.DiscardDeadLettersRequest) func() error {
		return func() error {
			_, err := g.groups.DiscardDeadLetters(g.ctx, req)
			return err
		}
	}
	negative := durationpb.New(-time.Second)
	all := &sluicev1.DeadLetterSelection{All: true}
	none := &sluicev1.ConsumerGroup{}
	const invalid = codes.InvalidArgument
	tests := map[string]struct {
		do     func() error
		code   codes.Code
		reason string
	}{
		"no name":              {createAs("", none), invalid, "INVALID_REQUEST"},
		"bad name":             {createAs("a b", none), invalid, "INVALID_REQUEST"},
		"there is one":         {createAs("w", none), codes.AlreadyExists, "GROUP_EXISTS"},
		"bad filter":           {create(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{Expression: "("}}), invalid, "INVALID_FILTER"},
		"order":                {create(&sluicev1.ConsumerGroup{Order: 9}), invalid, "INVALID_REQUEST"},
		"start":                {create(&sluicev1.ConsumerGroup{Start: at(99)}), codes.FailedPrecondition, "CURSOR_AHEAD_OF_LOG"},
		"negative lease":       {create(&sluicev1.ConsumerGroup{Lease: &sluicev1.LeasePolicy{Duration: negative}}), invalid, "INVALID_REQUEST"},
		"negative total":       {create(&sluicev1.ConsumerGroup{Lease: &sluicev1.LeasePolicy{MaxTotal: negative}}), invalid, "INVALID_REQUEST"},
		"negative grace":       {create(&sluicev1.ConsumerGroup{Lease: &sluicev1.LeasePolicy{ReconnectGrace: negative}}), invalid, "INVALID_REQUEST"},
		"negative backoff":     {create(&sluicev1.ConsumerGroup{Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{negative}}}), invalid, "INVALID_REQUEST"},
		"negative attempts":    {create(&sluicev1.ConsumerGroup{Retry: &sluicev1.RetryPolicy{MaxAttempts: -2}}), invalid, "INVALID_REQUEST"},
		"negative quiet":       {create(&sluicev1.ConsumerGroup{Turn: &sluicev1.TurnPolicy{Quiet: negative}}), invalid, "INVALID_REQUEST"},
		"negative turn":        {create(&sluicev1.ConsumerGroup{Turn: &sluicev1.TurnPolicy{MaxWait: negative}}), invalid, "INVALID_REQUEST"},
		"turn before quiet":    {create(&sluicev1.ConsumerGroup{Turn: &sluicev1.TurnPolicy{Quiet: durationpb.New(time.Minute), MaxWait: durationpb.New(time.Second)}}), invalid, "INVALID_REQUEST"},
		"blank member":         {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: " "}), invalid, "INVALID_REQUEST"},
		"format character":     {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m\u202e"}), invalid, "INVALID_REQUEST"},
		"zero-width space":     {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m\u200b"}), invalid, "INVALID_REQUEST"},
		"not a duration":       {create(&sluicev1.ConsumerGroup{Lease: &sluicev1.LeasePolicy{Duration: &durationpb.Duration{Seconds: 1, Nanos: -1}}}), invalid, "INVALID_REQUEST"},
		"absurd outstanding":   {create(&sluicev1.ConsumerGroup{Limits: &sluicev1.GroupLimits{MaxOutstandingEvents: math.MaxUint32}}), invalid, "INVALID_REQUEST"},
		"absurd per chat":      {create(&sluicev1.ConsumerGroup{Limits: &sluicev1.GroupLimits{MaxOutstandingPerChat: 1001}}), invalid, "INVALID_REQUEST"},
		"absurd rate":          {create(&sluicev1.ConsumerGroup{Limits: &sluicev1.GroupLimits{MaxEventsPerSecond: math.MaxUint32}}), invalid, "INVALID_REQUEST"},
		"absurd pending":       {create(&sluicev1.ConsumerGroup{Limits: &sluicev1.GroupLimits{MaxPendingEvents: 10_000_001}}), invalid, "INVALID_REQUEST"},
		"unknown group":        {pull(&sluicev1.PullRequest{ConsumerGroupId: "x", Member: "m"}), codes.NotFound, "GROUP_NOT_FOUND"},
		"no member":            {pull(&sluicev1.PullRequest{ConsumerGroupId: "w"}), invalid, "INVALID_REQUEST"},
		"negative wait":        {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m", Wait: negative}), invalid, "INVALID_REQUEST"},
		"too many events":      {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m", MaxEvents: 1001}), invalid, "INVALID_REQUEST"},
		"too many bytes":       {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m", MaxBytes: 1 << 40}), invalid, "INVALID_REQUEST"},
		"no lease":             {settle(ack(nil)), invalid, "INVALID_LEASE"},
		"malformed lease":      {settle(ack(&sluicev1.Delivery{Lease: "x"})), invalid, "INVALID_LEASE"},
		"foreign lease":        {settle(ack(foreign)), codes.FailedPrecondition, "LEASE_OF_ANOTHER_GROUP"},
		"no verdict":           {settle(&sluicev1.Settlement{Lease: held[0].GetLease()}), invalid, "INVALID_REQUEST"},
		"negative delay":       {settle(&sluicev1.Settlement{Lease: held[0].GetLease(), Verdict: &sluicev1.Settlement_Nack{Nack: &sluicev1.Nack{Delay: negative}}}), invalid, "INVALID_REQUEST"},
		"negative extend":      {settle(&sluicev1.Settlement{Lease: held[0].GetLease(), Verdict: &sluicev1.Settlement_Extend{Extend: &sluicev1.Extend{By: negative}}}), invalid, "INVALID_REQUEST"},
		"too many items":       {settle(slices.Repeat([]*sluicev1.Settlement{ack(held[0])}, 1000)...), invalid, "INVALID_REQUEST"},
		"fixed field":          {update(none, "start"), invalid, "INVALID_REQUEST"},
		"unknown field":        {update(none, "retry.nothing"), invalid, "INVALID_REQUEST"},
		"update, bad filter":   {update(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{Expression: "("}}, "filter"), invalid, "INVALID_FILTER"},
		"update, negative":     {update(&sluicev1.ConsumerGroup{Lease: &sluicev1.LeasePolicy{Duration: negative}}, "lease.duration"), invalid, "INVALID_REQUEST"},
		"seek, nowhere":        {seek(&sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: "w"}), invalid, "INVALID_REQUEST"},
		"seek, ahead":          {seek(&sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: "w", To: at(99)}), codes.FailedPrecondition, "CURSOR_AHEAD_OF_LOG"},
		"seek, unknown group":  {seek(&sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: "x", To: earliest()}), codes.NotFound, "GROUP_NOT_FOUND"},
		"redrive, nothing":     {redrive(&sluicev1.RedriveDeadLettersRequest{ConsumerGroupId: "w"}), invalid, "INVALID_REQUEST"},
		"redrive, absurd rate": {redrive(&sluicev1.RedriveDeadLettersRequest{ConsumerGroupId: "w", Selection: all, MaxEventsPerSecond: math.MaxUint32}), invalid, "INVALID_REQUEST"},
		"redrive, no group":    {redrive(&sluicev1.RedriveDeadLettersRequest{ConsumerGroupId: "x", Selection: all}), codes.NotFound, "GROUP_NOT_FOUND"},
		"discard, nothing":     {discard(&sluicev1.DiscardDeadLettersRequest{ConsumerGroupId: "w", Reason: "test"}), invalid, "INVALID_REQUEST"},
		"discard, long reason": {discard(&sluicev1.DiscardDeadLettersRequest{ConsumerGroupId: "w", Selection: all, Reason: strings.Repeat("x", 257)}), invalid, "INVALID_REQUEST"},
		"discard, no group":    {discard(&sluicev1.DiscardDeadLettersRequest{ConsumerGroupId: "x", Selection: all, Reason: "test"}), codes.NotFound, "GROUP_NOT_FOUND"},
		"seek, by chat": {
			seek(&sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: "w", To: earliest(), ChatKeys: []string{"c"}}),
			codes.FailedPrecondition, "SEEK_NOT_BY_CHAT",
		},
		"settle nothing": {func() error {
			_, err := g.work.Settle(g.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w"})
			return err
		}, invalid, "INVALID_REQUEST"},
		"delete, no group": {func() error {
			_, err := g.groups.DeleteConsumerGroup(g.ctx, &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "x"})
			return err
		}, codes.NotFound, "GROUP_NOT_FOUND"},
	}
	before := g.everything()
	for slices.ContainsFunc(before, unread) {
		before = g.everything()
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantError(t, tt.do(), tt.code, tt.reason)
			if diff := cmp.Diff(before, g.everything(), protocmp.Transform()); diff != "" {
				t.Errorf("it changed something:\n%s", diff)
			}
		})
	}
}

// TestDerivedDefaults holds that what follows from another field by default goes
// on following it, and what was set does not.
func TestDerivedDefaults(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{Turn: &sluicev1.TurnPolicy{Quiet: durationpb.New(2 * time.Second)}})
	want := func(wait, total time.Duration) {
		t.Helper()
		res, err := g.groups.GetConsumerGroup(g.ctx, &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: "w"})
		if err != nil {
			t.Fatal(err)
		}
		got := res.GetConsumerGroup()
		if w, l := got.GetTurn().GetMaxWait().AsDuration(), got.GetLease().GetMaxTotal().AsDuration(); w != wait || l != total {
			t.Errorf("max_wait is %v and max_total %v, want %v and %v", w, l, wait, total)
		}
	}
	change := func(quiet, lease time.Duration) {
		t.Helper()
		g.update(&sluicev1.ConsumerGroup{
			Turn:  &sluicev1.TurnPolicy{Quiet: durationpb.New(quiet)},
			Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(lease)},
		}, "turn.quiet", "lease.duration")
	}
	want(20*time.Second, time.Hour)
	change(time.Minute, 2*time.Hour)
	want(10*time.Minute, 2*time.Hour)
	change(time.Second, time.Minute)
	want(10*time.Second, time.Hour)
	g.update(&sluicev1.ConsumerGroup{
		Turn:  &sluicev1.TurnPolicy{MaxWait: durationpb.New(5 * time.Second)},
		Lease: &sluicev1.LeasePolicy{MaxTotal: durationpb.New(90 * time.Minute)},
	})
	change(2*time.Second, 2*time.Minute)
	want(5*time.Second, 90*time.Minute)
}

// TestFenceOfNewGroup holds that fences grow over the deletion of a group.
func TestFenceOfNewGroup(t *testing.T) {
	g := start(t)
	g.post("a")
	var last uint64
	for range 3 {
		g.create(&sluicev1.ConsumerGroup{Start: earliest()})
		for range 3 {
			d := g.pullAll("m", 1)[0]
			if d.GetChatFence() <= last || d.GetChatFence() >= 1<<53 {
				t.Errorf("the fence is %d after %d, want more, and less than 2^53", d.GetChatFence(), last)
			}
			last = d.GetChatFence()
			g.settle(done, &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Release{Release: &sluicev1.Release{}}})
		}
		if _, err := g.groups.DeleteConsumerGroup(g.ctx, &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "w"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListGroups holds that pages hold each group once, by name.
func TestListGroups(t *testing.T) {
	g := start(t)
	want := []string{"a", "b", "c"}
	for _, name := range want {
		req := &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: name}
		for range 2 { // the second is the same request
			if _, err := g.groups.CreateConsumerGroup(g.ctx, req); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	req := &sluicev1.ListConsumerGroupsRequest{PageSize: 2}
	for {
		res, err := g.groups.ListConsumerGroups(g.ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range res.GetConsumerGroups() {
			got = append(got, group.GetName())
		}
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("groups = %v, want %v", got, want)
	}
	_, err := g.groups.ListConsumerGroups(g.ctx, &sluicev1.ListConsumerGroupsRequest{PageToken: "x"})
	wantError(t, err, codes.InvalidArgument, "INVALID_PAGE_TOKEN")
}
