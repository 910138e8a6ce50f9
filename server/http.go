package server

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluicegate/sluice"
)

// limits bound what clients of an HTTP listener can hold on to.
type limits struct {
	header, body, answer, idle time.Duration

	// callbackConns is how many connections the callback listener has at a time.
	// It is more than the requests that the handler takes, beyond which it answers
	// 503: who comes when there are that many connections waits to be accepted, at
	// most as long as the other limits let an idle or slow one stay.
	callbackConns int
}

func defaultLimits() limits {
	return limits{
		header: 5 * time.Second, body: 10 * time.Second, answer: 10 * time.Second, idle: time.Minute,
		callbackConns: 4096,
	}
}

const (
	// maxHTTPHeader bounds a request's header, and maxMetadata that of a call.
	maxHTTPHeader = 16 << 10 // 16 KiB
	maxMetadata   = 16 << 10

	// maxAPIRequest bounds a request's body on the HTTP API, and what gRPC
	// takes unless callbacks need more.
	maxAPIRequest = 4 << 20 // 4 MiB
)

// newCallbackHTTP returns the server of the callback listener.
func newCallbackHTTP(l limits, logger *slog.Logger, callbacks http.Handler) *http.Server {
	return &http.Server{
		Handler:           callbacks,
		ReadHeaderTimeout: l.header,
		ReadTimeout:       l.body,
		WriteTimeout:      l.answer,
		IdleTimeout:       l.idle,
		MaxHeaderBytes:    maxHTTPHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// newAPIHTTP returns the server of the HTTP API. It has no timeouts for body
// and answer, because they would end streams; bodyLimits bounds the body.
func newAPIHTTP(l limits, logger *slog.Logger, api http.Handler) *http.Server {
	return &http.Server{
		Handler:           recovered(logger, bodyLimits(l.body, api)),
		ReadHeaderTimeout: l.header,
		IdleTimeout:       l.idle,
		MaxHeaderBytes:    maxHTTPHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// recovered answers 500 when a handler panics. net/http would log the panic's
// value, which may hold a body.
func recovered(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			value := recover()
			if value == nil {
				return
			}
			if value == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http compares it so, too
				panic(value) //nolint:forbidigo // this one means: close the connection
			}
			err := newPanicError(value)
			logger.Error("request", "err", err, "stack", string(err.stack))
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// bodyLimits reads the body before next runs, in bounded time and size.
func bodyLimits(timeout time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		conn := http.NewResponseController(w)
		if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAPIRequest))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, "the body is too slow or cut off", http.StatusBadRequest)
			return
		}
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			return // the connection is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// apiHandler returns what the HTTP listener serves.
func (s *Server) apiHandler(gateway http.Handler, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/", gateway)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /openapi.json", serveOpenAPI)
	mux.HandleFunc("GET /{$}", serveIndex)
	if s.cfg.PProf {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(sluice.OpenAPI)
}

// index is the page of somebody who opens the address in a browser.
const index = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Sluice</title>
<h1>Sluice</h1>
<ul>
<li><a href="v1/events?newest_first=true">newest events</a>
<li><a href="v1/events:subscribe">events as they come</a>
<li><a href="openapi.json">the API, as OpenAPI</a>
<li><a href="readyz">ready?</a>
<li><a href="metrics">metrics</a>
</ul>
</html>
`

func serveIndex(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, index)
}
