package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	gateway "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/sluicegate/sluice/server/failpoint"
)

// A handler is the callback listener: it looks at what HTTP says of a request,
// reads the body, and has grpc-gateway make the call.
type handler struct {
	service  *Service
	receive  gateway.HandlerFunc
	bodies   *bodies
	requests atomic.Int64 // under way
	most     int64        // of them
}

// maxRequests is how many requests may be under way at a time, each with at
// most smallBody of memory for its body unless there is room for more.
const maxRequests = 2048

// NewHandler returns the handler of the callback listener. Whatever it is
// asked, it answers in the vendor's shape.
func NewHandler(s *Service) (http.Handler, error) { return newHandler(s, maxRequests, maxRoom) }

// newHandler returns a handler that takes that many requests at a time, and has
// room for that many bytes of large bodies, or for one.
func newHandler(s *Service, requests, room int64) (*handler, error) {
	receive, err := newReceive(s)
	if err != nil {
		return nil, err
	}
	return &handler{service: s, receive: receive, bodies: newBodies(int64(s.maxBody), room, s.deadlines.timeout), most: requests}, nil
}

// ServeHTTP implements http.Handler. What it refuses before the body is read,
// or after a part of it, net/http reads up to 256 KiB of, to keep the
// connection, and else closes the connection.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recover(w)
	defer h.requests.Add(-1)
	switch encoding := r.Header.Get("Content-Encoding"); {
	case h.requests.Add(1) > h.most:
		h.refuse(w, rejectedBusy, answerBusy)
	case r.Method != http.MethodPost:
		h.refuse(w, rejectedMethod, answerMethod)
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		h.refuse(w, rejectedEncoding, answerMedia)
	default:
		h.serve(w, r)
	}
}

// serve takes a POST. Whoever does not know a path is not listened to: the body
// is read when its path is a source's.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) {
	path := cleanPath(strings.ToValidUTF8(r.URL.Path, "\uFFFD"))
	if route, _ := h.service.routes.Load().match(path); route == nil {
		answerFor(h.service.reject(h.service.clock(), noSource, rejectedPath, nil)).write(w)
		return
	}
	body, err := h.bodies.read(r)
	var over *http.MaxBytesError
	switch {
	case err == nil:
		defer h.bodies.free(body) // also after a panic
		_ = failpoint.Hit("after-read")
		request, params := body.call.of(r, path, body)
		h.receive(failpoint.Response("mid-response", w), request, params)
	case errors.As(err, &over):
		hangUp(w)
		h.refuse(w, rejectedSize, answerTooLarge)
	case errors.Is(err, errNoRoom):
		h.refuse(w, rejectedBusy, answerBusy)
	default:
		hangUp(w)
		h.refuse(w, rejectedRead, answerBad)
	}
}

// hangUp has the connection closed after the answer, without waiting for what
// is left of the body.
func hangUp(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // where that can be done
}

func (h *handler) refuse(w http.ResponseWriter, why rejection, a *answer) {
	h.service.metrics.rejected.WithLabelValues(string(why)).Inc()
	a.write(w)
}

// recover answers for a panic. The log gets its type and where it was: its
// value may hold something of the callback.
func (h *handler) recover(w http.ResponseWriter) {
	v := recover()
	if v == nil {
		return
	}
	h.service.logger.Error("panic while receiving a callback", "type", fmt.Sprintf("%T", v), "at", panicSite())
	answerInternal.write(w)
}

// panicSite returns the function and line that panicked, for a deferred
// function to ask.
func panicSite() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	panicked := false
	for {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panicked && !inRuntime {
			return fmt.Sprintf("%s:%d", frame.Function, frame.Line)
		}
		panicked = panicked || frame.Function == "runtime.gopanic"
		if !more {
			return "unknown"
		}
	}
}
