package client_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/servertest"
)

// checkLeaks fails the test for a goroutine that it leaves behind. It must be
// called first, so that it looks last.
func checkLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func dial(t *testing.T, addr string) *client.Client {
	t.Helper()
	c, err := client.Dial(addr, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return c
}

// body is a callback with the n-th message of a conversation.
func body(n int) string {
	return fmt.Sprintf(`{"data":{"messageId":"m-%d","chatId":"c-1","botId":"b-1","contactId":"w-1","type":7,`+
		`"timestamp":1763365331110,"payload":{"text":"%d"}}}`, n, n)
}

// post sends the n-th message, again while the gateway cannot take it.
func post(ctx context.Context, c *client.Client, n int) error {
	for {
		_, err := c.Post(ctx, "/message", []byte(body(n)))
		if status.Code(err) != codes.Unavailable {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// TestEveryEventOnceInOrder reads through a line that is cut, goes silent and
// loses its server again and again, while posts go on.
func TestEveryEventOnceInOrder(t *testing.T) {
	checkLeaks(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv := servertest.Start(t)
	line := startProxy(t, srv.GRPCAddr())

	const messages = 300
	faults := map[uint64]func(){}
	for n := uint64(15); n < messages; n += 15 {
		faults[n] = line.Cut
	}
	faults[75], faults[225] = line.Silence, line.Silence
	faults[150] = srv.Restart

	// The posts stay this much ahead of the reading, so that every fault meets a
	// stream in use.
	ahead := make(chan struct{}, 10)
	poster := dial(t, srv.GRPCAddr())
	var posting sync.WaitGroup
	defer posting.Wait()
	defer cancel()
	posting.Go(func() {
		for n := 1; n <= messages; n++ {
			select {
			case ahead <- struct{}{}:
			case <-ctx.Done():
				return
			}
			if err := post(ctx, poster, n); err != nil {
				t.Errorf("Post(%d) = %v", n, err)
				cancel()
				return
			}
		}
	})

	connections, lost := 0, 0
	sub := dial(t, line.Addr).Subscribe(client.SubscribeOptions{
		Start:             client.Earliest(),
		HeartbeatInterval: time.Second,
		OnConnect:         func(*sluicev1.Opened) { connections++ },
		OnDisconnect:      func(error, time.Duration) { lost++ },
	})
	want := uint64(1)
	for e, err := range sub.Events(ctx) {
		if err != nil {
			t.Fatalf("after event %d: %v", want-1, err)
		}
		if text := e.GetMessage().GetText().GetText(); e.GetSequence() != want || text != fmt.Sprint(want) {
			t.Fatalf("event %d is %q, want event %d", e.GetSequence(), text, want)
		}
		if e.GetCursor() == sub.Cursor() {
			t.Fatalf("event %d counts as handled before it is", want)
		}
		if fault := faults[want]; fault != nil {
			fault()
		}
		if want == messages {
			break
		}
		want++
		<-ahead
	}
	posting.Wait() // the last event may be read before its post is answered
	if connections <= len(faults) || lost < len(faults) {
		t.Errorf("%d connections, %d lost, want every one of %d faults to be felt", connections, lost, len(faults))
	}
}

// TestSilentLine has the line go silent while nothing happens, so that nothing
// but the watchdog can notice.
func TestSilentLine(t *testing.T) {
	checkLeaks(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv := servertest.Start(t)
	line := startProxy(t, srv.GRPCAddr())
	poster := dial(t, srv.GRPCAddr())

	connected, lost := 0, []error(nil)
	sub := dial(t, line.Addr).Subscribe(client.SubscribeOptions{
		HeartbeatInterval: time.Second,
		OnConnect: func(*sluicev1.Opened) {
			// The log was empty, and the start its end: what is posted now comes,
			// or the first cursor was lost with the line.
			if connected++; connected == 1 {
				line.Silence()
				if err := post(ctx, poster, 1); err != nil {
					t.Error(err)
				}
			}
		},
		OnDisconnect: func(err error, _ time.Duration) { lost = append(lost, err) },
	})
	got, err := collect(ctx, sub, 1)
	if err != nil || !slices.Equal(got, []uint64{1}) {
		t.Fatalf("events = %v, %v, want 1", got, err)
	}
	if connected != 2 || len(lost) != 1 {
		t.Errorf("%d connections, lost %v, want the watchdog to have ended one of two", connected, lost)
	}
}

func TestDrainIsNotAnError(t *testing.T) {
	checkLeaks(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv := servertest.Start(t)
	c := dial(t, srv.GRPCAddr())
	if err := post(ctx, c, 1); err != nil {
		t.Fatal(err)
	}
	var lost []error
	var got []uint64
	sub := c.Subscribe(client.SubscribeOptions{
		Start:        client.Earliest(),
		OnDisconnect: func(err error, _ time.Duration) { lost = append(lost, err) },
	})
	for e, err := range sub.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.GetSequence()); len(got) == 2 {
			break
		}
		srv.Restart()
		if err := post(ctx, c, 2); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []uint64{1, 2}) || len(lost) != 1 {
		t.Errorf("events = %v, lost %v, want 1 2 with one reconnection", got, lost)
	}
}

func TestRefusals(t *testing.T) {
	srv := servertest.Start(t)
	c := dial(t, srv.GRPCAddr())
	tests := map[string]struct {
		opts client.SubscribeOptions
		want sluicev1.ErrorReason
	}{
		"filter": {
			opts: client.SubscribeOptions{Filter: &sluicev1.EventFilter{Expression: "event.nonsense"}},
			want: sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER,
		},
		"cursor": {
			opts: client.SubscribeOptions{Start: client.Cursor("nonsense")},
			want: sluicev1.ErrorReason_ERROR_REASON_INVALID_CURSOR,
		},
		"ahead": {
			opts: client.SubscribeOptions{Start: client.Sequence(1000)},
			want: sluicev1.ErrorReason_ERROR_REASON_CURSOR_AHEAD_OF_LOG,
		},
		"heartbeat": {
			opts: client.SubscribeOptions{HeartbeatInterval: time.Millisecond},
			want: sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.opts.OnDisconnect = func(err error, _ time.Duration) { t.Errorf("tries again after %v", err) }
			_, err := collect(t.Context(), c.Subscribe(tt.opts), 1)
			if reason, _ := client.Reason(err); reason != tt.want {
				t.Errorf("err = %v, reason %v, want %v", err, reason, tt.want)
			}
		})
	}
}

func TestNoGateway(t *testing.T) {
	checkLeaks(t)
	c, err := client.Dial("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, giveUp := context.WithCancelCause(t.Context())
	sub := c.Subscribe(client.SubscribeOptions{OnDisconnect: func(err error, _ time.Duration) { giveUp(err) }})
	_, err = collect(ctx, sub, 1)
	if status.Code(err) != codes.Unavailable {
		t.Errorf("err = %v, want what the caller gave up for", err)
	}
	if reason, facts := client.Reason(err); reason != 0 || facts != nil {
		t.Errorf("Reason(%v) = %v, %v, want none", err, reason, facts)
	}
}

func TestReading(t *testing.T) {
	srv := servertest.Start(t)
	c := client.New(srv.Conn())
	ctx := t.Context()
	for n := 1; n <= 5; n++ {
		res, err := c.Post(ctx, "", []byte(body(n)))
		if err != nil || !slices.Equal(res.GetSequences(), []uint64{uint64(n)}) || res.GetDuplicate() {
			t.Fatalf("Post(%d) = %v, %v", n, res, err)
		}
	}
	if res, err := c.Post(ctx, "/", []byte(body(3))); err != nil || !res.GetDuplicate() {
		t.Errorf("Post of 3 again = %v, %v, want a duplicate", res, err)
	}

	var listed []uint64
	for e, err := range c.ListEvents(ctx, &sluicev1.ListEventsRequest{PageSize: 2, NewestFirst: true}) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, e.GetSequence())
	}
	if !slices.Equal(listed, []uint64{5, 4, 3, 2, 1}) {
		t.Errorf("ListEvents = %v, want 5 to 1", listed)
	}
	for _, err := range c.ListEvents(ctx, &sluicev1.ListEventsRequest{PageToken: "nonsense"}) {
		if reason, _ := client.Reason(err); reason != sluicev1.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN {
			t.Errorf("ListEvents with a wrong token: %v", err)
		}
	}

	e, err := c.GetEvent(ctx, &sluicev1.GetEventRequest{Sequence: 4, IncludeRaw: true})
	if err != nil || string(e.GetRaw()) != body(4) {
		t.Errorf("GetEvent(4) = %v, %v", e, err)
	}
	_, err = c.GetEvent(ctx, &sluicev1.GetEventRequest{Sequence: 99})
	reason, facts := client.Reason(fmt.Errorf("wrapped: %w", err))
	if reason != sluicev1.ErrorReason_ERROR_REASON_EVENT_NOT_FOUND || facts["sequence"] != "99" {
		t.Errorf("GetEvent(99): reason %v, facts %v", reason, facts)
	}

	sub := c.Subscribe(client.SubscribeOptions{Start: client.Earliest(), Stop: client.Latest()})
	all, err := collect(ctx, sub, 99)
	if err != nil || !slices.Equal(all, []uint64{1, 2, 3, 4, 5}) {
		t.Errorf("events to the end = %v, %v, want 1 to 5", all, err)
	}
	if again, err := collect(ctx, sub, 99); err != nil || len(again) > 0 {
		t.Errorf("events behind the stop = %v, %v, want none", again, err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if _, err := c.GetEvent(ctx, &sluicev1.GetEventRequest{Sequence: 1}); err != nil {
		t.Errorf("after Close, the caller's connection is closed, too: %v", err)
	}
}
