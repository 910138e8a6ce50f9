package server_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/servertest"
	"github.com/sluicegate/sluice/server/servertest/damage"
)

func TestPortInUse(t *testing.T) {
	taken := servertest.Start(t).Config.HTTPAddr
	good := testConfig(t)
	srv := run(t, good)
	good.CallbackAddr, good.GRPCAddr, good.HTTPAddr = srv.CallbackAddr(), srv.GRPCAddr(), srv.HTTPAddr()
	srv.stop(nil)
	for flag, edit := range map[string]func(*server.Config){
		"--callback-addr": func(c *server.Config) { c.CallbackAddr = taken },
		"--grpc-addr":     func(c *server.Config) { c.GRPCAddr = taken },
		"--http-addr":     func(c *server.Config) { c.HTTPAddr = taken },
	} {
		cfg := good
		edit(&cfg)
		_, err := server.New(t.Context(), cfg, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), flag+" "+taken) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("New() = %v, want it to name %s and %s", err, flag, taken)
		}
		run(t, good).stop(nil) // log and listeners were closed again
	}
}

// TestDataLoss holds that a log that has lost events stops the start, and that
// the error says what to do.
func TestDataLoss(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/message", callback)
	srv.Stop()
	damage.Lose(t, srv.Config.DataDir)
	_, err := server.New(t.Context(), srv.Config, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "--accept-data-loss") || !server.IsDataLoss(err) {
		t.Fatalf("New() = %v, want it to name --accept-data-loss", err)
	}
	srv.Config.AcceptDataLoss = true
	srv.Restart()
}

// TestOldLayout holds that a directory of the earlier layout is refused in one
// sentence.
func TestOldLayout(t *testing.T) {
	cfg := testConfig(t)
	if err := os.Mkdir(filepath.Join(cfg.DataDir, "jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := server.New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), cfg.DataDir) {
		t.Errorf("New() = %v, want one line that names the directory", err)
	}
}

func TestBadConfig(t *testing.T) {
	if _, err := server.New(t.Context(), server.Config{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("New(Config{}) = nil, want an error")
	}
}

// testConfig is what servertest runs.
func testConfig(t *testing.T) server.Config {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.MinFree = 0
	cfg.CallbackAddr, cfg.GRPCAddr, cfg.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return cfg
}

// A running is a server whose end a test looks at.
type running struct {
	*server.Server
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func run(t *testing.T, cfg server.Config) running {
	t.Helper()
	return runLogged(t, cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

func runLogged(t *testing.T, cfg server.Config, logger *slog.Logger) running {
	t.Helper()
	// The context is not the test's, which ends before its clean-ups run.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	srv, err := server.New(ctx, cfg, logger)
	if err != nil {
		cancel()
		t.Fatalf("New() = %v", err)
	}
	r := running{srv, t, cancel, make(chan error, 1)}
	go func() { r.ended <- srv.Run(ctx) }()
	return r
}

// stop stops the server and compares what Run returns: nil, or an error that
// holds each of want.
func (r running) stop(want []string) {
	r.t.Helper()
	r.cancel()
	r.wait(want)
}

func (r running) wait(want []string) {
	r.t.Helper()
	var err error
	select {
	case err = <-r.ended:
	case <-time.After(patience):
		r.t.Fatal("Run() has not returned")
	}
	if want == nil && err != nil {
		r.t.Errorf("Run() = %v, want nil", err)
	}
	for _, part := range want {
		if err == nil || !strings.Contains(err.Error(), part) {
			r.t.Errorf("Run() = %v, want it to hold %q", err, part)
		}
	}
}

// TestPartFails holds that the server does not run on with a part missing.
func TestPartFails(t *testing.T) {
	srv := run(t, testConfig(t))
	if err := srv.CallbackListener().Close(); err != nil {
		t.Fatal(err)
	}
	srv.wait([]string{"callbacks: ", "use of closed network connection"})
	srv.cancel()
}

// TestRunEnded holds that Run with a context that has ended closes what New
// opened.
func TestRunEnded(t *testing.T) {
	cfg := testConfig(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		srv, err := server.New(ctx, cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("New() = %v", err)
		}
		cancel()
		if err := srv.Run(ctx); err != nil {
			t.Fatalf("Run() = %v", err)
		}
		for _, addr := range []string{srv.CallbackAddr(), srv.GRPCAddr(), srv.HTTPAddr()} {
			if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr); err == nil {
				t.Errorf("%s still listens", addr)
				_ = conn.Close()
			}
		}
	}
}
