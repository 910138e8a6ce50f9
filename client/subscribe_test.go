package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const heartbeat = 15 * time.Second

var errLost = status.Error(codes.Unavailable, "the connection is lost")

// collect ranges over s until n events came or it ends, and returns their
// sequences and the error.
func collect(ctx context.Context, s *client.Subscription, n int) (got []uint64, err error) {
	for e, err := range s.Events(ctx) {
		if err != nil {
			return got, err
		}
		if got = append(got, e.GetSequence()); len(got) == n {
			break
		}
	}
	return got, nil
}

// starts returns the start of each request.
func starts(requests []*sluicev1.SubscribeRequest) []*sluicev1.Position {
	positions := make([]*sluicev1.Position, len(requests))
	for i, r := range requests {
		positions[i] = r.GetStart()
	}
	return positions
}

func TestResumesFromTheLastHandledEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, script := play(t,
			send(errLost, opened("o", 3)),
			send(errLost, opened("o", 3), events("b", event(1, "a"), event(2, "b"))),
			send(nil, opened("b", 3), checkpoint("c"), goingAway("d")),
			send(errors.New("not a status"), opened("d", 3), events("h", event(5, "e"))),
			send(nil, opened("h", 3)), // ends without a word
			hang(opened("h", 3), events("j", event(10, "j"))),
		)
		sub := c.Subscribe(client.SubscribeOptions{Start: client.Latest()})
		got, err := collect(t.Context(), sub, 4)
		if err != nil || !slices.Equal(got, []uint64{1, 2, 5, 10}) {
			t.Errorf("events = %v, %v, want 1 2 5 10", got, err)
		}
		want := []*sluicev1.Position{
			client.Latest(), client.Cursor("o"), client.Cursor("b"), client.Cursor("d"), client.Cursor("h"), client.Cursor("h"),
		}
		if diff := cmp.Diff(want, starts(script.asked()), protocmp.Transform()); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
		// The loop was left at event 10, so that one is not handled.
		if got := sub.Cursor(); got != "h" {
			t.Errorf("Cursor() = %q, want %q", got, "h")
		}
	})
}

func TestAnEventTheLoopIsLeftAtComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, script := play(t,
			hang(opened("o", 0), events("b", event(1, "a"), event(2, "b"))),
			hang(opened("a", 0), events("b", event(2, "b"), event(3, "c"))),
		)
		sub := c.Subscribe(client.SubscribeOptions{})
		first, _ := collect(t.Context(), sub, 2)
		second, _ := collect(t.Context(), sub, 2)
		if !slices.Equal(first, []uint64{1, 2}) || !slices.Equal(second, []uint64{2, 3}) {
			t.Errorf("events = %v and %v, want 1 2 and 2 3", first, second)
		}
		want := []*sluicev1.Position{nil, client.Cursor("a")}
		if diff := cmp.Diff(want, starts(script.asked()), protocmp.Transform()); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
	})
}

func TestCursorFollowsHandlingNotReceiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := play(t, hang(opened("o", 0), events("b", event(1, "a"), event(2, "b")), checkpoint("c"), checkpoint(""), events("d", event(3, "d"))))
		sub := c.Subscribe(client.SubscribeOptions{Start: client.Cursor("stored")})
		if got := sub.Cursor(); got != "stored" {
			t.Errorf("Cursor() before = %q, want that of Start", got)
		}
		want := map[uint64]string{1: "o", 2: "a", 3: "c"}
		for e, err := range sub.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if got := sub.Cursor(); got != want[e.GetSequence()] {
				t.Errorf("Cursor() in the loop at %d = %q, want %q", e.GetSequence(), got, want[e.GetSequence()])
			}
			if e.GetSequence() == 3 {
				break
			}
		}
	})
}

// TestStartToCome: a cursor of before the start would bring what stands between
// the two.
func TestStartToCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := client.ReceiveTime(time.Now().Add(5 * time.Second))
		c, script := play(t,
			send(errLost, opened("o", 3), checkpoint("p")),
			func(st stream) error {
				<-time.After(6 * time.Second)
				return send(errLost, opened("o", 3), events("e", event(5, "e")))(st)
			},
			hang(opened("e", 3), events("f", event(6, "f"))),
		)
		got, err := collect(t.Context(), c.Subscribe(client.SubscribeOptions{Start: start}), 2)
		if err != nil || !slices.Equal(got, []uint64{5, 6}) {
			t.Errorf("events = %v, %v, want 5 6", got, err)
		}
		want := []*sluicev1.Position{start, start, client.Cursor("e")}
		if diff := cmp.Diff(want, starts(script.asked()), protocmp.Transform()); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
	})
}

func TestWatchdog(t *testing.T) {
	tests := map[string]struct {
		step func(stream) error
		want time.Duration // until the client gives the connection up
	}{
		"nothing at all":    {step: hang(), want: 10 * time.Second},
		"after opened":      {step: hang(opened("o", 0)), want: 2 * heartbeat},
		"after a frame":     {step: hang(opened("o", 0), checkpoint("p")), want: 2 * heartbeat},
		"without heartbeat": {step: hang(&sluicev1.SubscribeResponse{Frame: &sluicev1.SubscribeResponse_Opened{}}), want: 30 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := play(t, tt.step)
				begin := time.Now()
				ctx, cancel := context.WithCancelCause(t.Context())
				sub := c.Subscribe(client.SubscribeOptions{OnDisconnect: func(err error, _ time.Duration) { cancel(err) }})
				_, err := collect(ctx, sub, 1)
				if took := time.Since(begin); took != tt.want {
					t.Errorf("gave up after %v (%v), want %v", took, err, tt.want)
				}
			})
		})
	}
}

func TestWatchdogLeavesALivelyServerAndASlowLoopAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		beat := func(st stream) error {
			if err := send(nil, opened("o", 0), events("a", event(1, "a")))(st); err != nil {
				return err
			}
			for range 20 {
				<-time.After(2*heartbeat - time.Millisecond)
				if err := st.Send(checkpoint("c")); err != nil {
					return err
				}
			}
			return send(nil, events("b", event(2, "b")))(st)
		}
		c, script := play(t, beat)
		sub := c.Subscribe(client.SubscribeOptions{})
		n := 0
		for _, err := range sub.Events(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 2 {
				break
			}
			<-time.After(10 * heartbeat) // the work of a slow loop
		}
		if got := len(script.asked()); got != 1 {
			t.Errorf("%d connections, want 1", got)
		}
	})
}

func TestErrorsThatEndTheLoop(t *testing.T) {
	for code := codes.OK + 1; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, script := play(t,
					send(status.Error(code, "no"), opened("o", 0)),
					hang(opened("o", 0), events("a", event(1, "a"))),
				)
				got, err := collect(t.Context(), c.Subscribe(client.SubscribeOptions{}), 1)
				switch code {
				case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.NotFound,
					codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.DataLoss:
					if status.Code(err) != code || len(script.asked()) != 1 {
						t.Errorf("err = %v after %d connections, want %v after 1", err, len(script.asked()), code)
					}
				default:
					if err != nil || len(got) != 1 {
						t.Errorf("events = %v, %v, want one from the second connection", got, err)
					}
				}
			})
		})
	}
}

func TestContextEndsTheLoop(t *testing.T) {
	reason := errors.New("enough")
	for name, step := range map[string]func(stream) error{
		"connected": hang(opened("o", 0)),
		"waiting":   send(errLost),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := play(t, step)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(5*time.Second, func() { cancel(reason) })
				begin := time.Now()
				_, err := collect(ctx, c.Subscribe(client.SubscribeOptions{}), 1)
				if !errors.Is(err, reason) || time.Since(begin) != 5*time.Second {
					t.Errorf("err = %v after %v, want %v after 5s", err, time.Since(begin), reason)
				}
			})
		})
	}
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, script := play(t,
			send(errLost, opened("o", 2), events("a", event(1, "a"))),
			send(nil, opened("a", 9), events("b", event(2, "b"))),
		)
		got, err := collect(t.Context(), c.Subscribe(client.SubscribeOptions{Start: client.Earliest(), Stop: client.Latest()}), 10)
		if err != nil || !slices.Equal(got, []uint64{1, 2}) {
			t.Errorf("events = %v, %v, want 1 2", got, err)
		}
		var stops []*sluicev1.Position
		for _, r := range script.asked() {
			stops = append(stops, r.GetStop())
		}
		// The end of the log is the one that the first connection found.
		if diff := cmp.Diff([]*sluicev1.Position{client.Latest(), client.Sequence(2)}, stops, protocmp.Transform()); diff != "" {
			t.Errorf("stops (-want +got):\n%s", diff)
		}
	})
}

func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, script := play(t, hang(opened("o", 9), events("a", event(1, "a")), gap("f", 2, 6), events("g", event(7, "g"))))
		var seen []uint64
		sub := c.Subscribe(client.SubscribeOptions{OnGap: func(g *sluicev1.Gap) { seen = append(seen, g.GetFirstSequence(), g.GetLastSequence()) }})
		got, err := collect(t.Context(), sub, 2)
		if err != nil || !slices.Equal(got, []uint64{1, 7}) || !slices.Equal(seen, []uint64{2, 6}) {
			t.Errorf("events = %v, %v, gap %v, want 1 7, gap 2 6", got, err, seen)
		}
		if sub.Cursor() != "f" || script.asked()[0].GetOnGap() != sluicev1.OnGap_ON_GAP_SKIP {
			t.Errorf("Cursor() = %q, request %v, want the gap passed and asked to be skipped", sub.Cursor(), script.asked()[0])
		}
	})
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, script := play(t, send(status.Error(codes.InvalidArgument, "no")))
		opts := client.SubscribeOptions{
			Start:              client.Sequence(7),
			Stop:               client.ReceiveTime(time.Unix(9, 0)),
			Filter:             &sluicev1.EventFilter{Kinds: []string{"message"}},
			IncludeRaw:         true,
			MaxEventsPerSecond: 3,
			HeartbeatInterval:  time.Second,
			Name:               "n",
		}
		_, _ = collect(t.Context(), c.Subscribe(opts), 1)
		want := &sluicev1.SubscribeRequest{
			Start:              client.Sequence(7),
			Stop:               client.ReceiveTime(time.Unix(9, 0)),
			Filter:             opts.Filter,
			IncludeRaw:         true,
			MaxEventsPerSecond: 3,
			HeartbeatInterval:  durationpb.New(time.Second),
			Subscriber:         "n",
		}
		if diff := cmp.Diff([]*sluicev1.SubscribeRequest{want}, script.asked(), protocmp.Transform()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// TestWaits looks at the waits from one failure to the next: random, up to a
// bound that doubles, begun anew after progress, and on top of what the server
// asks for. Of fifty waits, some are in either half of the bound.
func TestWaits(t *testing.T) {
	const ms = time.Millisecond
	steps := []struct {
		step  func(stream) error
		asked time.Duration // the least wait
		bound time.Duration // of the random part
	}{
		{step: send(errLost), bound: 200 * ms},
		{step: send(errLost), bound: 400 * ms},
		{step: send(errLost, opened("o", 0)), bound: 800 * ms}, // accepted and dropped is no progress
		{step: send(errLost), bound: 1600 * ms},
		{step: send(errLost, opened("o", 0), checkpoint("a")), bound: 200 * ms},
		{step: send(nil, opened("a", 0), goingAway("a")), bound: 400 * ms},
		{step: send(busy(t, 3*time.Second)), asked: 3 * time.Second, bound: 800 * ms},
		{step: send(busy(t, 1<<62)), asked: time.Minute, bound: 1600 * ms},
		{step: send(busy(t, -time.Second)), bound: 3200 * ms},
	}
	for _, bound := range []time.Duration{6400 * ms, 10_000 * ms, 10_000 * ms} {
		steps = append(steps, steps[0])
		steps[len(steps)-1].bound = bound
	}
	for range 10 { // beyond what can be doubled
		steps = append(steps, steps[len(steps)-1])
	}
	script := make([]func(stream) error, len(steps))
	for i, s := range steps {
		script[i] = s.step
	}
	shortest, longest := make([]time.Duration, len(steps)), make([]time.Duration, len(steps))
	for i := range shortest {
		shortest[i] = time.Hour
	}
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			c, _ := play(t, script...)
			ctx, cancel := context.WithCancel(t.Context())
			n := 0
			sub := c.Subscribe(client.SubscribeOptions{OnDisconnect: func(_ error, wait time.Duration) {
				if s := steps[n]; wait < s.asked || wait >= s.asked+s.bound {
					t.Errorf("wait %d = %v, want from %v to %v", n, wait, s.asked, s.asked+s.bound)
				}
				shortest[n], longest[n] = min(shortest[n], wait), max(longest[n], wait)
				if n++; n == len(steps) {
					cancel()
				}
			}})
			_, _ = collect(ctx, sub, 1)
		})
	}
	for i, s := range steps {
		if middle := s.asked + s.bound/2; shortest[i] > middle || longest[i] < middle {
			t.Errorf("wait %d is from %v to %v, want it spread from %v to %v", i, shortest[i], longest[i], s.asked, s.asked+s.bound)
		}
	}
}

// busy is the error of a server that asks for a wait.
func busy(t *testing.T, wait time.Duration) error {
	t.Helper()
	s, err := status.New(codes.Unavailable, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}
