package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/servertest"
)

// TestGroupOverFaults has two members work while their lines are cut, a line goes
// silent and the gateway restarts. Every event must be settled, each chat in
// order, and no event may come again that was settled.
func TestGroupOverFaults(t *testing.T) {
	checkLeaks(t)
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	bound := time.AfterFunc(time.Minute, func() { stop(errors.New("it takes too long")) })
	defer bound.Stop()
	srv := servertest.Start(t)
	const chats, each = 5, 40
	_, err := sluicev1.NewConsumerGroupServiceClient(srv.Conn()).CreateConsumerGroup(ctx, &sluicev1.CreateConsumerGroupRequest{
		ConsumerGroupId: "g",
		ConsumerGroup: &sluicev1.ConsumerGroup{
			Start: client.Earliest(),
			Lease: &sluicev1.LeasePolicy{ReconnectGrace: durationpb.New(5 * time.Second)},
			Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{durationpb.New(0)}, MaxAttempts: -1},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range chats * each {
		srv.MustPost("/message", fmt.Sprintf(`{"data":{"messageId":"m-%d","chatId":"c-%d","botId":"b-1","contactId":"w-1","type":7,`+
			`"timestamp":1763365331110,"payload":{"text":"%d"}}}`, n, n%chats, n))
	}

	lines := [2]*proxy{startProxy(t, srv.GRPCAddr()), startProxy(t, srv.GRPCAddr())}
	restart := func() {
		lines[0].Cut() // else the gateway waits 5 s for an answer on the silent line
		srv.Restart()
	}
	faults := map[int]func(){40: lines[0].Cut, 60: lines[1].Cut, 90: lines[0].Silence, 120: restart, 160: lines[1].Cut}
	due := make(chan func(), len(faults))
	var mu sync.Mutex
	handled := 0
	last := map[string]uint64{}   // by chat: what was handled last
	fences := map[string]uint64{} // by chat
	unsettled := map[uint64]bool{}
	handle := func(_ context.Context, d *sluicev1.Delivery) error {
		e := d.GetEvents()[0]
		mu.Lock()
		defer mu.Unlock()
		if n, was := e.GetSequence(), last[e.GetChatKey()]; n < was || n > was+chats && was > 0 {
			t.Errorf("%s: event %d comes after %d", e.GetChatKey(), n, was)
		}
		if d.GetChatFence() < fences[e.GetChatKey()] {
			t.Errorf("%s: fence %d comes after %d", e.GetChatKey(), d.GetChatFence(), fences[e.GetChatKey()])
		}
		last[e.GetChatKey()], fences[e.GetChatKey()] = e.GetSequence(), d.GetChatFence()
		handled++
		if fault := faults[handled]; fault != nil {
			due <- fault
		}
		done := 0
		for _, n := range last {
			if n > chats*(each-1) {
				done++
			}
		}
		if done == chats {
			stop(errStop)
		}
		return nil
	}
	var members sync.WaitGroup
	for i, line := range lines {
		members.Go(func() {
			err := dial(t, line.Addr).Consume(ctx, "g", handle, client.ConsumeOptions{
				Member:            fmt.Sprint("m", i),
				HeartbeatInterval: 200 * time.Millisecond,
				OnUnsettled: func(d *sluicev1.Delivery, _ sluicev1.Outcome) {
					mu.Lock()
					defer mu.Unlock()
					unsettled[d.GetEvents()[0].GetSequence()] = true
				},
			})
			if !errors.Is(err, errStop) {
				t.Errorf("Consume() = %v, want %v", err, errStop)
			}
		})
	}
	go func() {
		members.Wait()
		close(due)
	}()
	for fault := range due { // from here, because the gateway is this goroutine's
		fault()
	}
	res, err := sluicev1.NewConsumerGroupServiceClient(srv.Conn()).GetConsumerGroupStatus(t.Context(),
		&sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if lag := res.GetStatus().GetLag().GetEvents(); lag > uint64(len(unsettled)) {
		t.Errorf("%d events are not settled, and only %d verdicts took no effect", lag, len(unsettled))
	}
	if again := handled - chats*each; again < 0 || again > len(unsettled) {
		t.Errorf("%d of %d were handled again, and %d verdicts took no effect", again, chats*each, len(unsettled))
	}
}
