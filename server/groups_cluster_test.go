package server_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// TestGroupsOfACluster works on consumer groups through gateways of which one
// leads each group, while leaders come and go.
func TestGroupsOfACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	all := peersOf(t, 3)

	t.Run("one creation wins", func(t *testing.T) { testOneCreationWins(t, all) })
	t.Run("any gateway", func(t *testing.T) { testAnyGateway(t, all) })
	t.Run("stream", func(t *testing.T) { testForwardedStream(t, all) })
	t.Run("deletion", func(t *testing.T) { testDeletion(t, all) })
	t.Run("leader is cut off", func(t *testing.T) { testLeaderIsCutOff(t, all) })
	t.Run("member moves", func(t *testing.T) { testMemberMoves(t, all) })
	t.Run("follower stops", func(t *testing.T) { all = testFollowerStops(t, all) })
	t.Run("leader stops", func(t *testing.T) { testLeaderStops(t, all) })
}

// testOneCreationWins has all gateways create a group of one name, each another.
func testOneCreationWins(t *testing.T, all []*peer) {
	errs := make([]error, len(all))
	var racers sync.WaitGroup
	for i, p := range all {
		racers.Go(func() { errs[i] = p.create("race", uint32(100+i)) })
	}
	racers.Wait()
	won := slices.Index(errs, nil)
	for i, err := range errs {
		if i != won && status.Code(err) != codes.AlreadyExists {
			t.Errorf("gateway %d: CreateConsumerGroup() = %v, want ALREADY_EXISTS but for one", i, err)
		}
	}
	for i, p := range all {
		res, err := p.groups.GetConsumerGroup(t.Context(), &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: "race"})
		if got := res.GetConsumerGroup().GetLimits().GetMaxOutstandingEvents(); err != nil || got != uint32(100+won) {
			t.Errorf("gateway %d has the group with %d, %v, want that of gateway %d", i, got, err, won)
		}
	}
}

// testAnyGateway holds that it makes no difference which gateway is called: right
// after a group was created, for errors, and over HTTP.
func testAnyGateway(t *testing.T, all []*peer) {
	if err := all[0].create("any", 0); err != nil {
		t.Fatal(err)
	}
	listed, err := all[1].groups.ListConsumerGroups(t.Context(), &sluicev1.ListConsumerGroupsRequest{})
	if err != nil || !slices.ContainsFunc(listed.GetConsumerGroups(), func(g *sluicev1.ConsumerGroup) bool { return g.GetName() == "any" }) {
		t.Errorf("another gateway lists %v, %v, want the group that was created", listed, err)
	}
	all[0].chat("a", 1)
	all[1].chat("b", 1)
	got := []*sluicev1.Delivery{all[2].pull("any", 1)[0], all[1].pull("any", 1)[0]}
	all[0].ack("any", got[0])
	all[2].ack("any", got[1])

	leader, follower := split(t, "any", all)
	follower.pause("any")
	res, err := leader.groups.GetConsumerGroup(t.Context(), &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: "any"})
	if err != nil || !res.GetConsumerGroup().GetPaused() {
		t.Errorf("the leader has %v, %v, want the group paused", res, err)
	}
	var said [2]string
	for i, p := range []*peer{leader, follower} {
		_, err := p.work.Settle(t.Context(), &sluicev1.SettleRequest{ConsumerGroupId: "any", Items: []*sluicev1.Settlement{{Lease: "x"}}})
		said[i] = status.Convert(err).Proto().String()
	}
	if said[0] != said[1] || !strings.Contains(said[0], "INVALID_LEASE") {
		t.Errorf("a leader answers %s\na follower %s", said[0], said[1])
	}
	if got := follower.text("/v1/consumerGroups/any/status"); !strings.HasPrefix(got, `{"status":{`) {
		t.Errorf("a follower answers %s over HTTP, want the status", got)
	}
}

// testForwardedStream works over a stream to a gateway that does not lead.
func testForwardedStream(t *testing.T, all []*peer) {
	if err := all[0].create("stream", 0); err != nil {
		t.Fatal(err)
	}
	_, follower := split(t, "stream", all)
	stream := follower.consume("stream", "m", 10)
	wanted := 2 // what the test before this has posted
	for wanted > 0 {
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if deliveries := res.GetDeliveries().GetDeliveries(); len(deliveries) > 0 {
			err := stream.Send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Settle{
				Settle: &sluicev1.SettlementBatch{Items: acks("stream", deliveries...).GetItems()},
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, item := range res.GetSettled().GetItems() {
			if wanted--; item.GetOutcome() != sluicev1.Outcome_OUTCOME_DONE {
				t.Errorf("settled %v, want DONE", item)
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if res, err := stream.Recv(); err != io.EOF { //nolint:errorlint // as gRPC returns it
		t.Errorf("after all was said: %v, %v, want the end", res, err)
	}
	wrong := follower.consume("stream", "m", 0)
	err := wrong.Send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Credits{Credits: &sluicev1.Credits{Events: 1 << 30}}})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := wrong.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a frame that is wrong is answered %v, %v, want INVALID_ARGUMENT", res, err)
	}
}

// testDeletion deletes a group through a gateway that does not lead it.
func testDeletion(t *testing.T, all []*peer) {
	if err := all[0].create("doomed", 0); err != nil {
		t.Fatal(err)
	}
	all[0].pull("doomed", 1)
	leader, follower := split(t, "doomed", all)
	if _, err := follower.groups.DeleteConsumerGroup(t.Context(), &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "doomed"}); err != nil {
		t.Fatalf("DeleteConsumerGroup() = %v", err)
	}
	_, err := follower.groups.GetConsumerGroup(t.Context(), &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: "doomed"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("GetConsumerGroup() of a group that was deleted here = %v, want NOT_FOUND", err)
	}
	eventually(t, "the leader learns that the group is deleted", func() bool {
		_, err := leader.work.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "doomed", Member: "m"})
		return status.Code(err) == codes.NotFound
	})
	if err := leader.create("doomed", 0); err != nil {
		t.Fatalf("a group of the same name: %v", err)
	}
	if d := follower.pull("doomed", 1)[0]; d.GetAttempt() != 1 {
		t.Errorf("the new group knows of %v, want a first attempt", d)
	}
}

// testLeaderIsCutOff cuts the leader off from the cluster, but not from its
// clients. Whatever it says, what was acked never comes again.
func testLeaderIsCutOff(t *testing.T, all []*peer) {
	if err := all[0].create("cut", 0); err != nil {
		t.Fatal(err)
	}
	leader, follower := split(t, "cut", all)
	before := follower.pull("cut", 2) // of the chats a and b
	if len(before) < 2 {
		before = append(before, follower.pull("cut", 1)...)
	}
	leader.ack("cut", before[0])

	leader.link.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if res, err := leader.work.Settle(ctx, acks("cut", before[1])); !waits(err) {
		t.Errorf("a leader that cannot write answers %v, %v, want UNAVAILABLE with RetryInfo", res, err)
	}
	follower.ack("cut", before[1])
	eventually(t, "the leader steps down", func() bool { return !leader.leads("cut") })
	follower.chat("a", 2)
	d := follower.pull("cut", 10)
	if len(d) != 1 || messageOf(d[0]) != "a-2" {
		t.Errorf("the next leader hands out %v, want a-2 and nothing that was acked", d)
	}
	for _, was := range before {
		if d[0].GetChatFence() <= was.GetChatFence() {
			t.Errorf("the fence went from %d to %d with another leader", was.GetChatFence(), d[0].GetChatFence())
		}
	}
	leader.heal()
	leader.ack("cut", d[0]) // by way of the next one
}

// testMemberMoves has a member of the Go client work over a stream while the
// leader behind it is cut off: what it holds it can settle with the next one, and
// nothing comes twice.
func testMemberMoves(t *testing.T, all []*peer) {
	if err := all[0].create("move", 0); err != nil {
		t.Fatal(err)
	}
	leader, follower := split(t, "move", all)
	rest := slices.DeleteFunc(slices.Clone(all), func(p *peer) bool { return p == leader })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	handed := make(chan string)   // read for each delivery
	finish := make(chan struct{}) // closed when handlers may end
	over := make(chan error, 1)   // one place: what Consume returned
	work := func(ctx context.Context, d *sluicev1.Delivery) error {
		select {
		case handed <- messageOf(d):
		case <-ctx.Done():
			return ctx.Err()
		}
		<-finish
		return nil
	}
	go func() {
		over <- client.New(follower.Conn()).Consume(ctx, "move", work, client.ConsumeOptions{Member: "m"})
	}()
	got := []string{<-handed, <-handed} // of the chats a and b

	leader.link.Cut()
	split(t, "move", rest)
	close(finish)
	follower.chat("c", 1)
	for len(got) < 4 { // a-2 is behind the first of its chat
		got = append(got, <-handed)
	}
	eventually(t, "all is settled", func() bool { return follower.standing("move").GetLag().GetEvents() == 0 })
	stop()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("Consume() = %v, want the cause of its context", err)
	}
	leader.heal()
	slices.Sort(got)
	if want := []string{"a-1", "a-2", "b-1", "c-1"}; !slices.Equal(got, want) {
		t.Errorf("handled %v, want %v", got, want)
	}
}

// testFollowerStops stops a gateway through which a pull and a stream wait for
// another one, and returns the others.
func testFollowerStops(t *testing.T, all []*peer) []*peer {
	if err := all[0].create("idle", 0); err != nil {
		t.Fatal(err)
	}
	all[0].pause("idle")
	leader, follower := split(t, "idle", all)
	stream := follower.consume("idle", "m", 0)
	pulled := make(chan error, 1) // one place: the pull ends once
	go func() {
		_, err := follower.work.Pull(t.Context(), &sluicev1.PullRequest{
			ConsumerGroupId: "idle", Member: "other", Wait: durationpb.New(time.Minute),
		})
		pulled <- err
	}()
	eventually(t, "the pull waits at the leader", func() bool { return leader.standing("idle").GetMembersTotal() == 2 })
	follower.Stop() // fails when it does not drain in time
	if res, err := stream.Recv(); err != nil || res.GetGoingAway() == nil {
		t.Errorf("the stream ends with %v, %v, want going_away", res, err)
	}
	if err := <-pulled; !waits(err) {
		t.Errorf("the pull ends with %v, want UNAVAILABLE with RetryInfo", err)
	}
	return slices.DeleteFunc(slices.Clone(all), func(p *peer) bool { return p == follower })
}

// testLeaderStops stops the leader while a chat goes on.
func testLeaderStops(t *testing.T, all []*peer) {
	if err := all[0].create("stop", 0); err != nil {
		t.Fatal(err)
	}
	var held *sluicev1.Delivery
	var got []string
	next := func(p *peer) {
		held = p.pull("stop", 1)[0]
		got = append(got, messageOf(held))
	}
	next(all[0])

	leader, follower := split(t, "stop", all)
	stream := leader.consume("stop", "idle", 0)
	leader.Stop()
	stopped := time.Now()
	if res, err := stream.Recv(); err != nil || res.GetGoingAway() == nil {
		t.Errorf("the stream ends with %v, %v, want going_away", res, err)
	}
	follower.ack("stop", held) // the lease is good at the next leader
	if took := time.Since(stopped); took >= leaseTTL {
		t.Errorf("it took %v until another gateway led", took)
	}
	follower.chat("a", 3)
	for range 4 { // five messages of three chats
		next(follower)
		follower.ack("stop", held)
	}
	got = slices.DeleteFunc(got, func(id string) bool { return id[0] != 'a' })
	if want := []string{"a-1", "a-2", "a-3"}; !slices.Equal(got, want) {
		t.Errorf("chat a was handed out as %v, want %v", got, want)
	}
}
