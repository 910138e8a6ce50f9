// Package servertest runs the production server in a test: the real log in a
// temporary directory, the real listeners on free ports of the loopback
// address.
package servertest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluicegate/sluice/server"
)

// An Option changes the configuration that Start runs with.
type Option func(*server.Config)

// With returns an Option that edits the configuration.
func With(edit func(*server.Config)) Option { return edit }

// A Server is a running gateway. Its methods are for the test's own goroutine,
// but for the addresses, which are safe anywhere while nobody stops or restarts
// it.
type Server struct {
	// Config is what Start and Restart run. The addresses are the ones in use.
	// Change it between Stop and Restart.
	Config server.Config

	t       testing.TB
	stop    context.CancelFunc // nil while stopped
	stopped chan error         // what Run returned
	conn    *grpc.ClientConn
	client  *http.Client
}

// Start runs a gateway until the test ends. Without options it is what
// "sluice serve" runs in an empty directory: one open source. The test fails if
// the gateway does, or if it does not stop cleanly.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.MinFree = 0 // whatever the machine has left
	for _, addr := range []*string{&cfg.CallbackAddr, &cfg.GRPCAddr, &cfg.HTTPAddr} {
		*addr = "127.0.0.1:0"
	}
	for _, edit := range options {
		edit(&cfg)
	}
	s := &Server{Config: cfg, t: t, client: &http.Client{Transport: &http.Transport{}}}
	s.start()
	conn, err := grpc.NewClient(s.Config.GRPCAddr,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatalf("grpc.NewClient(%q) = %v", s.Config.GRPCAddr, err)
	}
	s.conn = conn
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close the connection: %v", err)
		}
		s.Stop()
	})
	return s
}

func (s *Server) start() {
	s.t.Helper()
	logger := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	// The context is not the test's, which ends before its clean-ups run.
	ctx, stop := context.WithCancel(context.WithoutCancel(s.t.Context()))
	srv, err := server.New(ctx, s.Config, logger)
	if err != nil {
		stop()
		s.t.Fatalf("server.New() = %v", err)
	}
	s.Config.CallbackAddr = srv.CallbackAddr()
	s.Config.GRPCAddr = srv.GRPCAddr()
	s.Config.HTTPAddr = srv.HTTPAddr()
	s.stop = stop
	s.stopped = make(chan error, 1)
	go func() { s.stopped <- srv.Run(ctx) }()
}

// Stop drains the gateway, waits for it and fails the test if that was not
// clean. It does nothing when the gateway is stopped.
func (s *Server) Stop() {
	s.t.Helper()
	if s.stop == nil {
		return
	}
	s.client.CloseIdleConnections()
	s.stop()
	s.stop = nil
	if err := <-s.stopped; err != nil {
		s.t.Errorf("server.Run() = %v, want a clean drain", err)
	}
}

// Restart stops the gateway, if it runs, and starts it again with the same data
// and the same addresses.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.start()
}

// Conn returns a connection to the gRPC API. It reconnects after Restart.
func (s *Server) Conn() *grpc.ClientConn { return s.conn }

// GRPCAddr returns the address of the gRPC API, as host:port.
func (s *Server) GRPCAddr() string { return s.Config.GRPCAddr }

// CallbackURL returns the URL that callbacks are posted to, without a slash at
// its end.
func (s *Server) CallbackURL() string { return "http://" + s.Config.CallbackAddr }

// HTTPURL returns the URL of the HTTP API, without a slash at its end.
func (s *Server) HTTPURL() string { return "http://" + s.Config.HTTPAddr }

// Post posts a callback to path, such as "/message", and returns what the
// vendor gets.
func (s *Server) Post(path, body string) (status int, answer string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.CallbackURL()+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatalf("POST %s: %v", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatalf("POST %s: %v", path, err)
	}
	text, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		s.t.Fatalf("POST %s: %v", path, err)
	}
	return res.StatusCode, string(text)
}

// MustPost is Post of a callback that must be accepted.
func (s *Server) MustPost(path, body string) {
	s.t.Helper()
	if status, answer := s.Post(path, body); status != http.StatusOK {
		s.t.Fatalf("POST %s = %d %s, want 200", path, status, answer)
	}
}
