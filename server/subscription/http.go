package subscription

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const (
	// EventStream is the media type of server-sent events: what SSEMarshaler
	// is for.
	EventStream = "text/event-stream"

	subscribePath = "/v1/events:subscribe"

	// maxSubscribeBody is the largest body of a POST that LastEventID reads, in
	// bytes: what a gRPC server takes unless told otherwise.
	maxSubscribeBody = 4 << 20
)

// SSEMarshaler has grpc-gateway write the frames of Subscribe as server-sent
// events: the frame's cursor as id, its name ("opened", "events", …) as event
// and its JSON as data. An error is an event named "error" whose data is a
// google.rpc.Status. Any other answer is plain JSON.
type SSEMarshaler struct{ runtime.JSONPb }

// ContentType implements runtime.Marshaler. An error on a stream is part of the
// stream.
func (m *SSEMarshaler) ContentType(v any) string {
	if _, ok := v.(map[string]proto.Message); ok {
		return EventStream
	}
	return m.JSONPb.ContentType(v)
}

// StreamContentType implements runtime.StreamContentType.
func (*SSEMarshaler) StreamContentType(any) string { return EventStream }

// Marshal implements runtime.Marshaler. What it returns for a frame lacks the
// blank line at the end, which is the gateway's delimiter.
func (m *SSEMarshaler) Marshal(v any) ([]byte, error) {
	var id, name string
	switch chunk := v.(type) {
	case map[string]any: // as the gateway wraps a frame
		v = chunk["result"]
	case map[string]proto.Message: // and an error
		v, name = chunk["error"], "error"
	default:
		return m.JSONPb.Marshal(v)
	}
	if frame, ok := v.(*sluicev1.SubscribeResponse); ok {
		id, name = frame.GetCursor(), frameName(frame)
	}
	data, err := m.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(data) + 128)
	for _, field := range []struct{ name, value string }{{"id", id}, {"event", name}} {
		if field.value != "" {
			b.WriteString(field.name + ": " + field.value + "\n")
		}
	}
	for line := range bytes.Lines(data) {
		b.WriteString("data: ")
		b.Write(bytes.TrimSuffix(line, []byte("\n")))
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// Delimiter implements runtime.Delimited.
func (*SSEMarshaler) Delimiter() []byte { return []byte("\n") }

// frameName returns the name of the frame that is set; "" for none.
func frameName(r *sluicev1.SubscribeResponse) string {
	m := r.ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("frame")); f != nil {
		return string(f.Name())
	}
	return ""
}

// LastEventID returns a handler that calls h with a Subscribe whose header
// Last-Event-ID is made its start.cursor. A browser that reconnects sends that
// header together with the URL it began with, so the header goes before any
// start there.
func LastEventID(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("Last-Event-ID")
		if id == "" || r.URL.Path != subscribePath {
			h.ServeHTTP(w, r)
			return
		}
		switch r.Method {
		case http.MethodGet:
			r = startQuery(r, id)
		case http.MethodPost:
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSubscribeBody))
			if err != nil {
				status := http.StatusBadRequest
				if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
					status = http.StatusRequestEntityTooLarge
				}
				http.Error(w, http.StatusText(status), status)
				return
			}
			r = startBody(r, body, id)
		}
		h.ServeHTTP(w, r)
	})
}

// startQuery returns r with id as its start.cursor.
func startQuery(r *http.Request, id string) *http.Request {
	query := r.URL.Query()
	maps.DeleteFunc(query, func(name string, _ []string) bool { return strings.HasPrefix(name, "start.") })
	query.Set("start.cursor", id)
	out := r.Clone(r.Context())
	out.URL.RawQuery = query.Encode()
	return out
}

// startBody returns r, whose body was read, with id as its start.cursor. A body
// that is not an object is for the next handler to refuse.
func startBody(r *http.Request, body []byte, id string) *http.Request {
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err == nil && fields != nil {
		fields["start"], _ = json.Marshal(map[string]string{"cursor": id}) // cannot fail
		if rewritten, err := json.Marshal(fields); err == nil {
			body = rewritten
		}
	}
	out := r.Clone(r.Context())
	out.Body = io.NopCloser(bytes.NewReader(body))
	out.ContentLength = int64(len(body))
	return out
}
