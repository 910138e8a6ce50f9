package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

// requestIDHeader carries the id that ties an answer to the lines of our log:
// the client's own, if it sent one, else a random one.
const requestIDHeader = "x-request-id"

// A call is what interceptors know of a request.
type call struct {
	method    string // full name, one of those that are registered
	streaming bool
	requestID string
}

// An interceptor runs around a call, unary or streaming alike.
type interceptor struct {
	name string
	wrap func(ctx context.Context, c call, next func(context.Context) error) error
}

// interceptors is the order in which calls go through, outermost first. The
// metrics come before the status so that they see what the client sees; the log
// comes after it so that it sees the cause; and the recovery comes last so that
// a panic is counted and logged like any other error.
func interceptors(logger *slog.Logger, m *requestMetrics, draining <-chan struct{}) chain {
	return chain{
		{"metrics", m.around},
		{"status", clientStatus},
		{"log", requestLog{logger}.around},
		{"drain", drainForeign(draining)},
		{"recovery", recovery},
	}
}

// A chain is interceptors in order, outermost first.
type chain []interceptor

func (ch chain) run(ctx context.Context, c call, handle func(context.Context) error) error {
	if len(ch) == 0 {
		return handle(ctx)
	}
	return ch[0].wrap(ctx, c, func(ctx context.Context) error { return ch[1:].run(ctx, c, handle) })
}

// unary is the chain as gRPC wants it for calls with one response.
func (ch chain) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	c := call{method: info.FullMethod, requestID: requestID(ctx)}
	if err := grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, c.requestID)); err != nil {
		return nil, err
	}
	err = ch.run(ctx, c, func(ctx context.Context) error {
		res, err = handler(ctx, req)
		return err
	})
	return res, err
}

// stream is the chain as gRPC wants it for streams. The request id is in the
// trailer, because a stream that is refused must not begin with a header: the
// HTTP API could not answer with a status any more.
func (ch chain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := call{method: info.FullMethod, streaming: true, requestID: requestID(ss.Context())}
	ss.SetTrailer(metadata.Pairs(requestIDHeader, c.requestID))
	return ch.run(ss.Context(), c, func(ctx context.Context) error {
		return handler(srv, &serverStream{ServerStream: ss, ctx: ctx})
	})
}

// serverStream is a stream with the context that the interceptors made.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // the stream's own, as grpc.ServerStream has it
}

func (s *serverStream) Context() context.Context { return s.ctx }

// maxRequestID bounds what a client can write into the log.
const maxRequestID = 64

// requestID returns the client's id when it is short and printable, else a new
// one.
func requestID(ctx context.Context) string {
	if ids := metadata.ValueFromIncomingContext(ctx, requestIDHeader); len(ids) > 0 && printable(ids[0]) {
		return ids[0]
	}
	return rand.Text()
}

func printable(id string) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return id != "" && len(id) <= maxRequestID
}

// clientStatus makes the error what a client should see. An INTERNAL one holds
// the request id, so that whoever gets it can tell the operator what to look
// for.
func clientStatus(ctx context.Context, c call, next func(context.Context) error) error {
	err := apierror.Status(next(ctx))
	if s := status.Convert(err); s.Code() == codes.Internal {
		if with, detailsErr := s.WithDetails(&errdetails.RequestInfo{RequestId: c.requestID}); detailsErr == nil {
			return with.Err()
		}
	}
	return err
}

// requestLog logs calls. The text of an error is logged only when the fault is
// ours: a client's mistake may quote chat content, in a filter for example.
type requestLog struct{ logger *slog.Logger }

func (l requestLog) around(ctx context.Context, c call, next func(context.Context) error) error {
	logger := l.logger.With("method", c.method, "request_id", c.requestID)
	if p, ok := peer.FromContext(ctx); ok {
		logger = logger.With("peer", p.Addr.String())
	}
	start := time.Now()
	err := next(ctx)
	code := status.Code(apierror.Status(err))
	level := slog.LevelDebug
	attrs := []slog.Attr{slog.String("code", code.String()), slog.Duration("duration", time.Since(start))}
	if code == codes.Internal || code == codes.Unknown || code == codes.DataLoss {
		level = slog.LevelError
		attrs = append(attrs, slog.String("err", err.Error())) // what the storage says would print its stack
		if p := (*panicError)(nil); errors.As(err, &p) {
			attrs = append(attrs, slog.String("stack", string(p.stack)))
		}
	}
	logger.LogAttrs(ctx, level, "request", attrs...)
	return err
}

// drainForeign ends the streams of gRPC's own services, health and reflection,
// when the drain begins: they wait for their client, who may stay for ever. Our
// own streams know about the drain.
func drainForeign(draining <-chan struct{}) func(context.Context, call, func(context.Context) error) error {
	return func(ctx context.Context, c call, next func(context.Context) error) error {
		if !c.streaming || !strings.HasPrefix(c.method, "/grpc.") {
			return next(ctx)
		}
		done := make(chan error, 1) // one place: the handler ends after we have, because we have
		go func() { done <- next(ctx) }()
		select {
		case err := <-done:
			return err
		case <-draining:
			return apierror.Draining()
		}
	}
}

// recovery turns a panic into an error.
func recovery(ctx context.Context, _ call, next func(context.Context) error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = newPanicError(value)
		}
	}()
	return next(ctx)
}

// A panicError is a panic that was recovered.
type panicError struct {
	what  string
	stack []byte
}

// newPanicError describes a panic without its value, which may hold a body;
// only what the runtime itself says is known to be harmless.
func newPanicError(value any) *panicError {
	e := &panicError{what: fmt.Sprintf("%T", value), stack: debug.Stack()}
	if own, ok := value.(runtime.Error); ok {
		e.what = own.Error()
	}
	return e
}

func (e *panicError) Error() string { return "panic: " + e.what }

// requestMetrics counts calls. Methods that do not exist never get here, so a
// client cannot make up labels.
type requestMetrics struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	open     *prometheus.GaugeVec
}

func newRequestMetrics(r prometheus.Registerer) (*requestMetrics, error) {
	m := &requestMetrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_server_requests_total",
			Help: "Calls of the gRPC and HTTP APIs that ended, by method and canonical code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sluice_server_request_duration_seconds",
			Help:    "How long calls with one response took, by method.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // 0.5 ms to 4 s
		}, []string{"method"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_server_requests_open",
			Help: "Calls of the gRPC and HTTP APIs that run now, streams among them, by method.",
		}, []string{"method"}),
	}
	return m, eventlog.Register(r, m.total, m.duration, m.open)
}

func (m *requestMetrics) around(ctx context.Context, c call, next func(context.Context) error) error {
	open := m.open.WithLabelValues(c.method)
	open.Inc()
	defer open.Dec()
	start := time.Now()
	err := next(ctx)
	if !c.streaming {
		m.duration.WithLabelValues(c.method).Observe(time.Since(start).Seconds())
	}
	m.total.WithLabelValues(c.method, status.Code(err).String()).Inc()
	return err
}
