package subscription

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// costly selects everything, and takes several milliseconds for each event.
const costly = `[1,2,3,4,5,6,7].map(a,[1,2,3,4,5,6,7].map(b,[1,2,3,4,5,6,7].map(c,[1,2,3,4,5,6,7].map(d,a+b))))!=[]`

// A page ends when the time of a call is over, and its token goes on: however
// little time there is, each page looks at some of the log.
func TestPagesEndWhereAnExpressionTakesLong(t *testing.T) {
	const events = 12
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(events)
	one := &sluicev1.ListEventsRequest{Filter: &sluicev1.EventFilter{Expression: costly}, PageSize: 1}
	began := time.Now()
	if _, err := g.client.ListEvents(g.ctx, one); err != nil {
		t.Fatalf("ListEvents: %v", err)
	}
	g.service.callTime = 2 * time.Since(began) // for a page of some of them, on any machine
	var want []uint64
	for sequence := uint64(1); sequence <= events; sequence++ {
		want = append(want, sequence)
	}
	for _, newest := range []bool{false, true} {
		req := &sluicev1.ListEventsRequest{Filter: &sluicev1.EventFilter{Expression: costly}, NewestFirst: newest}
		var got []uint64
		pages := 0
		for {
			resp, err := g.client.ListEvents(g.ctx, req)
			if status.Code(err) == codes.ResourceExhausted {
				continue // another one was resting: it says to try again
			}
			if err != nil {
				t.Fatalf("ListEvents: %v", err)
			}
			pages++
			for _, e := range resp.GetEvents() {
				got = append(got, e.GetSequence())
			}
			if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if !slices.Equal(got, want) || pages < 2 {
			t.Errorf("newest_first %v: %d pages have %v, want more than one with %v", newest, pages, got, want)
		}
		slices.Reverse(want)
	}
}

// A call that gets no turn ends, and says why; one without an expression needs none.
func TestCallWithoutATurn(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.service.callTime = time.Millisecond
	g.postTexts(1)
	for range cap(lanes) {
		at := <-lanes
		defer func() { lanes <- at }()
	}
	for _, newest := range []bool{false, true} {
		_, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{Filter: &sluicev1.EventFilter{Expression: "true"}, NewestFirst: newest})
		var reason string
		retry := false
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.ErrorInfo); ok {
				reason = info.GetReason()
			}
			_, is := d.(*errdetails.RetryInfo)
			retry = retry || is
		}
		if status.Code(err) != codes.ResourceExhausted || reason != "EXPRESSION_TOO_EXPENSIVE" || !retry {
			t.Errorf("ListEvents(newest_first: %v) = %v, want RESOURCE_EXHAUSTED, EXPRESSION_TOO_EXPENSIVE, RetryInfo", newest, err)
		}
	}
	if resp, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{}); err != nil || len(resp.GetEvents()) != 1 {
		t.Errorf("ListEvents() without an expression = %v, %v", resp, err)
	}
}

// A stream whose expression is costly is slowed down, and ends with nothing missed.
func TestStreamGoesOnWhereAnExpressionTakesLong(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(4)
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: atSequence(1), Stop: atSequence(4), Filter: &sluicev1.EventFilter{Expression: costly}})
	if got, err := s.rest(); !slices.Equal(sequences(got), []uint64{1, 2, 3, 4}) {
		t.Errorf("the stream has %v and ends with %v, want all four", sequences(got), err)
	}
}

func TestExcess(t *testing.T) {
	const tolerance = 5 * time.Second
	for name, tt := range map[string]struct {
		tolerance  time.Duration
		took       func(n int) time.Duration // the n-th event
		every      time.Duration
		events     int
		wantWithin bool
	}{
		"usual": {tolerance, func(int) time.Duration { return 50 * time.Microsecond }, 50 * time.Microsecond, 100_000, true},
		"usual, on a machine that stops for 10 ms now and then": {tolerance, func(n int) time.Duration {
			if n%50 == 0 {
				return 10 * time.Millisecond
			}
			return 50 * time.Microsecond
		}, time.Millisecond, 100_000, true},
		"costly, but seldom":      {tolerance, func(int) time.Duration { return 10 * time.Millisecond }, time.Second, 10_000, true},
		"costly":                  {tolerance, func(int) time.Duration { return 100 * time.Millisecond }, 150 * time.Millisecond, 100, false},
		"costly, without a bound": {0, func(int) time.Duration { return 100 * time.Millisecond }, 150 * time.Millisecond, 100, true},
	} {
		b := &budget{tolerance: tt.tolerance}
		now := time.Unix(1_700_000_000, 0)
		within := true
		for n := range tt.events {
			now = now.Add(tt.every)
			within = within && !b.exceeds(now, tt.took(n))
		}
		if within != tt.wantWithin {
			t.Errorf("%s: within its budget is %v, want %v", name, within, tt.wantWithin)
		}
	}
}

// Of the readers whose events take long one at a time looks at one, so that the
// others wait for one of them at most.
func TestSlowReadersTakeTurnsAmongThemselves(t *testing.T) {
	slowTurn <- struct{}{} // somebody has it
	defer func() { <-slowTurn }()
	usual, slow := &budget{}, &budget{}
	slow.slow.Store(true)
	look := func() (bool, error) { return true, nil }
	if ok, err := usual.turn(t.Context(), look); !ok || err != nil {
		t.Errorf("turn() of a usual reader = %v, %v, want true", ok, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBusy)
	if ok, err := slow.turn(ctx, look); ok || !errors.Is(err, errBusy) {
		t.Errorf("turn() of a slow reader = %v, %v, want that it waits", ok, err)
	}
}
