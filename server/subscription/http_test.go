package subscription

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// An sse is a server-sent event, as a browser takes it in.
type sse struct{ id, event, data string }

// readSSE returns the next server-sent event of r.
func readSSE(t *testing.T, r *bufio.Reader) sse {
	t.Helper()
	var e sse
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("stream ends in %+v: %v", e, err)
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			return e
		case name == "id":
			e.id = value
		case name == "event":
			e.event = value
		case name == "data":
			e.data += value
		default:
			t.Fatalf("line %q is no field", line)
		}
	}
}

func TestSSEMarshaler(t *testing.T) {
	type response = sluicev1.SubscribeResponse
	opened := &response{Cursor: "c0", Frame: &sluicev1.SubscribeResponse_Opened{Opened: &sluicev1.Opened{LastSequence: 3}}}
	events := &response{Cursor: "c1", Frame: &sluicev1.SubscribeResponse_Events{Events: &sluicev1.EventBatch{
		Events: []*sluicev1.Event{text("两行\n\n文字")},
	}}}
	away := &response{Cursor: "c2", Frame: &sluicev1.SubscribeResponse_GoingAway{GoingAway: &sluicev1.GoingAway{Reason: "DRAINING"}}}
	failure := &spb.Status{Code: 11, Message: "retention has passed the position"}
	indented := &SSEMarshaler{JSONPb: runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{Multiline: true}}}

	tests := map[string]struct {
		marshaler *SSEMarshaler
		chunk     any
		id, event string
		want      proto.Message
	}{
		"opened":     {&SSEMarshaler{}, map[string]any{"result": opened}, "c0", "opened", opened},
		"events":     {&SSEMarshaler{}, map[string]any{"result": events}, "c1", "events", events},
		"going away": {&SSEMarshaler{}, map[string]any{"result": away}, "c2", "going_away", away},
		"error":      {&SSEMarshaler{}, map[string]proto.Message{"error": failure}, "", "error", failure},
		"indented":   {indented, map[string]any{"result": events}, "c1", "events", events},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := tt.marshaler.Marshal(tt.chunk)
			if err != nil {
				t.Fatalf("Marshal: %v", err)
			}
			wire := bufio.NewReader(strings.NewReader(string(b) + string(tt.marshaler.Delimiter())))
			e := readSSE(t, wire)
			if e.id != tt.id || e.event != tt.event {
				t.Errorf("id %q, event %q, want %q, %q", e.id, e.event, tt.id, tt.event)
			}
			got := tt.want.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal([]byte(e.data), got); err != nil {
				t.Fatalf("data %s: %v", e.data, err)
			}
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("data differs (-want +got):\n%s", diff)
			}
			if n, _ := io.Copy(io.Discard, wire); n != 0 {
				t.Errorf("%d bytes follow the blank line", n)
			}
			if got := tt.marshaler.StreamContentType(tt.chunk); got != EventStream {
				t.Errorf("StreamContentType() = %q", got)
			}
		})
	}

	t.Run("unary", func(t *testing.T) {
		m := &SSEMarshaler{}
		if got := m.ContentType(&sluicev1.GetEventResponse{}); got != "application/json" {
			t.Errorf("ContentType() = %q, want JSON", got)
		}
		b, err := m.Marshal(&sluicev1.GetEventResponse{Event: &sluicev1.Event{Key: "k"}})
		if err != nil || !json.Valid(b) {
			t.Errorf("Marshal() = %q, %v, want JSON", b, err)
		}
		// The gateway asks this before it writes an error instead of a stream.
		if got := m.ContentType(map[string]proto.Message{"error": failure}); got != EventStream {
			t.Errorf("ContentType(error) = %q", got)
		}
	})
}

func TestLastEventIDBecomesTheStart(t *testing.T) {
	const path = "/v1/events:subscribe"
	tests := map[string]struct {
		method, target, body, id string
		wantQuery, wantBody      string
	}{
		"no header":           {"GET", path + "?start.sequence=3", "", "", "start.sequence=3", ""},
		"get":                 {"GET", path, "", "c7", "start.cursor=c7", ""},
		"get with a filter":   {"GET", path + "?filter.kinds=message&filter.kinds=other", "", "c7", "filter.kinds=message&filter.kinds=other&start.cursor=c7", ""},
		"reconnect of a tail": {"GET", path + "?start.anchor=ANCHOR_EARLIEST&stop.sequence=9", "", "c7", "start.cursor=c7&stop.sequence=9", ""},
		"get of elsewhere":    {"GET", "/v1/events?start.sequence=3", "", "c7", "start.sequence=3", ""},
		"post":                {"POST", path, `{"filter":{"kinds":["message"]}}`, "c7", "", `{"filter":{"kinds":["message"]},"start":{"cursor":"c7"}}`},
		"post with a start":   {"POST", path, `{"start":{"sequence":"3"}}`, "c7", "", `{"start":{"cursor":"c7"}}`},
		"post of nothing":     {"POST", path, "", "c7", "", `{"start":{"cursor":"c7"}}`},
		"post of no object":   {"POST", path, `[1]`, "c7", "", `[1]`},
		"post of null":        {"POST", path, `null`, "c7", "", `null`},
		"post, no header":     {"POST", path, `{ "start":{}}`, "", "", `{ "start":{}}`},
		"delete is not ours":  {"DELETE", path, `{}`, "c7", "", `{}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var query, body string
			h := LastEventID(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Errorf("read the body: %v", err)
				}
				if r.ContentLength >= 0 && r.ContentLength != int64(len(b)) {
					t.Errorf("Content-Length = %d, body has %d bytes", r.ContentLength, len(b))
				}
				query, body = r.URL.RawQuery, string(b)
			}))
			r := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
			if tt.id != "" {
				r.Header.Set("Last-Event-ID", tt.id)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			if query != tt.wantQuery || body != tt.wantBody {
				t.Errorf("handler sees %q and %q, want %q and %q", query, body, tt.wantQuery, tt.wantBody)
			}
		})
	}

	t.Run("too large", func(t *testing.T) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", path, io.LimitReader(zeros{}, maxSubscribeBody+1))
		r.Header.Set("Last-Event-ID", "c7")
		LastEventID(http.NotFoundHandler()).ServeHTTP(w, r)
		if w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("status = %d, want 413", w.Code)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// A browser that is cut off comes back by itself and misses nothing.
func TestEventSourceResumesThroughTheGateway(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(3)
	mux := runtime.NewServeMux(runtime.WithMarshalerOption(EventStream, &SSEMarshaler{}))
	if err := sluicev1.RegisterEventServiceHandler(g.ctx, mux, g.conn); err != nil {
		t.Fatalf("register: %v", err)
	}
	server := httptest.NewServer(LastEventID(mux))
	defer server.Close()

	type connection struct {
		*bufio.Reader
		status      int
		contentType string
		leave       func()
	}
	connect := func(method, query, body, lastID string) connection {
		ctx, cancel := context.WithTimeout(g.ctx, testTimeout)
		req, err := http.NewRequestWithContext(ctx, method, server.URL+"/v1/events:subscribe?"+query, strings.NewReader(body))
		if err != nil {
			t.Fatalf("request: %v", err)
		}
		req.Header.Set("Accept", EventStream)
		if lastID != "" {
			req.Header.Set("Last-Event-ID", lastID)
		}
		resp, err := server.Client().Do(req) //nolint:bodyclose // leave closes it
		if err != nil {
			t.Fatalf("do: %v", err)
		}
		return connection{
			Reader: bufio.NewReader(resp.Body), status: resp.StatusCode, contentType: resp.Header.Get("Content-Type"),
			leave: func() {
				cancel()
				_ = resp.Body.Close()
			},
		}
	}
	keys := func(e sse) []string {
		var frame sluicev1.SubscribeResponse
		if err := protojson.Unmarshal([]byte(e.data), &frame); err != nil {
			t.Fatalf("data %s: %v", e.data, err)
		}
		var out []string
		for _, e := range frame.GetEvents().GetEvents() {
			out = append(out, e.GetKey())
		}
		return out
	}

	const query = "start.anchor=ANCHOR_EARLIEST"
	c := connect("GET", query, "", "")
	if c.contentType != EventStream {
		t.Errorf("Content-Type = %q", c.contentType)
	}
	if e := readSSE(t, c.Reader); e.event != "opened" {
		t.Fatalf("first event = %+v, want opened", e)
	}
	e := readSSE(t, c.Reader)
	if diff := cmp.Diff([]string{"0", "1", "2"}, keys(e)); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
	c.leave()

	g.post(text("missed"))
	for _, again := range []struct{ method, query, body string }{
		{"GET", query, ""},
		{"POST", "", `{"start":{"anchor":"ANCHOR_EARLIEST"}}`},
	} {
		c = connect(again.method, again.query, again.body, e.id)
		readSSE(t, c.Reader)
		if diff := cmp.Diff([]string{"missed"}, keys(readSSE(t, c.Reader))); diff != "" {
			t.Errorf("%s: events after the reconnect differ (-want +got):\n%s", again.method, diff)
		}
		c.leave()
	}

	c = connect("GET", "", "", "nonsense")
	defer c.leave()
	if c.status != http.StatusBadRequest {
		t.Errorf("status = %d, want 400", c.status)
	}
	if e := readSSE(t, c.Reader); e.event != "error" || e.id != "" {
		t.Errorf("event = %+v, want an error without id", e)
	}
}
