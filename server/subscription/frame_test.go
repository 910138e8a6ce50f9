package subscription

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// sized is a text that takes about n bytes.
func sized(n int) *sluicev1.Event { return text(strings.Repeat("x", n)) }

// A frame holds what one read returns, from memory and from the storage, or one
// event that is larger.
func TestFramesAreBounded(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	n := 0
	for range 4 {
		for _, size := range []int{10, 100, 60 << 10, 50 << 10, 40 << 10, 200 << 10, 10, 100 << 10} {
			g.post(sized(size))
			n++
		}
	}
	for range 3 * maxBatch {
		g.post(sized(20))
		n++
	}
	for _, from := range []string{"memory", "storage"} {
		if from == "storage" {
			g.log.Forget()
		}
		out := &recorder{ctx: g.ctx}
		st, err := g.service.open(out, &sluicev1.SubscribeRequest{Start: earliest(), Stop: latest(), IncludeRaw: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.run(g.ctx); err == nil || st.count != n {
			t.Fatalf("run() = %v after %d events, want all %d", err, st.count, n)
		}
		for i, size := range out.sizes {
			events := len(out.frames[i].GetEvents().GetEvents())
			if events > maxBatch || events > 1 && size > batchRoom+64 {
				t.Errorf("from %s: a frame of %d events has %d bytes", from, events, size)
			}
		}
	}
}

// A client that does not read has a few frames sent to it, and no more, however
// long others read.
func TestWhoDoesNotReadHoldsLittle(t *testing.T) {
	const size, n = 30 << 10, 300
	g := newGate(t, eventlog.LogConfig{})
	for range n {
		g.post(sized(size))
	}
	g.subscribe(&sluicev1.SubscribeRequest{Start: earliest()}).opened()
	const rounds = 5
	for range rounds {
		s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: latest()})
		s.opened()
		if got, err := s.rest(); err != nil || len(got) != n {
			t.Fatalf("%d events, %v, beside a client that does not read; want %d", len(got), err, n)
		}
	}
	stuck := g.metric("sluice_subscription_events_total") - rounds*n
	if bytes := stuck * size; bytes > 1<<20 {
		t.Errorf("%v events, %v bytes, were sent to who does not read", stuck, bytes)
	}
}

// There is a bound for streams, and who leaves makes room.
func TestTooManyStreams(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.service.places = make(chan struct{}, 2)
	first := g.subscribe(&sluicev1.SubscribeRequest{})
	first.opened()
	g.subscribe(&sluicev1.SubscribeRequest{}).opened()
	_, err := g.subscribe(&sluicev1.SubscribeRequest{}).stream.Recv()
	wantError(t, err, codes.ResourceExhausted, sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS, map[string]string{"max_streams": "2"})
	first.cancel()
	g.await(func() bool {
		_, err := g.subscribe(&sluicev1.SubscribeRequest{}).stream.Recv()
		return err == nil
	})
}
