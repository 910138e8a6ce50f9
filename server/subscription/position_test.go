package subscription

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// timed returns texts received at t0 + i seconds for each i.
func timed(t0 time.Time, seconds ...int) []*sluicev1.Event {
	var out []*sluicev1.Event
	for _, i := range seconds {
		e := text(fmt.Sprint(i))
		e.ReceiveTime = timestamppb.New(t0.Add(time.Duration(i) * time.Second))
		out = append(out, e)
	}
	return out
}

func TestStartsAndStops(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	// Stored now, received long ago: the times of reception decide.
	t0 := time.Now().Add(-time.Hour).Truncate(time.Second)
	g.post(timed(t0, 1, 2, 4, 3, 5)...) // 4 overtook 3
	at := func(seconds float64) *sluicev1.Position {
		return atTime(t0.Add(time.Duration(seconds * float64(time.Second))))
	}

	tests := map[string]struct {
		start, stop *sluicev1.Position
		want        []uint64
	}{
		"all":                             {earliest(), latest(), upTo(1, 5)},
		"nothing":                         {nil, latest(), upTo(1, 0)},
		"latest":                          {latest(), latest(), upTo(1, 0)},
		"unset start and stop":            {&sluicev1.Position{}, &sluicev1.Position{}, upTo(1, 0)},
		"after the cursor before the log": {atCursor(g.cursor(0)), latest(), upTo(1, 5)},
		"after a cursor":                  {atCursor(g.cursor(2)), latest(), upTo(3, 5)},
		"after the last cursor":           {atCursor(g.cursor(5)), latest(), upTo(1, 0)},
		"from a sequence":                 {atSequence(4), latest(), upTo(4, 5)},
		"from the next sequence":          {atSequence(6), latest(), upTo(1, 0)},
		"up to a cursor":                  {earliest(), atCursor(g.cursor(2)), upTo(1, 2)},
		"up to a sequence":                {earliest(), atSequence(2), upTo(1, 2)},
		"one":                             {atSequence(3), atSequence(3), upTo(3, 3)},
		"stop before start":               {atSequence(3), atSequence(1), upTo(1, 0)},
		"stop before the log":             {earliest(), atCursor(g.cursor(0)), upTo(1, 0)},
		"from a time":                     {at(2), latest(), upTo(2, 5)},
		"from between two times":          {at(1.5), latest(), upTo(2, 5)},
		"from before all times":           {atTime(time.Unix(0, 0)), latest(), upTo(1, 5)},
		"from a time that was overtaken":  {at(3), latest(), upTo(3, 5)},
		"from after all times":            {at(6), latest(), upTo(1, 0)},
		"up to a time, which is not read": {earliest(), at(4), upTo(1, 2)},
		"up to a time that was overtaken": {earliest(), at(3), upTo(1, 2)},
		"up to before all times":          {earliest(), atTime(time.Unix(0, 0)), upTo(1, 0)},
		"between times":                   {at(2), at(5), upTo(2, 4)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := g.subscribe(&sluicev1.SubscribeRequest{Start: tt.start, Stop: tt.stop})
			s.opened()
			got, err := s.rest()
			if err != nil {
				t.Fatalf("stream ends with %v, want OK", err)
			}
			if !slices.Equal(sequences(got), tt.want) {
				t.Errorf("stream has %v, want %v", sequences(got), tt.want)
			}
			if c, _ := record.ParseCursor(s.cursor); len(tt.want) > 0 && c.Sequence != tt.want[len(tt.want)-1] {
				t.Errorf("last cursor is of %d, want the last event", c.Sequence)
			}
			// A list of the same span has the same events.
			list, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{
				Start: orLatest(tt.start), Stop: tt.stop,
			})
			if err != nil {
				t.Fatalf("ListEvents: %v", err)
			}
			if !slices.Equal(sequences(list.GetEvents()), tt.want) {
				t.Errorf("list has %v, want %v", sequences(list.GetEvents()), tt.want)
			}
		})
	}
}

// orLatest returns p, or what an unset start means to Subscribe.
func orLatest(p *sluicev1.Position) *sluicev1.Position {
	if p == nil {
		return latest()
	}
	return p
}

func TestSubscribeRefuses(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(3)
	foreign := record.Cursor{Epoch: "0123456789abcdef", Sequence: 1}.String()
	type request = sluicev1.SubscribeRequest
	field := func(name string) map[string]string { return map[string]string{"field": name} }
	ahead := map[string]string{"sequence": "5", "last_sequence": "3"}
	badTime := &sluicev1.Position{At: &sluicev1.Position_ReceiveTime{ReceiveTime: &timestamppb.Timestamp{Nanos: -1}}}
	badAnchor := &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: 9}}

	tests := map[string]struct {
		req      *request
		code     codes.Code
		reason   sluicev1.ErrorReason
		metadata map[string]string
	}{
		"no cursor":               {&request{Start: atCursor("")}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_CURSOR, field("start.cursor")},
		"not a cursor":            {&request{Stop: atCursor("nonsense")}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_CURSOR, field("stop.cursor")},
		"another log's cursor":    {&request{Start: atCursor(foreign)}, codes.FailedPrecondition, sluicev1.ErrorReason_ERROR_REASON_CURSOR_OF_ANOTHER_LOG, nil},
		"another log's stop":      {&request{Stop: atCursor(foreign)}, codes.FailedPrecondition, sluicev1.ErrorReason_ERROR_REASON_CURSOR_OF_ANOTHER_LOG, nil},
		"cursor ahead":            {&request{Start: atCursor(g.cursor(5))}, codes.FailedPrecondition, sluicev1.ErrorReason_ERROR_REASON_CURSOR_AHEAD_OF_LOG, ahead},
		"sequence ahead":          {&request{Start: atSequence(5)}, codes.FailedPrecondition, sluicev1.ErrorReason_ERROR_REASON_CURSOR_AHEAD_OF_LOG, ahead},
		"sequence 0":              {&request{Start: atSequence(0)}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("start.sequence")},
		"stop at sequence 0":      {&request{Stop: atSequence(0)}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("stop.sequence")},
		"stop at the earliest":    {&request{Stop: earliest()}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("stop.anchor")},
		"unknown anchor":          {&request{Start: badAnchor}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("start.anchor")},
		"not a time":              {&request{Start: badTime}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("start.receive_time")},
		"unknown policy":          {&request{OnGap: 7}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("on_gap")},
		"heartbeat too short":     {&request{HeartbeatInterval: durationpb.New(999 * time.Millisecond)}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("heartbeat_interval")},
		"heartbeat too long":      {&request{HeartbeatInterval: durationpb.New(time.Hour + 1)}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("heartbeat_interval")},
		"heartbeat no duration":   {&request{HeartbeatInterval: &durationpb.Duration{Seconds: 5, Nanos: -1}}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("heartbeat_interval")},
		"subscriber too long":     {&request{Subscriber: strings.Repeat("x", 129)}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field("subscriber")},
		"filter does not compile": {&request{Filter: &sluicev1.EventFilter{Expression: "event."}}, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER, field("filter.expression")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			frame, err := g.subscribe(tt.req).stream.Recv()
			if frame != nil {
				t.Fatalf("got frame %v, want an error", frame)
			}
			wantError(t, err, tt.code, tt.reason, tt.metadata)
		})
	}
	if n := g.metric("sluice_subscription_ended_total"); n != 0 {
		t.Errorf("%v streams ended, want none: refused streams were never open", n)
	}
}

// A stop in the future ends the stream when the time comes, though nothing is
// posted, and at the first event that was received later.
func TestStopInTheFuture(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(2)

	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: atTime(time.Now().Add(300 * time.Millisecond))})
	s.opened()
	if got, err := s.rest(); err != nil || !slices.Equal(sequences(got), upTo(1, 2)) {
		t.Errorf("silent log: %v, %v, want 1 and 2", sequences(got), err)
	}

	soon := time.Now().Add(time.Hour)
	s = g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: atTime(soon)})
	s.opened()
	s.caughtUp()
	g.post(timed(soon, -1, 0, -2)...)
	if got, err := s.rest(); err != nil || !slices.Equal(sequences(got), upTo(3, 3)) {
		t.Errorf("busy log: %v, %v, want 3", sequences(got), err)
	}
	if c, _ := record.ParseCursor(s.cursor); c.Sequence != 3 {
		t.Errorf("last cursor is of %d, want 3", c.Sequence)
	}
	if n := g.metric("sluice_subscription_ended_total", "reason=stop"); n != 2 {
		t.Errorf("%v streams ended by their stop, want 2", n)
	}
}

// A start in the future waits for the first event that is received then.
func TestStartInTheFuture(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	t0 := time.Now().Add(time.Hour)
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: atTime(t0)})
	s.opened()
	s.caughtUp()
	g.post(timed(t0, -2, -1, 0, -1)...)
	if got := s.events(2); !slices.Equal(sequences(got), upTo(3, 4)) {
		t.Errorf("got %v, want 3 and what follows it", sequences(got))
	}
}
