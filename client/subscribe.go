package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const (
	// openTimeout bounds the wait for the first frame, which the server sends
	// at once.
	openTimeout = 10 * time.Second

	// defaultHeartbeat is the server's, for one that does not say.
	defaultHeartbeat = 15 * time.Second
)

var (
	// errBreak reports that the loop over a subscription's events was left.
	errBreak = errors.New("the loop ended")

	// errSilent reports that the watchdog found the server silent.
	errSilent = errors.New("the server gave no sign of life")
)

// SubscribeOptions say what a subscription reads. The zero value reads every
// new event.
type SubscribeOptions struct {
	// Start is where to begin; nil is Latest. Where there is a cursor stored
	// from before, it is Cursor of that.
	Start *sluicev1.Position

	// Stop is where to end; nil is never. Latest is the end of the log when
	// the first connection is made.
	Stop *sluicev1.Position

	// Filter selects events; nil selects all.
	Filter *sluicev1.EventFilter

	// IncludeRaw sets Event.raw.
	IncludeRaw bool

	// MaxEventsPerSecond bounds the rate; 0 is without bound.
	MaxEventsPerSecond uint32

	// HeartbeatInterval is the longest time without a sign of life from the
	// server, from 1 s to 1 h; 0 is the server's default, 15 s. After twice
	// that without a whole frame the connection counts as lost, so a slow line
	// needs enough for the largest event.
	HeartbeatInterval time.Duration

	// Name is what the server's log calls this reader; at most 128 bytes.
	Name string

	// OnGap is called when retention removed events before they could be read, or
	// stored ones are damaged: the gap's reason says which. The subscription then
	// goes on behind the gap. When it is nil, the subscription ends instead, with
	// CURSOR_TOO_OLD or EVENT_DAMAGED.
	OnGap func(*sluicev1.Gap)

	// OnConnect is called each time the server has accepted the subscription,
	// before its events. May be nil.
	OnConnect func(*sluicev1.Opened)

	// OnDisconnect is called each time a connection was lost, or could not be
	// made, with the reason and the wait before the next try. May be nil. There
	// is no limit to the tries: to set one, cancel the context from here.
	OnDisconnect func(err error, wait time.Duration)
}

// A Subscription reads the log from a position on, and keeps its place.
//
// Delivery is at least once: an event counts as handled when the body of the
// loop over Events comes back for the next one, and after a lost connection
// reading goes on behind the last event handled. There is nothing to
// acknowledge, and the server remembers nothing: a program that must go on
// where it was after its own restart stores the cursor of what it has handled
// (Event.cursor, or Cursor), best together with the effects.
//
// The callbacks of SubscribeOptions are called from the goroutine of the loop,
// between events.
type Subscription struct {
	client *Client
	opts   SubscribeOptions
	cursor atomic.Value // string; what Cursor returns
}

// Subscribe returns a subscription. It connects when Events is ranged over. What
// opts points to must not be changed while that goes on.
func (c *Client) Subscribe(opts SubscribeOptions) *Subscription {
	s := &Subscription{client: c, opts: opts}
	s.cursor.Store(opts.Start.GetCursor())
	return s
}

// Cursor returns where to resume: behind the last event handled, and behind
// what the server has since passed over because it does not match the filter.
// It is "" until the server has accepted the subscription, unless that starts
// at a cursor. It may be called at any time, from any goroutine.
func (s *Subscription) Cursor() string {
	cursor, _ := s.cursor.Load().(string)
	return cursor
}

// Events yields the events in order of sequence, waiting for new ones, and
// connects again whenever the connection is lost or silent. The loop ends
// without an error when Stop is reached.
//
// An error is the last thing yielded: the cause of ctx, once that is done, or
// what the server said of a request that it can never serve, for example
// INVALID_ARGUMENT or OUT_OF_RANGE; see Reason. Everything else is retried.
//
// An event at which the loop is left (break, return, panic) does not count as
// handled. Ranging again goes on from Cursor, so that event comes again. Only
// one loop at a time may run. A loop body may take its time: the log waits.
func (s *Subscription) Events(ctx context.Context) iter.Seq2[*sluicev1.Event, error] {
	return func(yield func(*sluicev1.Event, error) bool) {
		for failures := 1; ; failures++ {
			progress, err := s.read(ctx, yield)
			switch {
			case err == nil, errors.Is(err, errBreak):
				return
			case ctx.Err() != nil:
				yield(nil, context.Cause(ctx))
				return
			case !retryable(err):
				yield(nil, err)
				return
			case progress:
				failures = 1
			}
			pause := wait(failures, err)
			if s.opts.OnDisconnect != nil {
				s.opts.OnDisconnect(err, pause)
			}
			sleep(ctx, pause)
		}
	}
}

// read opens a stream and yields its events until it ends: nil at the stop,
// errBreak when yield returns false. progress says whether the stream led
// anywhere.
func (s *Subscription) read(ctx context.Context, yield func(*sluicev1.Event, error) bool) (progress bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := openTimeout
	// The watchdog runs while a frame is awaited, not while the loop's body has
	// the events of one.
	watchdog := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer watchdog.Stop()

	conn, hangUp, err := s.client.fresh()
	if err != nil {
		return false, err
	}
	defer hangUp()
	// Waiting is for Events, which says so; a call that waits says nothing.
	stream, err := sluicev1.NewEventServiceClient(conn).Subscribe(ctx, s.request(), grpc.WaitForReady(false))
	if err != nil {
		return false, orCause(ctx, err)
	}
	for {
		watchdog.Reset(silence)
		res, err := stream.Recv()
		watchdog.Stop()
		switch {
		case errors.Is(err, io.EOF) && s.opts.Stop != nil:
			return progress, nil
		case errors.Is(err, io.EOF):
			return progress, errors.New("the server ended the stream")
		case err != nil:
			return progress, orCause(ctx, err)
		}
		switch frame := res.GetFrame().(type) {
		case *sluicev1.SubscribeResponse_Opened:
			silence = 2 * s.opened(frame.Opened)
		case *sluicev1.SubscribeResponse_Events:
			progress = true
			for _, e := range frame.Events.GetEvents() {
				if !yield(e, nil) {
					return progress, errBreak
				}
				s.advance(e.GetCursor())
			}
		case *sluicev1.SubscribeResponse_Checkpoint:
			progress = true
		case *sluicev1.SubscribeResponse_Gap:
			progress = true
			if s.opts.OnGap != nil {
				s.opts.OnGap(frame.Gap)
			}
		case *sluicev1.SubscribeResponse_GoingAway:
			s.advance(res.GetCursor())
			return progress, fmt.Errorf("the server is going away: %s", frame.GoingAway.GetReason())
		}
		s.advance(res.GetCursor()) // all events of the frame are handled
	}
}

// opened takes note of what the server granted, and returns its heartbeat
// interval.
func (s *Subscription) opened(o *sluicev1.Opened) time.Duration {
	// The end of the log moves; where this subscription ends must not move with
	// it from one connection to the next.
	if s.opts.Stop.GetAnchor() == sluicev1.Anchor_ANCHOR_LATEST && o.GetLastSequence() > 0 {
		s.opts.Stop = Sequence(o.GetLastSequence())
	}
	if s.opts.OnConnect != nil {
		s.opts.OnConnect(o)
	}
	if granted := o.GetHeartbeatInterval().AsDuration(); granted > 0 {
		return granted
	}
	return defaultHeartbeat
}

// advance moves the resume position. A start in the future stays until then: a
// cursor would resume before it.
func (s *Subscription) advance(cursor string) {
	begin := s.opts.Start.GetReceiveTime()
	if cursor == "" || begin != nil && time.Now().Before(begin.AsTime()) {
		return
	}
	s.cursor.Store(cursor)
}

// request returns the request that goes on from the resume position.
func (s *Subscription) request() *sluicev1.SubscribeRequest {
	req := &sluicev1.SubscribeRequest{
		Start:              s.opts.Start,
		Stop:               s.opts.Stop,
		Filter:             s.opts.Filter,
		MaxEventsPerSecond: s.opts.MaxEventsPerSecond,
		IncludeRaw:         s.opts.IncludeRaw,
		Subscriber:         s.opts.Name,
	}
	if cursor := s.Cursor(); cursor != "" {
		req.Start = Cursor(cursor)
	}
	if s.opts.OnGap != nil {
		req.OnGap = sluicev1.OnGap_ON_GAP_SKIP
	}
	if s.opts.HeartbeatInterval > 0 {
		req.HeartbeatInterval = durationpb.New(s.opts.HeartbeatInterval)
	}
	return req
}

// orCause returns why ctx was cancelled, where it was, and else err.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
