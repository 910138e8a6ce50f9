package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A crew is some members of one consumer group, each with a connection of its
// own and the generated client. A member settles each frame of deliveries with
// one frame of verdicts, as soon as it has it.
type crew struct {
	addr    string // host:port
	group   string
	members int
	credits uint32 // events, of each member

	// verdict says what becomes of a delivery that a member has just got; nil is
	// not to settle it. It is called from several goroutines.
	verdict func(*sluicev1.Delivery) *sluicev1.Settlement

	settled atomic.Int64 // verdicts that were answered as done
	cancel  context.CancelFunc
	running sync.WaitGroup
	failed  chan error // holds the first failure
}

// start returns once all are members.
func (c *crew) start(ctx context.Context) error {
	if c.verdict == nil {
		c.verdict = ack
	}
	ctx, c.cancel = context.WithCancel(ctx)
	c.failed = make(chan error, 1)
	open := make(chan struct{}, c.members)
	for i := range c.members {
		c.running.Go(func() {
			err := c.work(ctx, fmt.Sprintf("member-%d", i), open)
			if ctx.Err() == nil {
				select {
				case c.failed <- err:
				default: // one is enough
				}
			}
		})
	}
	for range c.members {
		select {
		case <-open:
		case err := <-c.failed:
			c.stop()
			return err
		}
	}
	return nil
}

// stop cuts the streams.
func (c *crew) stop() {
	c.cancel()
	c.running.Wait()
}

// rate returns the deliveries settled per second while d passes.
func (c *crew) rate(ctx context.Context, d time.Duration) (float64, error) {
	begin, before := time.Now(), c.settled.Load()
	select {
	case <-time.After(d):
	case err := <-c.failed:
		return 0, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return float64(c.settled.Load()-before) / time.Since(begin).Seconds(), nil
}

// until waits for done to say true, which it is asked every few milliseconds.
func (c *crew) until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// work is what a member does until ctx ends. It never returns nil.
func (c *crew) work(ctx context.Context, name string, open chan<- struct{}) error {
	conn, err := grpc.NewClient(c.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the stream has ended
	stream, err := sluicev1.NewConsumerServiceClient(conn).Consume(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Open{Open: &sluicev1.ConsumeOpen{
		ConsumerGroupId: c.group, Member: name, Credits: &sluicev1.Credits{Events: c.credits},
	}}})
	for err == nil {
		var frame *sluicev1.ConsumeResponse
		if frame, err = stream.Recv(); err != nil {
			break
		}
		switch f := frame.GetFrame().(type) {
		case *sluicev1.ConsumeResponse_Opened:
			open <- struct{}{}
		case *sluicev1.ConsumeResponse_Deliveries:
			err = c.settle(stream, f.Deliveries.GetDeliveries())
		case *sluicev1.ConsumeResponse_Settled:
			err = c.count(f.Settled.GetItems())
		case *sluicev1.ConsumeResponse_Heartbeat:
			err = stream.Send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Heartbeat{Heartbeat: &sluicev1.ConsumeHeartbeat{}}})
		default:
			err = errors.New("unexpected frame")
		}
	}
	return fmt.Errorf("member of %s: %w", c.group, err)
}

func (c *crew) settle(stream grpc.BidiStreamingClient[sluicev1.ConsumeRequest, sluicev1.ConsumeResponse], all []*sluicev1.Delivery) error {
	items := make([]*sluicev1.Settlement, 0, len(all))
	for _, d := range all {
		if item := c.verdict(d); item != nil {
			items = append(items, item)
		}
	}
	if len(items) == 0 {
		return nil
	}
	return stream.Send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Settle{Settle: &sluicev1.SettlementBatch{Items: items}}})
}

// count counts verdicts that took effect. Any other outcome is a failure: it
// would pass for throughput.
func (c *crew) count(all []*sluicev1.SettlementResult) error {
	for _, r := range all {
		if r.GetOutcome() != sluicev1.Outcome_OUTCOME_DONE {
			return fmt.Errorf("a verdict was answered %v", r.GetOutcome())
		}
	}
	c.settled.Add(int64(len(all)))
	return nil
}

func ack(d *sluicev1.Delivery) *sluicev1.Settlement {
	return &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Ack{Ack: &sluicev1.Ack{}}}
}
