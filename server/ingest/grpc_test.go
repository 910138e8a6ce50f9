package ingest

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/record"
)

// dial returns a client of the gate by gRPC.
func (g *gate) dial() sluicev1.CallbackServiceClient {
	g.t.Helper()
	ln := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnaryInterceptor(func(
		ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
	) (any, error) {
		res, err := handler(ctx, req)
		return res, apierror.Status(err)
	}))
	sluicev1.RegisterCallbackServiceServer(server, g.service)
	serving := make(chan error, 1) // one result
	go func() { serving <- server.Serve(ln) }()
	conn, err := grpc.NewClient("passthrough:///gate",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-serving; err != nil {
			g.t.Error(err)
		}
	})
	return sluicev1.NewCallbackServiceClient(conn)
}

func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

func typed(id, words string) *sluicev1.Event {
	return &sluicev1.Event{Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
		MessageId: id, ChatId: "c1", Bot: &sluicev1.Bot{Id: "b1"}, Type: sluicev1.MessageType_MESSAGE_TYPE_TEXT,
		Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: words}},
	}}}
}

func TestGRPC(t *testing.T) {
	g := start(t, t.TempDir(), Config{MaxBody: 1000, Sources: []Source{{Name: "acme", Path: "/hook-7f3a", Tokens: []Secret{secret(t, token)}}}})
	client := g.dial()
	request := func(cb *sluicev1.Callback) *sluicev1.ReceiveCallbackRequest {
		return &sluicev1.ReceiveCallbackRequest{Path: "hook-7f3a/message", Callback: cb}
	}
	body := func(b string) *sluicev1.Callback { return &sluicev1.Callback{Body: []byte(b)} }

	tests := []struct {
		name      string
		req       *sluicev1.ReceiveCallbackRequest
		sequences []uint64
		duplicate bool
		code      codes.Code
		reason    string
	}{
		{name: "body", req: request(body(text("m1", "x"))), sequences: []uint64{1}},
		{name: "again", req: request(body(text("m1", "x"))), sequences: []uint64{1}, duplicate: true},
		{name: "not JSON", req: request(body("{"))},
		{name: "not JSON, again", req: request(body("{")), duplicate: true},
		{name: "typed", req: request(&sluicev1.Callback{Events: []*sluicev1.Event{typed("t1", "x")}}), sequences: []uint64{2}},
		{name: "typed, again", req: request(&sluicev1.Callback{Events: []*sluicev1.Event{typed("t1", "x")}}), sequences: []uint64{2}, duplicate: true},
		{name: "typed, revised", req: request(&sluicev1.Callback{Events: []*sluicev1.Event{typed("t1", "y")}}), sequences: []uint64{3}},
		{
			name: "two, one of them new", req: request(&sluicev1.Callback{Events: []*sluicev1.Event{typed("t1", "x"), typed("t2", "x")}}),
			sequences: []uint64{2, 4},
		},
		{
			name: "typed, no id",
			req: request(&sluicev1.Callback{Events: []*sluicev1.Event{
				{Body: &sluicev1.Event_FriendRequest{FriendRequest: &sluicev1.FriendRequest{Hello: "x"}}},
			}}),
			sequences: []uint64{5},
		},
		{
			name: "typed, no id, again",
			req: request(&sluicev1.Callback{Events: []*sluicev1.Event{
				{Body: &sluicev1.Event_FriendRequest{FriendRequest: &sluicev1.FriendRequest{Hello: "x"}}},
			}}),
			sequences: []uint64{5}, duplicate: true,
		},
		{
			name: "envelope is not the caller's",
			req: request(&sluicev1.Callback{Events: []*sluicev1.Event{{
				Sequence: 99, Cursor: "x", Source: "other", Path: "/x", Key: "k", RevisionOf: 7, ChatKey: "c", Body: typed("t3", "x").GetBody(),
			}}}),
			sequences: []uint64{6},
		},

		{name: "too large", req: request(body(text("m2", strings.Repeat("x", 1000)))), code: codes.ResourceExhausted, reason: "CALLBACK_TOO_LARGE"},
		{
			name: "typed, too large", req: request(&sluicev1.Callback{Events: []*sluicev1.Event{typed("t4", strings.Repeat("x", MaxRecord(1000)))}}),
			code: codes.ResourceExhausted, reason: "CALLBACK_TOO_LARGE",
		},
		{name: "wrong path", req: &sluicev1.ReceiveCallbackRequest{Path: "x", Callback: body("{}")}, code: codes.Unauthenticated, reason: "CALLBACK_NOT_ACCEPTED"},
		{name: "nothing", req: &sluicev1.ReceiveCallbackRequest{}, code: codes.Unauthenticated, reason: "CALLBACK_NOT_ACCEPTED"},
		{
			name: "wrong token", req: request(&sluicev1.Callback{Tokens: []string{"x"}, Events: []*sluicev1.Event{typed("t5", "x")}}),
			code: codes.Unauthenticated, reason: "CALLBACK_NOT_ACCEPTED",
		},
		{
			name: "malformed for a reason of its own", req: request(&sluicev1.Callback{Malformed: "x", Raw: []byte("{")}),
			code: codes.InvalidArgument, reason: "INVALID_REQUEST",
		},
		{name: "no callback", req: request(nil), code: codes.InvalidArgument, reason: "INVALID_REQUEST"},
		{
			name: "no body", req: request(&sluicev1.Callback{Events: []*sluicev1.Event{typed("t6", "x"), {Key: "x"}}}),
			code: codes.InvalidArgument, reason: "INVALID_REQUEST",
		},
		{
			name: "a token in an event", req: request(&sluicev1.Callback{Events: []*sluicev1.Event{typed("t7", "it is "+token)}}),
			code: codes.InvalidArgument, reason: "INVALID_REQUEST",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := g.events.Durable()
			res, err := client.ReceiveCallback(t.Context(), tt.req)
			if status.Code(err) != tt.code || reason(err) != tt.reason {
				t.Fatalf("ReceiveCallback() = %v, want %v %s", err, tt.code, tt.reason)
			}
			if err != nil {
				g.wantStored(before, g.quarantine.Durable())
				return
			}
			if got, want := res.GetSequences(), tt.sequences; len(got) != len(want) || len(got) > 0 && (got[0] != want[0] || got[len(got)-1] != want[len(want)-1]) {
				t.Errorf("sequences = %v, want %v", got, want)
			}
			if res.GetErrcode() != 0 || res.GetErrmsg() != "ok" || res.GetDuplicate() != tt.duplicate {
				t.Errorf("response = %v, want ok, duplicate %v", res, tt.duplicate)
			}
		})
	}
	g.wantStored(6, 1)
	events := g.stored()
	if got := events[2].GetRevisionOf(); got != 2 {
		t.Errorf("revision_of = %d, want 2", got)
	}
	e := events[5]
	if e.GetSource() != "acme" || e.GetPath() != "/message" || e.GetKey() != "acme/b1/t3" || e.GetRevisionOf() != 0 || e.GetChatKey() != "acme/c1" {
		t.Errorf("event 6 = %v, holds the caller's envelope", e)
	}
	if got := events[0].GetReceiveTime().AsTime(); time.Since(got).Abs() > time.Minute {
		t.Errorf("receive_time = %v", got)
	}
}

// What is converted field by field can be too much for a record. The body
// itself never is.
func TestFit(t *testing.T) {
	g := start(t, t.TempDir(), Config{MaxBody: 1000})
	raw := []byte(`{"messageId":"t1","botId":"b1","messageType":7}`)
	wide := &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.Repeat("x", MaxRecord(1000)))}}
	for name, tt := range map[string]struct {
		event     *sluicev1.Event
		kind      string
		anomalies []string
	}{
		"fits":     {&sluicev1.Event{Body: typed("t1", "hello").GetBody(), Raw: raw}, "message", nil},
		"unmapped": {&sluicev1.Event{Body: typed("t1", "hello").GetBody(), Unmapped: wide, Raw: raw}, "message", []string{"UNMAPPED_TRUNCATED"}},
		"body": {
			&sluicev1.Event{Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{Fields: wide}}, Raw: raw, Anomalies: []string{"WRONG_TYPE"}},
			"other",
			[]string{"BODY_NOT_CONVERTED", "WRONG_TYPE"},
		},
	} {
		data, err := g.service.fit(tt.event)
		if err != nil || len(data) > MaxRecord(1000) {
			t.Errorf("%s: fit() = %d bytes, %v, want at most %d", name, len(data), err, MaxRecord(1000))
		}
		e, err := record.Decode(data, 1, g.events.Epoch(), true)
		if err != nil {
			t.Fatal(err)
		}
		if record.Kind(e) != tt.kind || string(e.GetRaw()) != string(raw) {
			t.Errorf("%s: fit() keeps %v, want a %s with its raw body", name, e, tt.kind)
		}
		if !slices.Equal(e.GetAnomalies(), tt.anomalies) {
			t.Errorf("%s: anomalies = %v, want %v", name, e.GetAnomalies(), tt.anomalies)
		}
	}
}
