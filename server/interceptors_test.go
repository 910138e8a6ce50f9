package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

// chatContent stands for what must never be in a log or an answer.
const chatContent = "a secret between two people"

// faulty is an EventService whose calls do what fault does.
type faulty struct {
	sluicev1.UnimplementedEventServiceServer
	fault func() error
}

func (f faulty) GetEvent(context.Context, *sluicev1.GetEventRequest) (*sluicev1.GetEventResponse, error) {
	return &sluicev1.GetEventResponse{}, f.fault()
}

func (f faulty) Subscribe(_ *sluicev1.SubscribeRequest, _ grpc.ServerStreamingServer[sluicev1.SubscribeResponse]) error {
	return f.fault()
}

// serveFaulty serves fault behind the chain, in memory.
func serveFaulty(t *testing.T, ch chain, fault func() error) sluicev1.EventServiceClient {
	t.Helper()
	listener := bufconn.Listen(memoryBuffer)
	srv := newGRPC(1<<20, ch, services{events: faulty{fault: fault}})
	served := make(chan error, 1)
	go func() { served <- serveGRPC(srv, listener) }()
	conn, err := dialMemory(listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return sluicev1.NewEventServiceClient(conn)
}

// calls make a unary call and open a stream; both return the request
// id and the error.
var calls = map[string]func(context.Context, sluicev1.EventServiceClient) (string, error){
	"/sluice.v1.EventService/GetEvent": func(ctx context.Context, c sluicev1.EventServiceClient) (string, error) {
		var header metadata.MD
		_, err := c.GetEvent(ctx, &sluicev1.GetEventRequest{}, grpc.Header(&header))
		return strings.Join(header.Get(requestIDHeader), ","), err
	},
	"/sluice.v1.EventService/Subscribe": func(ctx context.Context, c sluicev1.EventServiceClient) (string, error) {
		stream, err := c.Subscribe(ctx, &sluicev1.SubscribeRequest{})
		if err != nil {
			return "", err
		}
		_, err = stream.Recv()
		return strings.Join(stream.Trailer().Get(requestIDHeader), ","), err
	},
}

// TestInterceptorOrder holds that unary calls and streams go through the same
// interceptors in the same order, and that it is the order that is meant.
func TestInterceptorOrder(t *testing.T) {
	requests, err := newRequestMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	var spied chain
	for _, r := range interceptors(slog.New(slog.DiscardHandler), requests, nil) {
		spied = append(spied, interceptor{r.name, func(ctx context.Context, c call, next func(context.Context) error) error {
			order = append(order, r.name)
			return r.wrap(ctx, c, next)
		}})
	}
	client := serveFaulty(t, spied, func() error { return errors.New("any") })
	want := []string{"metrics", "status", "log", "drain", "recovery"}
	for method, call := range calls {
		order = nil
		_, _ = call(t.Context(), client)
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("%s goes through other interceptors (-want +got):\n%s", method, diff)
		}
	}
}

func TestFaults(t *testing.T) {
	tests := map[string]struct {
		fault   func() error
		code    codes.Code
		level   string
		log     []string // what the log holds
		message string   // what the client sees; "" is not checked
	}{
		"panic": {
			fault: func() error { panic(chatContent) },
			code:  codes.Internal, level: "ERROR", log: []string{`err="panic: string"`, "interceptors_test.go"}, message: "internal error",
		},
		"runtime error": {
			fault: func() error { return []error{}[len(calls)] },
			code:  codes.Internal, level: "ERROR", log: []string{"index out of range [2] with length 0"}, message: "internal error",
		},
		"unknown error": {
			fault: func() error { return errors.New("open /var/lib/sluice: no space") },
			code:  codes.Internal, level: "ERROR", log: []string{"open /var/lib/sluice"}, message: "internal error",
		},
		"client's fault": {
			fault: func() error { return apierror.InvalidField("filter.expression", "%q is no expression", chatContent) },
			code:  codes.InvalidArgument, level: "DEBUG",
		},
		"log unavailable": {
			fault: func() error { return eventlog.ErrUnavailable },
			code:  codes.Unavailable, level: "DEBUG", // the health watch has said so, once
		},
		"client left": {
			fault: func() error { return context.Canceled },
			code:  codes.Canceled, level: "DEBUG",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for method, call := range calls {
				registry := prometheus.NewRegistry()
				requests, err := newRequestMetrics(registry)
				if err != nil {
					t.Fatal(err)
				}
				var logged bytes.Buffer
				logger := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
				client := serveFaulty(t, interceptors(logger, requests, nil), tt.fault)

				// Twice: the process outlives it.
				for range 2 {
					logged.Reset()
					id, err := call(t.Context(), client)
					if got := status.Code(err); got != tt.code {
						t.Fatalf("%s = %v, want %v", method, err, tt.code)
					}
					if tt.message != "" && status.Convert(err).Message() != tt.message {
						t.Errorf("%s says %q, want %q", method, status.Convert(err).Message(), tt.message)
					}
					if id == "" || !strings.Contains(logged.String(), "request_id="+id) {
						t.Errorf("%s: request id %q is not in the log:\n%s", method, id, logged.String())
					}
					if tt.code == codes.Internal && !slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool {
						info, ok := d.(*errdetails.RequestInfo)
						return ok && info.GetRequestId() == id
					}) {
						t.Errorf("%s: details %v, want the request id %s", method, status.Convert(err).Details(), id)
					}
					for _, want := range append(tt.log, "level="+tt.level, "code="+tt.code.String(), "method="+method) {
						if !strings.Contains(logged.String(), want) {
							t.Errorf("%s: the log holds no %q:\n%s", method, want, logged.String())
						}
					}
					if strings.Contains(logged.String(), chatContent) {
						t.Errorf("%s: the log holds chat content:\n%s", method, logged.String())
					}
				}
				if got := testutil.ToFloat64(requests.total.WithLabelValues(method, tt.code.String())); got != 2 {
					t.Errorf("%s: %v requests with code %v, want 2", method, got, tt.code)
				}
				if got := testutil.ToFloat64(requests.open.WithLabelValues(method)); got != 0 {
					t.Errorf("%s: %v requests open, want 0", method, got)
				}
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	requests, err := newRequestMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	client := serveFaulty(t, interceptors(slog.New(slog.DiscardHandler), requests, nil), func() error { return nil })
	tests := map[string]struct {
		sent string
		kept bool
	}{
		"its own":   {sent: "trace-1/ok", kept: true},
		"too long":  {sent: strings.Repeat("x", maxRequestID+1)},
		"forgeries": {sent: "a level=ERROR"},
		"empty":     {sent: ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for method, call := range calls {
				ctx := metadata.AppendToOutgoingContext(t.Context(), requestIDHeader, tt.sent)
				got, _ := call(ctx, client)
				if (got == tt.sent) != tt.kept || got == "" {
					t.Errorf("%s: request id %q for %q, want it kept: %v", method, got, tt.sent, tt.kept)
				}
			}
		})
	}
}
