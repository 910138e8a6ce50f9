package group

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/group/schedule"
)

const (
	defaultHeartbeat = 5 * time.Second
	minHeartbeat     = 100 * time.Millisecond
	maxHeartbeat     = time.Minute

	// missedHeartbeats is how many intervals a member may be silent.
	missedHeartbeats = 3

	// maxUnanswered is how many settle frames of a stream wait for their
	// answer; more are not read.
	maxUnanswered = 256

	// maxFrameDeliveries and maxFrameBytes bound a frame. A single delivery may
	// be larger than maxFrameBytes.
	maxFrameDeliveries = 256
	maxFrameBytes      = 1 << 20
)

// consumeStream is a stream as gRPC has it.
type consumeStream = grpc.BidiStreamingServer[sluicev1.ConsumeRequest, sluicev1.ConsumeResponse]

// A consumer is one call of Consume. What the member says is handled in one
// goroutine, what it is told is sent from another: a member that does not read
// can still settle.
type consumer struct {
	*runner

	stream     consumeStream
	session    *session
	raw        bool
	heartbeat  time.Duration
	unanswered chan struct{} // holds a token for each settle frame that was not answered
}

// Consume implements ConsumerService.
func (s *Service) Consume(stream consumeStream) error {
	first := make(chan received, 1) // one place: the call may have ended
	go func() {
		req, err := stream.Recv()
		first <- received{req, err}
	}()
	var open received
	select {
	case open = <-first:
	case <-s.draining:
		return apierror.Draining()
	}
	if s.isDraining() {
		return apierror.Draining()
	}
	if open.err != nil {
		return ended(open.err)
	}
	c, credits, err := s.consumer(stream, open.req.GetOpen())
	if err != nil {
		return err
	}
	conn, err := s.toLeader(stream.Context(), c.runner)
	if err != nil {
		return err
	}
	if conn != nil {
		return s.proxy(stream, conn, c.runner, open.req)
	}
	if err := c.enter(credits); err != nil {
		return err
	}
	defer c.leave()
	go c.receive()
	return c.send()
}

type received struct {
	req *sluicev1.ConsumeRequest
	err error
}

// ended is the error of a stream of which Recv returned err: none when the
// member has said all.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// consumer returns the consumer that an open frame describes.
func (s *Service) consumer(stream consumeStream, open *sluicev1.ConsumeOpen) (*consumer, schedule.Credits, error) {
	none := schedule.Credits{}
	if open == nil {
		return nil, none, apierror.InvalidField("open", "must come first")
	}
	if err := checkMember(open.GetMember(), "open.member"); err != nil {
		return nil, none, err
	}
	heartbeat := defaultHeartbeat
	if d := open.GetHeartbeatInterval(); d != nil {
		heartbeat = d.AsDuration()
		if d.CheckValid() != nil || heartbeat < minHeartbeat || heartbeat > maxHeartbeat {
			return nil, none, apierror.InvalidField("open.heartbeat_interval", "must be from %v to %v", minHeartbeat, maxHeartbeat)
		}
	}
	credits, err := creditsOf(open.GetCredits(), "open.credits.events")
	if err != nil {
		return nil, none, err
	}
	r, err := s.group(stream.Context(), open.GetConsumerGroupId())
	if err != nil {
		return nil, none, err
	}
	return &consumer{
		runner: r, stream: stream, session: newSession(open.GetMember()),
		raw: open.GetIncludeRaw(), heartbeat: heartbeat,
		unanswered: make(chan struct{}, maxUnanswered),
	}, credits, nil
}

// creditsOf checks credits. nil is none.
func creditsOf(in *sluicev1.Credits, field string) (schedule.Credits, error) {
	if in.GetEvents() > maxCredits {
		return schedule.Credits{}, apierror.InvalidField(field, "must not be more than %d", maxCredits)
	}
	out := schedule.Credits{Events: int(in.GetEvents()), Bytes: defaultBytes}
	if n := in.GetBytes(); n > 0 {
		out.Bytes = int(min(n, 1<<40))
	}
	if out.Events == 0 {
		out.Bytes = 0
	}
	return out, nil
}

// enter makes the stream a member of the group.
func (c *consumer) enter(credits schedule.Credits) error {
	opened := &sluicev1.ConsumeOpened{HeartbeatInterval: durationpb.New(c.heartbeat)}
	return c.call(c.stream.Context(), func(g *core) error {
		if err := g.open(c.session, missedHeartbeats*c.heartbeat, credits); err != nil {
			return err
		}
		opened.Held = g.held(c.session.member)
		c.session.push(frame{opened: opened})
		return nil
	})
}

// leave is the opposite of enter. It need not be waited for.
func (c *consumer) leave() {
	_ = c.post(context.WithoutCancel(c.stream.Context()), input{do: func(g *core) error {
		g.leave(c.session)
		return nil
	}})
}

// receive handles what the member says until it has said all or something is
// wrong, and ends the session then.
func (c *consumer) receive() {
	for {
		req, err := c.stream.Recv()
		if err == nil {
			err = c.handle(req)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			// Behind the answers to what it has settled.
			err = c.post(c.stream.Context(), input{
				do:    func(*core) error { return nil },
				after: func(err error) { c.session.end(err) },
			})
			if err == nil {
				return
			}
		}
		c.session.end(err)
		return
	}
}

// handle does what a frame says.
func (c *consumer) handle(req *sluicev1.ConsumeRequest) error {
	ctx := c.stream.Context()
	switch f := req.GetFrame().(type) {
	case *sluicev1.ConsumeRequest_Heartbeat:
		return c.post(ctx, input{do: func(g *core) error {
			g.heard(c.session)
			return nil
		}})

	case *sluicev1.ConsumeRequest_Credits:
		credits, err := creditsOf(f.Credits, "credits.events")
		if err != nil {
			return err
		}
		return c.post(ctx, input{do: func(g *core) error {
			if g.heard(c.session) {
				g.setCredits(c.session, credits)
			}
			return nil
		}})

	case *sluicev1.ConsumeRequest_Settle:
		batch, err := c.settlements(f.Settle.GetItems())
		if err != nil || len(batch) == 0 {
			return err
		}
		select {
		case c.unanswered <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		var results []*sluicev1.SettlementResult
		return c.post(ctx, input{
			do: func(g *core) error {
				g.heard(c.session)
				results = g.settle(batch)
				return nil
			},
			after: func(err error) {
				if err != nil {
					results = unknownOutcomes(batch)
				}
				c.session.push(frame{settled: results})
			},
		})

	case *sluicev1.ConsumeRequest_Open:
		return apierror.InvalidField("open", "must come first, and only then")
	}
	return apierror.InvalidField("frame", "must be set")
}

// send tells the member what there is to tell until the session ends.
func (c *consumer) send() error {
	ctx := c.stream.Context()
	beat := time.NewTimer(c.heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-c.session.ready:
			frames, over, err := c.session.take()
			if sendErr := c.sendAll(frames); sendErr != nil {
				return sendErr
			}
			if over && err != nil && c.service.isDraining() { // the group may have been the first to know
				return c.stream.Send(goingAway())
			}
			if over {
				return err
			}
		case <-beat.C:
			if err := c.stream.Send(&sluicev1.ConsumeResponse{
				Frame: &sluicev1.ConsumeResponse_Heartbeat{Heartbeat: &sluicev1.ConsumeHeartbeat{}},
			}); err != nil {
				return err
			}
		case <-c.service.draining:
			return c.stream.Send(goingAway())
		case <-c.stopped:
			return c.ended()
		case <-ctx.Done():
			return ctx.Err()
		}
		beat.Reset(c.heartbeat)
	}
}

// goingAway is the last frame of a stream when the server drains.
func goingAway() *sluicev1.ConsumeResponse {
	return &sluicev1.ConsumeResponse{
		Frame: &sluicev1.ConsumeResponse_GoingAway{GoingAway: &sluicev1.GoingAway{Reason: "DRAINING"}},
	}
}

// sendAll sends frames, those of one kind that follow each other together.
func (c *consumer) sendAll(frames []frame) error {
	var deliveries []schedule.Delivery
	var settled []*sluicev1.SettlementResult
	var revoked []string
	flush := func() error {
		if len(settled) > 0 {
			if err := c.stream.Send(&sluicev1.ConsumeResponse{
				Frame: &sluicev1.ConsumeResponse_Settled{Settled: &sluicev1.SettlementResultBatch{Items: settled}},
			}); err != nil {
				return err
			}
		}
		if len(revoked) > 0 {
			if err := c.stream.Send(&sluicev1.ConsumeResponse{
				Frame: &sluicev1.ConsumeResponse_Revoked{Revoked: &sluicev1.RevocationBatch{Leases: revoked}},
			}); err != nil {
				return err
			}
		}
		err := c.sendDeliveries(deliveries)
		deliveries, settled, revoked = nil, nil, nil
		return err
	}
	for i, f := range frames {
		if i > 0 && f.kind() < frames[i-1].kind() || len(deliveries) == maxFrameDeliveries || len(settled) >= maxItems {
			if err := flush(); err != nil {
				return c.giveBackFrames(frames[i:], err)
			}
		}
		switch {
		case f.opened != nil:
			if err := c.stream.Send(&sluicev1.ConsumeResponse{Frame: &sluicev1.ConsumeResponse_Opened{Opened: f.opened}}); err != nil {
				return c.giveBackFrames(frames[i:], err)
			}
		case f.settled != nil:
			settled = append(settled, f.settled...)
			<-c.unanswered
		case f.delivery != nil:
			deliveries = append(deliveries, *f.delivery)
		default:
			revoked = append(revoked, f.revoked)
		}
	}
	return flush()
}

// kind orders the frames that go into one round: outcomes, leases taken back,
// deliveries.
func (f frame) kind() int {
	switch {
	case f.opened != nil:
		return 0
	case f.settled != nil:
		return 1
	case f.delivery != nil:
		return 3
	}
	return 2
}

// giveBackFrames gives the deliveries back that were not sent, and returns err.
func (c *consumer) giveBackFrames(frames []frame, err error) error {
	var all []schedule.Delivery
	for _, f := range frames {
		if f.delivery != nil {
			all = append(all, *f.delivery)
		}
	}
	c.release(c.stream.Context(), all)
	return err
}

// sendDeliveries sends deliveries in as few frames as their size allows.
func (c *consumer) sendDeliveries(all []schedule.Delivery) error {
	if len(all) == 0 {
		return nil
	}
	full, err := c.deliveries(c.stream.Context(), all, c.raw)
	if err != nil {
		c.release(c.stream.Context(), all)
		return err
	}
	for len(full) > 0 {
		n, size := 0, 0
		for n < len(full) && (n == 0 || size < maxFrameBytes) {
			for _, e := range full[n].GetEvents() {
				size += proto.Size(e)
			}
			n++
		}
		if err := c.stream.Send(&sluicev1.ConsumeResponse{
			Frame: &sluicev1.ConsumeResponse_Deliveries{Deliveries: &sluicev1.DeliveryBatch{Deliveries: full[:n]}},
		}); err != nil {
			return err
		}
		full = full[n:]
	}
	return nil
}
