//go:build chaos

package chaos

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const groupID = "workers"

// A crew is the consumer group's side: what it was given and what it settled.
type crew struct {
	mu      sync.Mutex
	seen    map[string]int  // by the vendor's id: how often delivered
	settled map[string]bool // acked, and told that it is done
	after   map[string]int  // deliveries after that
	enough  int             // of seen, to end work; 0 is never
}

func newCrew() *crew {
	return &crew{seen: map[string]int{}, settled: map[string]bool{}, after: map[string]int{}}
}

// createGroup makes the consumer group that reads all.
func (g *gateway) createGroup(order sluicev1.Order) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := sluicev1.NewConsumerGroupServiceClient(g.dial()).CreateConsumerGroup(ctx, &sluicev1.CreateConsumerGroupRequest{
		ConsumerGroupId: groupID,
		ConsumerGroup: &sluicev1.ConsumerGroup{
			Start: &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}},
			Order: order,
			Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(time.Second)},
		},
	})
	if err != nil {
		g.t.Fatalf("create the group: %v", err)
	}
}

// work takes and settles until ctx ends, the gateway does, or (with drain) when
// nothing has come for idle. It returns the error that ended it.
func (c *crew) work(ctx context.Context, g *gateway, member string, idle time.Duration, most int) error {
	client := sluicev1.NewConsumerServiceClient(g.dial())
	last := time.Now()
	for done := 0; ctx.Err() == nil && g.alive() && (most == 0 || done < most) && !c.sated(); {
		res, err := client.Pull(ctx, &sluicev1.PullRequest{
			ConsumerGroupId: groupID, Member: member, MaxEvents: 100, IncludeRaw: true, Wait: durationpb.New(200 * time.Millisecond),
		})
		if err != nil {
			return err
		}
		if len(res.GetDeliveries()) == 0 {
			if idle > 0 && time.Since(last) > idle {
				return nil
			}
			continue
		}
		last = time.Now()
		if err := c.settle(ctx, client, res.GetDeliveries()); err != nil {
			return err
		}
		done += len(res.GetDeliveries())
	}
	return ctx.Err()
}

func (c *crew) sated() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.enough > 0 && len(c.seen) >= c.enough
}

// deadLetters returns the sequences of the group's dead letters.
func (g *gateway) deadLetters(ctx context.Context) (map[uint64]bool, error) {
	res, err := sluicev1.NewConsumerGroupServiceClient(g.dial()).ListDeadLetters(ctx,
		&sluicev1.ListDeadLettersRequest{ConsumerGroupId: groupID, PageSize: 1000})
	all := map[uint64]bool{}
	for _, letter := range res.GetDeadLetters() {
		all[letter.GetEvent().GetSequence()] = true
	}
	return all, err
}

// settle notes and acks deliveries.
func (c *crew) settle(ctx context.Context, client sluicev1.ConsumerServiceClient, deliveries []*sluicev1.Delivery) error {
	req := &sluicev1.SettleRequest{ConsumerGroupId: groupID}
	byLease := map[string][]string{}
	c.mu.Lock()
	for _, d := range deliveries {
		for _, e := range d.GetEvents() {
			id := newEvent(e.GetSequence(), e.GetRaw()).id
			byLease[d.GetLease()] = append(byLease[d.GetLease()], id)
			if c.seen[id]++; c.settled[id] {
				c.after[id]++
			}
		}
		req.Items = append(req.Items, &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Ack{Ack: &sluicev1.Ack{}}})
	}
	c.mu.Unlock()
	res, err := client.Settle(ctx, req)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, item := range res.GetItems() {
		if o := item.GetOutcome(); o == sluicev1.Outcome_OUTCOME_DONE || o == sluicev1.Outcome_OUTCOME_ALREADY_DONE {
			for _, id := range byLease[item.GetLease()] {
				c.settled[id] = true
			}
		}
	}
	return nil
}

// hire has a member work beside the test, until the gateway ends or quit is
// called.
func (c *crew) hire(g *gateway, member string) (quit func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && g.alive() {
			if err := c.work(ctx, g, member, 0, 0); err != nil {
				<-time.After(20 * time.Millisecond) // it may come back
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// finish works until the group has settled all up to last.
func (c *crew) finish(g *gateway, last uint64) {
	g.t.Helper()
	client := sluicev1.NewConsumerGroupServiceClient(g.dial())
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	for {
		if err := c.work(ctx, g, "last", 300*time.Millisecond, 0); err != nil {
			if status.Code(err) == codes.Unavailable && ctx.Err() == nil {
				<-time.After(50 * time.Millisecond)
				continue
			}
			g.t.Fatalf("work: %v", err)
		}
		res, err := client.GetConsumerGroupStatus(ctx, &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: groupID})
		if err != nil {
			g.t.Fatalf("status of the group: %v", errors.Join(err, ctx.Err()))
		}
		if s := res.GetStatus(); s.GetPending() == 0 && s.GetOutstanding() == 0 && s.GetPosition() >= last {
			return
		}
	}
}

// check checks I5 against all that the vendor was answered 0 for.
func (c *crew) check(t *testing.T, l *ledger) {
	t.Helper()
	p := &problems{}
	for _, post := range l.all() {
		if post.Acked && !post.malformed && c.seen[post.ID] == 0 {
			p.add("I5: %s was never delivered to the group", post.ID)
		}
	}
	for id, n := range c.after {
		p.add("%s was delivered %d times after it was settled", id, n)
	}
	p.report(t, "group")
}
