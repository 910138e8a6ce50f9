package group_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
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

// TestBadRequests holds that what is wrong gets a code with a reason.
func TestBadRequests(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{Order: sluicev1.Order_ORDER_NONE})
	create := func(id string, group *sluicev1.ConsumerGroup) func() error {
		return func() error {
			_, err := g.groups.CreateConsumerGroup(g.ctx, &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: id, ConsumerGroup: group})
			return err
		}
	}
	settle := func(items ...*sluicev1.Settlement) func() error {
		return func() error {
			_, err := g.work.Settle(g.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: items})
			return err
		}
	}
	pull := func(req *sluicev1.PullRequest) func() error {
		return func() error {
			_, err := g.work.Pull(g.ctx, req)
			return err
		}
	}
	update := func(paths ...string) func() error {
		return func() error {
			_, err := g.groups.UpdateConsumerGroup(g.ctx, &sluicev1.UpdateConsumerGroupRequest{
				ConsumerGroupId: "w", ConsumerGroup: &sluicev1.ConsumerGroup{}, UpdateMask: mask(paths...),
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
	negative := durationpb.New(-time.Second)
	const invalid = codes.InvalidArgument
	tests := map[string]struct {
		do     func() error
		code   codes.Code
		reason string
	}{
		"no name":          {create("", nil), invalid, "INVALID_REQUEST"},
		"bad name":         {create("a b", nil), invalid, "INVALID_REQUEST"},
		"there is one":     {create("w", nil), codes.AlreadyExists, "GROUP_EXISTS"},
		"bad filter":       {create("x", &sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{Expression: "("}}), invalid, "INVALID_FILTER"},
		"negative lease":   {create("x", &sluicev1.ConsumerGroup{Lease: &sluicev1.LeasePolicy{Duration: negative}}), invalid, "INVALID_REQUEST"},
		"negative backoff": {create("x", &sluicev1.ConsumerGroup{Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{negative}}}), invalid, "INVALID_REQUEST"},
		"negative quiet":   {create("x", &sluicev1.ConsumerGroup{Turn: &sluicev1.TurnPolicy{Quiet: negative}}), invalid, "INVALID_REQUEST"},
		"order":            {create("x", &sluicev1.ConsumerGroup{Order: 9}), invalid, "INVALID_REQUEST"},
		"start":            {create("x", &sluicev1.ConsumerGroup{Start: at(99)}), codes.FailedPrecondition, "CURSOR_AHEAD_OF_LOG"},
		"unknown group":    {pull(&sluicev1.PullRequest{ConsumerGroupId: "x", Member: "m"}), codes.NotFound, "GROUP_NOT_FOUND"},
		"no member":        {pull(&sluicev1.PullRequest{ConsumerGroupId: "w"}), invalid, "INVALID_REQUEST"},
		"negative wait":    {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m", Wait: negative}), invalid, "INVALID_REQUEST"},
		"too many events":  {pull(&sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m", MaxEvents: 1001}), invalid, "INVALID_REQUEST"},
		"no lease":         {settle(ack(nil)), invalid, "INVALID_LEASE"},
		"malformed lease":  {settle(ack(&sluicev1.Delivery{Lease: "x"})), invalid, "INVALID_LEASE"},
		"no items":         {settle(), invalid, "INVALID_REQUEST"},
		"fixed field":      {update("start"), invalid, "INVALID_REQUEST"},
		"unknown field":    {update("retry.nothing"), invalid, "INVALID_REQUEST"},
		"seek, nowhere":    {seek(&sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: "w"}), invalid, "INVALID_REQUEST"},
		"seek, ahead":      {seek(&sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: "w", To: at(99)}), codes.FailedPrecondition, "CURSOR_AHEAD_OF_LOG"},
		"seek, by chat": {
			seek(&sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: "w", To: earliest(), ChatKeys: []string{"c"}}),
			codes.FailedPrecondition, "SEEK_NOT_BY_CHAT",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantError(t, tt.do(), tt.code, tt.reason) })
	}
	if st := g.status(); st.GetMembersTotal() != 0 {
		t.Errorf("status = %v, want nothing changed", st)
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
