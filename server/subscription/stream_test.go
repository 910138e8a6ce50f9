package subscription

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

func TestOpenedComesFirstAndAtOnce(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})

	o := g.subscribe(&sluicev1.SubscribeRequest{}).opened()
	if o.GetFirstSequence() != 0 || o.GetLastSequence() != 0 || o.GetHeartbeatInterval().AsDuration() != 15*time.Second {
		t.Errorf("opened on an empty log = %v", o)
	}

	g.postTexts(3)
	if err := g.log.Delete(g.ctx, 1); err != nil {
		t.Fatalf("delete: %v", err)
	}
	o = g.subscribe(&sluicev1.SubscribeRequest{HeartbeatInterval: durationpb.New(time.Hour)}).opened()
	if o.GetFirstSequence() != 2 || o.GetLastSequence() != 3 || o.GetHeartbeatInterval().AsDuration() != time.Hour {
		t.Errorf("opened = %v", o)
	}
}

// The promise of the log door: cut off at any time, a subscriber that comes
// back with its cursor sees every event once, in order, while posts go on.
func TestReconnectWithCursorSeesEveryEventOnceInOrder(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	const posts = 3000
	var posting sync.WaitGroup
	posting.Go(func() {
		for i := range posts {
			g.post(text(fmt.Sprint(i)))
		}
	})
	defer posting.Wait()

	var got []uint64
	start, connections := earliest(), 0
	for len(got) < posts {
		connections++
		s := g.subscribe(&sluicev1.SubscribeRequest{Start: start})
		for frames := 0; frames < 3+connections%5 && len(got) < posts; frames++ {
			got = append(got, sequences(s.next().GetEvents().GetEvents())...)
		}
		s.cancel() // with frames on the way, which are lost
		start = atCursor(s.cursor)
	}
	if !slices.Equal(got, upTo(1, posts)) {
		t.Errorf("%d connections saw %d events, not each of %d once in order", connections, len(got), posts)
	}
	if connections < 10 {
		t.Errorf("only %d connections: the test shows nothing", connections)
	}
}

// Every frame's cursor, and every event's, is a place to resume from: exactly
// what had not come by then comes.
func TestEveryCursorResumesExactly(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	for i := range 40 {
		e := text(fmt.Sprint(i))
		if i%3 != 0 {
			e.Source = "other"
		}
		g.post(e)
	}
	filter := &sluicev1.EventFilter{Sources: []string{"acme"}}
	read := func(start *sluicev1.Position) (cursors []string, events []*sluicev1.Event) {
		s := g.subscribe(&sluicev1.SubscribeRequest{Start: start, Stop: latest(), Filter: filter, MaxEventsPerSecond: 1000})
		for {
			frame, err := s.stream.Recv()
			if errors.Is(err, io.EOF) {
				return cursors, events
			}
			if err != nil {
				t.Fatalf("Recv: %v", err)
			}
			cursors = append(cursors, frame.GetCursor())
			for _, e := range frame.GetEvents().GetEvents() {
				cursors = append(cursors, e.GetCursor())
				events = append(events, e)
			}
		}
	}
	cursors, all := read(earliest())
	for _, c := range cursors {
		at, err := record.ParseCursor(c)
		if err != nil {
			t.Fatalf("ParseCursor(%q): %v", c, err)
		}
		var want []uint64
		for _, n := range sequences(all) {
			if n > at.Sequence {
				want = append(want, n)
			}
		}
		if _, got := read(atCursor(c)); !slices.Equal(sequences(got), append([]uint64{}, want...)) {
			t.Errorf("after the cursor of %d: %v, want %v", at.Sequence, sequences(got), want)
		}
	}
}

// Nothing that matches and stands at or before a cursor that was sent comes
// later on the stream, whatever else comes.
func TestNothingComesAfterItsCursor(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	var posting sync.WaitGroup
	posting.Go(func() { g.postTexts(500) })
	defer posting.Wait()
	s := g.subscribe(&sluicev1.SubscribeRequest{
		Start:  earliest(),
		Stop:   atSequence(500),
		Filter: &sluicev1.EventFilter{Expression: `int(event.message.text.text) % 3 == 0`},
	})
	behind, count := uint64(0), 0
	for {
		frame, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("Recv: %v", err)
		}
		for _, e := range frame.GetEvents().GetEvents() {
			if count++; e.GetSequence() <= behind {
				t.Fatalf("event %d came after the cursor of %d", e.GetSequence(), behind)
			}
		}
		c, _ := record.ParseCursor(frame.GetCursor())
		if behind > c.Sequence {
			t.Fatalf("cursor went back from %d to %d", behind, c.Sequence)
		}
		behind = c.Sequence
	}
	if count != 167 {
		t.Errorf("got %d events, want 167", count)
	}
}

func TestSkippedEventsMoveTheCursor(t *testing.T) {
	t.Parallel()
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(300)
	s := g.subscribe(&sluicev1.SubscribeRequest{
		Start: earliest(), Filter: &sluicev1.EventFilter{Kinds: []string{"other"}}, HeartbeatInterval: durationpb.New(time.Second),
	})
	s.opened()
	if got := s.caughtUp(); len(got) != 0 {
		t.Errorf("got %d events, want none", len(got))
	}
	if s.cursor != g.cursor(300) {
		t.Errorf("cursor = %s, want that of 300", s.cursor)
	}
	g.post(text("also skipped"))
	if c := s.next().GetCheckpoint(); c.GetSequence() != 301 || !c.GetCaughtUp() {
		t.Errorf("heartbeat = %v, want 301, caught up", c)
	}
}

func TestSilenceIsFilledWithHeartbeats(t *testing.T) {
	t.Parallel()
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(2)
	s := g.subscribe(&sluicev1.SubscribeRequest{HeartbeatInterval: durationpb.New(time.Second)})
	s.opened()
	s.caughtUp()
	began := time.Now()
	for range 2 {
		if c := s.next().GetCheckpoint(); c.GetSequence() != 2 || !c.GetCaughtUp() {
			t.Errorf("heartbeat = %v, want a checkpoint at 2, caught up", c)
		}
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("two heartbeats took %v, want about 2s", took)
	}
}

// A client learns once that it has the past; a busy present does not tell it
// again and again.
func TestCaughtUpIsToldOncePerReaching(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(10)
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest()})
	s.opened()
	if got := s.caughtUp(); len(got) != 10 {
		t.Errorf("caught up after %d events, want 10", len(got))
	}
	for i := range 50 {
		g.post(text(fmt.Sprint(i)))
		if frame := s.next(); len(frame.GetEvents().GetEvents()) != 1 {
			t.Fatalf("frame after post %d = %v, want its event", i, frame)
		}
	}
}

// An operator may remove the newest events; nobody waits for them.
func TestRemovedTailIsPassedOver(t *testing.T) {
	t.Parallel()
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(5)
	for _, n := range []uint64{2, 4, 5} {
		if err := g.log.Delete(g.ctx, n); err != nil {
			t.Fatalf("delete %d: %v", n, err)
		}
	}
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest()})
	s.opened()
	if got := s.caughtUp(); !slices.Equal(sequences(got), []uint64{1, 3}) {
		t.Errorf("got %v, want 1 and 3", sequences(got))
	}
	if s.cursor != g.cursor(5) {
		t.Errorf("cursor = %s, want that of 5", s.cursor)
	}
	s = g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: latest()})
	if got, err := s.rest(); err != nil || !slices.Equal(sequences(got), []uint64{1, 3}) {
		t.Errorf("up to the end: %v, %v, want 1 and 3", sequences(got), err)
	}
	for _, newest := range []bool{false, true} {
		list, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{NewestFirst: newest})
		if err != nil || len(list.GetEvents()) != 2 || list.GetNextPageToken() != "" {
			t.Errorf("ListEvents(newest_first: %v) = %v, %v, want 2 events", newest, list, err)
		}
	}
}

func TestDrainSaysGoodbyeWithACursor(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(3)
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest()})
	s.opened()
	s.events(3)
	s.caughtUp()
	if n := g.metric("sluice_subscription_streams"); n != 1 {
		t.Errorf("%v streams are open, want 1", n)
	}
	g.drain()
	frame := s.next()
	if frame.GetGoingAway().GetReason() != "DRAINING" || frame.GetCursor() != g.cursor(3) {
		t.Errorf("frame = %v, want going_away with the cursor of 3", frame)
	}
	if _, err := s.stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("stream ends with %v, want OK", err)
	}
	_, err := g.subscribe(&sluicev1.SubscribeRequest{}).stream.Recv()
	wantError(t, err, codes.Unavailable, sluicev1.ErrorReason_ERROR_REASON_DRAINING, nil)
	if n := g.metric("sluice_subscription_ended_total", "reason=draining"); n != 1 {
		t.Errorf("%v streams ended by draining, want 1", n)
	}
	if n := g.metric("sluice_subscription_streams"); n != 0 {
		t.Errorf("%v streams are open, want 0", n)
	}
	if n := g.metric("sluice_subscription_events_total"); n != 3 {
		t.Errorf("%v events were sent, want 3", n)
	}
}

// A stream that waits for its rate has not sent what it waits with.
func TestDrainOfAThrottledStreamLosesNothing(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(100)
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), MaxEventsPerSecond: 20})
	s.opened()
	got := s.events(1)
	g.drain()
	more, err := s.rest()
	if err != nil {
		t.Fatalf("stream ends with %v, want OK", err)
	}
	got = append(got, more...)
	if len(got) == 100 {
		t.Fatal("everything was sent: the test shows nothing")
	}
	if s.cursor != g.cursor(uint64(len(got))) {
		t.Errorf("cursor is not that of the last event sent, %d", len(got))
	}
}

func TestClosedLogEndsTheStream(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	s := g.subscribe(&sluicev1.SubscribeRequest{})
	s.opened()
	s.caughtUp()
	if err := g.engine.Close(g.ctx); err != nil {
		t.Fatalf("Close: %v", err)
	}
	_, err := s.rest()
	wantError(t, err, codes.Unavailable, sluicev1.ErrorReason_ERROR_REASON_DRAINING, nil)
	s = g.subscribe(&sluicev1.SubscribeRequest{Start: earliest()})
	s.opened()
	_, err = s.rest()
	wantError(t, err, codes.Unavailable, sluicev1.ErrorReason_ERROR_REASON_DRAINING, nil)
}

// A reader that stops reading is a position in the log, not a queue in memory.
func TestSlowReaderSlowsNobody(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	slow := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest()})
	slow.opened()
	const posts = 200
	for i := range posts { // 13 MiB, far more than the transport takes
		g.post(large(i))
	}
	fast := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest()})
	fast.opened()
	if got := fast.events(posts); !slices.Equal(sequences(got), upTo(1, posts)) {
		t.Errorf("the fast reader got %v", sequences(got))
	}
	if got := slow.events(posts); !slices.Equal(sequences(got), upTo(1, posts)) {
		t.Errorf("the slow reader got %v", sequences(got))
	}
}

func TestRateIsBounded(t *testing.T) {
	t.Parallel()
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(21)
	began := time.Now()
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), MaxEventsPerSecond: 20})
	s.opened()
	s.events(21)
	if took := time.Since(began); took < 950*time.Millisecond {
		t.Errorf("21 events at 20 a second took %v, want at least 1s", took)
	}
}

func TestRawIsOnRequestAndHiddenFromExpressions(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(1)
	for _, raw := range []bool{false, true} {
		s := g.subscribe(&sluicev1.SubscribeRequest{
			Start: earliest(), IncludeRaw: raw, Filter: &sluicev1.EventFilter{Expression: "size(event.raw) == 0"},
		})
		s.opened()
		if got := len(s.events(1)[0].GetRaw()) > 0; got != raw {
			t.Errorf("include_raw: %v gives raw: %v", raw, got)
		}
	}
}

func TestFailingExpressionsAreCounted(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.post(text("1"), text("not a number"), text("3"))
	s := g.subscribe(&sluicev1.SubscribeRequest{
		Start: earliest(), Filter: &sluicev1.EventFilter{Expression: "int(event.message.text.text) > 0"},
	})
	s.opened()
	if got := s.events(2); !slices.Equal(sequences(got), []uint64{1, 3}) {
		t.Errorf("got %v, want 1 and 3", sequences(got))
	}
	if n := g.metric("sluice_subscription_filter_errors_total"); n != 1 {
		t.Errorf("%v filter errors, want 1", n)
	}
}

func TestClientThatLeavesEndsItsStream(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	s := g.subscribe(&sluicev1.SubscribeRequest{})
	s.opened()
	s.cancel()
	if _, err := s.rest(); status.Code(err) != codes.Canceled {
		t.Errorf("Recv() = %v, want CANCELED", err)
	}
	g.await(func() bool { return g.metric("sluice_subscription_ended_total", "reason=client") == 1 })
}
