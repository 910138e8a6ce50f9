package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/eventlogtest"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

func TestMain(m *testing.M) {
	natstest.Main()
	goleak.VerifyTestMain(m)
}

// TestContract runs the suite of both engines on one server.
func TestContract(t *testing.T) {
	nats := natstest.StartOne(t, nil)
	// nats-server removes the folder of all streams, in the background, after the
	// last is gone, and a stream made in that moment fails: one stays.
	openLog(t, openEngine(t, Config{URL: nats.URL, Replicas: 1}), eventlog.LogConfig{Name: "STAYS"})
	eventlogtest.Run(t, func(t testing.TB) eventlogtest.Harness {
		cfg := Config{URL: nats.URL, Replicas: 1, CommitTimeout: 10 * time.Second, MaxRecord: 256 << 10, Logger: testLogger(t)}
		e := openEngine(t, cfg)
		return eventlogtest.Harness{Engine: e, MaxRecord: e.MaxRecord(), Reopen: func() eventlog.Engine {
			closeEngine(t, e)
			e = openEngine(t, cfg)
			return e
		}}
	})
}

// TestNoServerIsLinked holds that the binary does not get the NATS server.
func TestNoServerIsLinked(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "nats-io/nats-server") {
		t.Error("the package depends on the NATS server")
	}
}

// A lines holds log lines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	t    testing.TB
	done bool
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func capture(t testing.TB) (*lines, *slog.Logger) {
	l := &lines{t: t}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.done = true
	})
	return l, slog.New(slog.NewTextHandler(l, nil))
}

func testLogger(t testing.TB) *slog.Logger {
	_, logger := capture(t)
	return logger
}

// openEngine opens an engine that is closed when the test ends.
func openEngine(t testing.TB, cfg Config) *Engine {
	t.Helper()
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

func closeEngine(t testing.TB, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func openLog(t testing.TB, e *Engine, cfg eventlog.LogConfig) *eventlog.Log {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "EVENTS"
	}
	l, err := e.Log(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Log: %v", err)
	}
	return l
}

func mustAppend(t testing.TB, l *eventlog.Log, id, data string) eventlog.Appended {
	t.Helper()
	a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: id, Data: []byte(data)})
	if err != nil {
		t.Fatalf("Append(%q): %v", data, err)
	}
	return a
}

// take reads n records and returns their data.
func take(t testing.TB, r *eventlog.Reader, n int) []string {
	t.Helper()
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(got) < n {
		records, err := r.Next(ctx, n-len(got))
		if err != nil {
			t.Fatalf("Next after %d of %d records: %v", len(got), n, err)
		}
		for _, rec := range records {
			got = append(got, string(rec.Data))
		}
	}
	return got
}

func wantData(t testing.TB, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("read %q, want %q", got, want)
	}
}

// until waits for a condition.
func until(t testing.TB, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !met(); {
		if time.Now().After(deadline) {
			t.Fatal("the condition was not met in time")
		}
		<-time.After(time.Millisecond)
	}
}
