package group_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// TestPullAndStream holds that a member either pulls or has a stream.
func TestPullAndStream(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	pulled := make(chan error, 1)
	go func() {
		res, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m1", Wait: durationpb.New(time.Minute)})
		if len(res.GetDeliveries()) > 0 {
			err = fmt.Errorf("the pull got %v", res)
		}
		pulled <- err
	}()
	for g.status().GetMembersTotal() == 0 { // until the pull waits
	}
	m := g.consume("m1", 1)
	m.opened()
	if err := <-pulled; err != nil {
		t.Errorf("the pull that waited when a stream opened = %v, want an empty response", err)
	}
	_, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m1"})
	wantError(t, err, codes.InvalidArgument, "INVALID_REQUEST")
	g.post("a", "b")
	d := m.deliveries()
	if len(d) != 1 || d[0].GetEvents()[0].GetSequence() != 1 {
		t.Fatalf("the stream got %v, want event 1", d)
	}
	if err := m.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for g.status().GetMembers()[0].GetConnected() { // until the stream has ended
	}
	if got := sequences(g.pullAll("m1", 1)); got[0] != 2 {
		t.Errorf("pulled %v, want event 2", got)
	}
	g.settle(done, ack(d[0])) // a lease from a stream is settled by whoever names it
}

// TestPullWithoutWaitMissesNothing holds that what was acknowledged before a
// pull came is not missed because the group has not read it yet.
func TestPullWithoutWaitMissesNothing(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	for i := range 200 {
		g.post(fmt.Sprint(i % 3))
		res, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m"})
		if err != nil || len(res.GetDeliveries()) != 1 {
			t.Fatalf("pull %d = %v, %v, want one delivery", i+1, res, err)
		}
		g.settle(done, ack(res.GetDeliveries()[0]))
	}
	if res, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m"}); err != nil || len(res.GetDeliveries()) > 0 {
		t.Errorf("the last pull = %v, %v, want nothing", res, err)
	}
}
