package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const (
	// missedHeartbeats is how many of them make a side count as gone.
	missedHeartbeats = 3

	// defaultMemberHeartbeat is the server's, for one that does not say.
	defaultMemberHeartbeat = 5 * time.Second
)

// A session is one stream of a member.
type session struct {
	cancel    context.CancelCauseFunc
	frames    chan *sluicev1.ConsumeResponse // unbuffered: a frame is one step; closed at the end
	err       error                          // why it ended; not to be read before frames is closed
	tickers   []*time.Ticker
	open      bool // the server has accepted the member
	broken    bool // nothing more can be sent
	heartbeat time.Duration

	// These are written before the first frame is in frames.
	stream   grpc.BidiStreamingClient[sluicev1.ConsumeRequest, sluicev1.ConsumeResponse]
	settings *sluicev1.ConsumerGroup
}

// connect begins a session, which outlives ctx.
func (m *member) connect(ctx context.Context) *session {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &session{cancel: cancel, frames: make(chan *sluicev1.ConsumeResponse)}
	go func() {
		defer close(s.frames)
		s.err = orCause(ctx, s.receive(ctx, m.client, m.group, &m.opts))
	}()
	return s
}

// receive opens the stream and passes its frames on until it ends.
func (s *session) receive(ctx context.Context, c *Client, group string, opts *ConsumeOptions) error {
	silence := openTimeout
	watchdog := time.AfterFunc(silence, func() { s.cancel(errSilent) })
	defer watchdog.Stop()
	conn, hangUp, err := c.fresh()
	if err != nil {
		return err
	}
	defer hangUp()
	// Waiting is for Consume, which says so; a call that waits says nothing.
	atOnce := grpc.WaitForReady(false)
	res, err := sluicev1.NewConsumerGroupServiceClient(conn).GetConsumerGroup(ctx,
		&sluicev1.GetConsumerGroupRequest{ConsumerGroupId: group}, atOnce)
	if err != nil {
		return err
	}
	s.settings = res.GetConsumerGroup()
	if s.stream, err = sluicev1.NewConsumerServiceClient(conn).Consume(ctx, atOnce); err != nil {
		return err
	}
	open := &sluicev1.ConsumeOpen{ConsumerGroupId: group, Member: opts.Member, IncludeRaw: opts.IncludeRaw}
	if opts.HeartbeatInterval > 0 {
		open.HeartbeatInterval = durationpb.New(opts.HeartbeatInterval)
	}
	// Its only error is that of the stream, which Recv returns.
	_ = s.stream.Send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Open{Open: open}})
	for {
		res, err := s.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the server ended the stream")
		case err != nil:
			return err
		}
		if o := res.GetOpened(); o != nil {
			s.heartbeat = cmp.Or(o.GetHeartbeatInterval().AsDuration(), defaultMemberHeartbeat)
			silence = missedHeartbeats * s.heartbeat
		}
		watchdog.Reset(silence)
		select {
		case s.frames <- res:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// every returns the ticks of a ticker that ends with the session; nil when the
// interval is none.
func (s *session) every(interval time.Duration) <-chan time.Time {
	if interval <= 0 {
		return nil
	}
	t := time.NewTicker(interval)
	s.tickers = append(s.tickers, t)
	return t.C
}

// send sends a frame. When it cannot, the receiving side learns why.
func (s *session) send(req *sluicev1.ConsumeRequest) {
	if !s.broken {
		s.broken = s.stream.Send(req) != nil
	}
}

// settle sends verdicts.
func (s *session) settle(items []*sluicev1.Settlement) {
	for batch := range slices.Chunk(items, maxSettlements) {
		s.send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Settle{Settle: &sluicev1.SettlementBatch{Items: batch}}})
	}
}

// closeSend says that nothing more is sent.
func (s *session) closeSend() { _ = s.stream.CloseSend() } // it returns no error

// cut ends the session at once.
func (s *session) cut() { s.cancel(nil) }

// end ends the session, and waits until it has.
func (s *session) end() {
	s.cut()
	for _, t := range s.tickers {
		t.Stop()
	}
	for range s.frames {
	}
}
