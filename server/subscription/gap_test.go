package subscription

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// small is a log that holds fewer than 16 large events. (The newest 8 MiB can be
// read a little longer.)
var small = eventlog.LogConfig{MaxBytes: 1 << 20, DropOldest: true}

// retained waits until retention has done its work on a small log, and returns
// what is left.
func (g *gate) retained() eventlog.State {
	g.tb.Helper()
	g.await(func() bool { return g.log.State().Bytes <= uint64(small.MaxBytes) })
	return g.log.State()
}

func large(i int) *sluicev1.Event { return text(fmt.Sprint(i) + strings.Repeat("x", 64<<10)) }

func TestGapFailsTheStream(t *testing.T) {
	g := newGate(t, small)
	for i := range 200 {
		g.post(large(i))
	}
	state := g.retained()
	if state.First < 10 {
		t.Fatalf("State() = %+v, want the oldest removed", state)
	}
	want := map[string]string{"sequence": "8", "first_sequence": fmt.Sprint(state.First)}
	for _, start := range []*sluicev1.Position{atCursor(g.cursor(7)), atSequence(8)} {
		_, err := g.subscribe(&sluicev1.SubscribeRequest{Start: start}).stream.Recv()
		wantError(t, err, codes.OutOfRange, sluicev1.ErrorReason_ERROR_REASON_CURSOR_TOO_OLD, want)
		_, err = g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{Start: start})
		wantError(t, err, codes.OutOfRange, sluicev1.ErrorReason_ERROR_REASON_CURSOR_TOO_OLD, want)
	}
}

func TestGapIsReportedAndSkipped(t *testing.T) {
	g := newGate(t, small)
	for i := range 200 {
		g.post(large(i))
	}
	state := g.retained()
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: atCursor(g.cursor(7)), Stop: latest(), OnGap: sluicev1.OnGap_ON_GAP_SKIP})
	s.opened()
	if s.cursor != g.cursor(7) {
		t.Errorf("opened with cursor %s, want that of 7: the gap is still to come", s.cursor)
	}
	gap := s.next().GetGap()
	if gap.GetFirstSequence() != 8 || gap.GetLastSequence() != state.First-1 {
		t.Errorf("gap = %v, want 8 to %d", gap, state.First-1)
	}
	if s.cursor != g.cursor(state.First-1) {
		t.Errorf("gap has cursor %s, want that of its last", s.cursor)
	}
	if got, err := s.rest(); err != nil || !slices.Equal(sequences(got), upTo(state.First, 200)) {
		t.Errorf("after the gap: %v, %v", sequences(got), err)
	}
}

// Retention passes a reader that does not read, in the middle of its stream.
func TestGapInTheMiddleOfAStream(t *testing.T) {
	for _, policy := range []sluicev1.OnGap{sluicev1.OnGap_ON_GAP_FAIL, sluicev1.OnGap_ON_GAP_SKIP} {
		t.Run(policy.String(), func(t *testing.T) {
			g := newGate(t, small)
			s := g.subscribe(&sluicev1.SubscribeRequest{OnGap: policy})
			s.opened()
			s.caughtUp()
			const posts = 400
			for i := range posts { // far more than buffers and the log hold
				g.post(large(i))
			}
			var got []uint64
			for len(got) == 0 || got[len(got)-1] < posts {
				frame, err := s.stream.Recv()
				if err != nil {
					if policy == sluicev1.OnGap_ON_GAP_SKIP {
						t.Fatalf("Recv: %v", err)
					}
					wantError(t, err, codes.OutOfRange, sluicev1.ErrorReason_ERROR_REASON_CURSOR_TOO_OLD,
						map[string]string{"sequence": fmt.Sprint(len(got) + 1)})
					if n := g.metric("sluice_subscription_ended_total", "reason=truncated"); n != 1 {
						t.Errorf("%v streams were truncated, want 1", n)
					}
					break
				}
				if gap := frame.GetGap(); gap != nil {
					if gap.GetFirstSequence() != uint64(len(got))+1 {
						t.Errorf("gap = %v after event %d", gap, len(got))
					}
					got = append(got, upTo(gap.GetFirstSequence(), gap.GetLastSequence())...)
				}
				got = append(got, sequences(frame.GetEvents().GetEvents())...)
			}
			if !slices.Equal(got, upTo(1, uint64(len(got)))) {
				t.Errorf("events and gaps do not add up: %v", got)
			}
			if full := len(got) == posts; full != (policy == sluicev1.OnGap_ON_GAP_SKIP) {
				t.Errorf("stream came to %d of %d", len(got), posts)
			}
		})
	}
}

// A recorder is the sending side of a stream that is driven by hand.
type recorder struct {
	grpc.ServerStream
	ctx    context.Context
	frames []*sluicev1.SubscribeResponse
	sizes  []int // of frames, in bytes
}

func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Send(frame *sluicev1.SubscribeResponse) error {
	r.frames, r.sizes = append(r.frames, frame), append(r.sizes, proto.Size(frame))
	return nil
}

func (r *recorder) SendMsg(m any) error {
	data, err := Codec().Marshal(m)
	if err != nil {
		return err
	}
	frame := &sluicev1.SubscribeResponse{}
	r.frames, r.sizes = append(r.frames, frame), append(r.sizes, data.Len())
	return Codec().Unmarshal(data, frame)
}

// The earliest event is the earliest one when it is read: retention between the
// request and the first read is no gap.
func TestEarliestMovesWithRetention(t *testing.T) {
	for name, start := range map[string]*sluicev1.Position{"anchor": earliest(), "time": atTime(time.Unix(0, 0))} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, small)
			g.postTexts(5)
			out := &recorder{ctx: g.ctx}
			st, err := g.service.open(out, &sluicev1.SubscribeRequest{Start: start, Stop: atSequence(205)})
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			for i := range 200 {
				g.post(large(i))
			}
			g.retained() // or it could pass the stream on its way
			if err := st.run(g.ctx); !errors.Is(err, errStopped) {
				t.Fatalf("run() = %v, want errStopped", err)
			}
			for _, frame := range out.frames {
				if frame.GetGap() != nil {
					t.Errorf("frame = %v, want no gap", frame)
				}
			}
			if st.position != 205 {
				t.Errorf("position = %d, want 205", st.position)
			}
		})
	}
}
