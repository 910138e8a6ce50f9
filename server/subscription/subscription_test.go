package subscription

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout bounds every wait of a test.
const testTimeout = 30 * time.Second

// A gate is a Service over a real log, and a client of it over gRPC.
type gate struct {
	tb       testing.TB
	ctx      context.Context
	dir      string // of the local engine
	url      string // of a cluster, instead
	engine   eventlog.Engine
	log      *eventlog.Log
	service  *Service
	client   sluicev1.EventServiceClient
	conn     *grpc.ClientConn
	registry *prometheus.Registry
	drain    func()
}

// newGate starts a gate that stops when the test ends.
func newGate(tb testing.TB, cfg eventlog.LogConfig) *gate {
	tb.Helper()
	return (&gate{tb: tb, dir: filepath.Join(tb.TempDir(), "data")}).start(cfg)
}

// start starts a gate that stops when the test ends.
func (g *gate) start(cfg eventlog.LogConfig) *gate {
	tb := g.tb
	tb.Helper()
	g.registry = prometheus.NewRegistry()
	var cancel context.CancelFunc
	g.ctx, cancel = context.WithTimeout(context.Background(), 2*testTimeout)
	tb.Cleanup(cancel)

	g.open(cfg)
	tb.Cleanup(func() { g.closeEngine() })
	draining := make(chan struct{})
	g.drain = sync.OnceFunc(func() { close(draining) })
	var err error
	g.service, err = New(Config{Log: g.log, Draining: draining, Registerer: g.registry})
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	g.serve()
	return g
}

// open opens the log.
func (g *gate) open(cfg eventlog.LogConfig) {
	g.tb.Helper()
	var err error
	if g.url != "" {
		g.engine, err = cluster.Open(g.ctx, cluster.Config{URL: g.url})
	} else {
		g.engine, err = local.Open(g.ctx, local.Config{Dir: g.dir})
	}
	if err != nil {
		g.tb.Fatalf("open the engine: %v", err)
	}
	if cfg.Name == "" {
		cfg.Name = "EVENTS"
	}
	if g.log, err = g.engine.Log(g.ctx, cfg); err != nil {
		g.tb.Fatalf("open the log: %v", err)
	}
}

func (g *gate) closeEngine() {
	g.tb.Helper()
	if err := g.engine.Close(context.Background()); err != nil {
		g.tb.Errorf("close the engine: %v", err)
	}
}

// serve puts the service behind a gRPC server, as server does.
func (g *gate) serve() {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(
		grpc.ForceServerCodecV2(Codec()),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			resp, err := h(ctx, req)
			return resp, apierror.Status(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return apierror.Status(h(srv, stream))
		}),
	)
	sluicev1.RegisterEventServiceServer(server, g.service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///gate",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10)) // else those who read widen the window of one that does not
	if err != nil {
		g.tb.Fatalf("dial: %v", err)
	}
	g.conn, g.client = conn, sluicev1.NewEventServiceClient(conn)
	g.tb.Cleanup(func() {
		g.drain()
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			g.tb.Errorf("serve: %v", err)
		}
	})
}

// post appends events, in order, and returns the sequence of the last one.
func (g *gate) post(events ...*sluicev1.Event) uint64 {
	g.tb.Helper()
	var last uint64
	for _, e := range events {
		data, err := record.Encode(e)
		if err != nil {
			g.tb.Fatalf("encode: %v", err)
		}
		a, err := g.log.Append(g.ctx, eventlog.Record{Subject: record.Subject(e), Key: e.GetChatKey(), Data: data})
		if err != nil {
			g.tb.Fatalf("append: %v", err)
		}
		last = a.Sequence
	}
	return last
}

// postTexts appends n messages, with the texts "0", "1" and so on, as fast as
// the log takes them in that order.
func (g *gate) postTexts(n int) {
	g.tb.Helper()
	for i := range n {
		g.post(text(fmt.Sprint(i)))
	}
}

// text is a text message that a customer sent.
func text(s string) *sluicev1.Event {
	return &sluicev1.Event{
		Source: "acme", Key: s, ChatKey: "acme/c1", ReceiveTime: timestamppb.Now(), Raw: []byte(`{"data":{}}`),
		Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
			ChatId: "c1", Type: sluicev1.MessageType_MESSAGE_TYPE_TEXT,
			Bot:     &sluicev1.Bot{Id: "bot-1"},
			Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: s}},
		}},
	}
}

// A sub is a stream under test.
type sub struct {
	tb     testing.TB
	stream grpc.ServerStreamingClient[sluicev1.SubscribeResponse]
	cancel context.CancelFunc
	cursor string // of the last frame
}

// subscribe opens a stream that ends with the test.
func (g *gate) subscribe(req *sluicev1.SubscribeRequest) *sub {
	g.tb.Helper()
	ctx, cancel := context.WithTimeout(g.ctx, testTimeout)
	g.tb.Cleanup(cancel)
	stream, err := g.client.Subscribe(ctx, req)
	if err != nil {
		g.tb.Fatalf("Subscribe: %v", err)
	}
	return &sub{tb: g.tb, stream: stream, cancel: cancel}
}

// next returns the next frame. Each has a cursor.
func (s *sub) next() *sluicev1.SubscribeResponse {
	s.tb.Helper()
	frame, err := s.stream.Recv()
	if err != nil {
		s.tb.Fatalf("Recv() = %v, want a frame", err)
	}
	if frame.GetCursor() == "" {
		s.tb.Fatalf("frame %v has no cursor", frame)
	}
	s.cursor = frame.GetCursor()
	return frame
}

// opened takes the first frame.
func (s *sub) opened() *sluicev1.Opened {
	s.tb.Helper()
	frame := s.next()
	if frame.GetOpened() == nil {
		s.tb.Fatalf("first frame = %v, want opened", frame)
	}
	return frame.GetOpened()
}

// events takes frames until n events have come, and returns those.
func (s *sub) events(n int) []*sluicev1.Event {
	s.tb.Helper()
	var got []*sluicev1.Event
	for len(got) < n {
		got = append(got, s.next().GetEvents().GetEvents()...)
	}
	if len(got) != n {
		s.tb.Fatalf("got %d events, want %d", len(got), n)
	}
	return got
}

// caughtUp takes frames until one says so, and returns the events before it.
func (s *sub) caughtUp() []*sluicev1.Event {
	s.tb.Helper()
	var got []*sluicev1.Event
	for {
		frame := s.next()
		if frame.GetCheckpoint().GetCaughtUp() {
			return got
		}
		got = append(got, frame.GetEvents().GetEvents()...)
	}
}

// rest takes frames until the stream ends, and returns the events in them and
// the error, nil for OK.
func (s *sub) rest() ([]*sluicev1.Event, error) {
	s.tb.Helper()
	var got []*sluicev1.Event
	for {
		frame, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		s.cursor = frame.GetCursor()
		got = append(got, frame.GetEvents().GetEvents()...)
	}
}

func sequences(events []*sluicev1.Event) []uint64 {
	out := []uint64{}
	for _, e := range events {
		out = append(out, e.GetSequence())
	}
	return out
}

// upTo returns the numbers from first to last.
func upTo(first, last uint64) []uint64 {
	out := []uint64{}
	for n := first; n <= last; n++ {
		out = append(out, n)
	}
	return out
}

func earliest() *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}}
}

func latest() *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_LATEST}}
}

func atCursor(c string) *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Cursor{Cursor: c}}
}

func atSequence(n uint64) *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: n}}
}

func atTime(t time.Time) *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_ReceiveTime{ReceiveTime: timestamppb.New(t)}}
}

// cursor returns a cursor of the gate's log.
func (g *gate) cursor(sequence uint64) string {
	return record.Cursor{Epoch: g.log.Epoch(), Sequence: sequence}.String()
}

// wantError checks err, as a client gets it. field and metadata hold what the
// ErrorInfo must say, "" and nil for nothing in particular.
func wantError(t *testing.T, err error, code codes.Code, reason sluicev1.ErrorReason, metadata map[string]string) {
	t.Helper()
	s, _ := status.FromError(err)
	if s.Code() != code {
		t.Fatalf("error = %v, want %v", err, code)
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			if want := strings.TrimPrefix(reason.String(), "ERROR_REASON_"); info.GetReason() != want {
				t.Errorf("reason = %s, want %s", info.GetReason(), want)
			}
			for k, want := range metadata {
				if got := info.GetMetadata()[k]; got != want {
					t.Errorf("metadata[%q] = %q, want %q", k, got, want)
				}
			}
			return
		}
	}
	t.Errorf("error %v has no ErrorInfo", err)
}

// metric returns the value of a metric, summed over what has all of labels, as
// in "reason=stop".
func (g *gate) metric(name string, labels ...string) float64 {
	g.tb.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		g.tb.Fatalf("Gather: %v", err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			found := 0
			for _, l := range m.GetLabel() {
				for _, want := range labels {
					if l.GetName()+"="+l.GetValue() == want {
						found++
					}
				}
			}
			if found == len(labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// await waits until ok.
func (g *gate) await(ok func() bool) {
	g.tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			g.tb.Fatal("waited in vain")
		}
	}
}

func TestGetEvent(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.post(text("你好"))

	for _, raw := range []bool{false, true} {
		resp, err := g.client.GetEvent(g.ctx, &sluicev1.GetEventRequest{Sequence: 1, IncludeRaw: raw})
		if err != nil {
			t.Fatalf("GetEvent(1): %v", err)
		}
		e := resp.GetEvent()
		if e.GetSequence() != 1 || e.GetCursor() != g.cursor(1) || e.GetMessage().GetText().GetText() != "你好" {
			t.Errorf("GetEvent(1) = %v", e)
		}
		if got := len(e.GetRaw()) > 0; got != raw {
			t.Errorf("GetEvent(include_raw: %v) has raw: %v", raw, got)
		}
	}

	_, err := g.client.GetEvent(g.ctx, &sluicev1.GetEventRequest{Sequence: 2})
	wantError(t, err, codes.NotFound, sluicev1.ErrorReason_ERROR_REASON_EVENT_NOT_FOUND, map[string]string{"sequence": "2"})
	_, err = g.client.GetEvent(g.ctx, &sluicev1.GetEventRequest{})
	wantError(t, err, codes.InvalidArgument, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, map[string]string{"field": "sequence"})
}

func TestNewNeedsALog(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("New(Config{}) = nil, want an error")
	}
}
