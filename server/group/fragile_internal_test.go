package group

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/eventlogtest"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/subscription"
)

// A lines is what was logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// count returns how many lines hold all of the parts.
func (l *lines) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.text.String()) {
		has := true
		for _, part := range parts {
			has = has && strings.Contains(line, part)
		}
		if has {
			n++
		}
	}
	return n
}

// A fragile is a Service over a local engine that fails as a test says.
type fragile struct {
	*Service

	t       *testing.T
	config  local.Config         // of the engine
	apart   local.Config         // of that of the log of events alone, when it has a directory of its own
	faults  *eventlogtest.Faults // over the engine
	engines []eventlog.Engine    // to be closed
	stored  *eventlog.Log        // the log of events
	log     lines
	metrics *prometheus.Registry
}

const eventsLog = "EVENTS"

func openFragile(t *testing.T) *fragile {
	t.Helper()
	f := &fragile{t: t, config: local.Config{Dir: t.TempDir()}, faults: eventlogtest.Break(nil)}
	f.openLogs()
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.stop)
	return f
}

// openLogs opens the storage.
func (f *fragile) openLogs() {
	f.t.Helper()
	f.faults.Over(f.openEngine(f.config))
	f.engines = []eventlog.Engine{f.faults}
	events := eventlog.Engine(f.faults)
	if f.apart.Dir != "" {
		events = f.openEngine(f.apart)
		f.engines = append(f.engines, events)
	}
	f.stored = f.logOf(events, eventsLog)
}

func (f *fragile) openEngine(cfg local.Config) *local.Engine {
	f.t.Helper()
	e, err := local.Open(f.t.Context(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return e
}

func (f *fragile) logOf(engine eventlog.Engine, name string) *eventlog.Log {
	f.t.Helper()
	l, err := engine.Log(f.t.Context(), eventlog.LogConfig{Name: name, Deletes: name != eventsLog})
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

// append stores a record in a log of the groups.
func (f *fragile) append(log string, r eventlog.Record) {
	f.t.Helper()
	if _, err := f.logOf(f.faults, log).Append(f.t.Context(), r); err != nil {
		f.t.Fatal(err)
	}
}

// open makes and starts the service.
func (f *fragile) open() error {
	f.t.Helper()
	positions, err := subscription.New(subscription.Config{Log: f.stored})
	if err != nil {
		return err
	}
	f.metrics = prometheus.NewRegistry()
	s, err := New(f.t.Context(), Config{
		Engine: f.faults, Events: f.stored, Positions: positions,
		Logger: slog.New(slog.NewTextHandler(&f.log, nil)), Registerer: f.metrics,
	})
	if err != nil {
		return err
	}
	f.Service = s
	s.Start()
	return nil
}

// stop closes the service and its storage.
func (f *fragile) stop() {
	f.t.Helper()
	f.Close()
	for _, e := range f.engines {
		if err := e.Close(context.Background()); err != nil {
			f.t.Error(err)
		}
	}
	f.engines = nil
}

// restart closes the service and its storage, and opens them again. Before the
// service is opened, the storage changes.
func (f *fragile) restart(change ...func()) {
	f.t.Helper()
	f.stop()
	f.openLogs()
	for _, change := range change {
		change()
	}
	if err := f.open(); err != nil {
		f.t.Fatal(err)
	}
}

// backup stops the service, and returns a copy of its directory.
func (f *fragile) backup() (dir string) {
	f.t.Helper()
	f.stop()
	dir = f.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(f.config.Dir)); err != nil {
		f.t.Fatal(err)
	}
	return dir
}

// damage makes events unreadable.
func (f *fragile) damage(first, last uint64) {
	f.faults.Set(eventsLog, eventlogtest.Fault{First: first, Last: last})
}

// setDown has no event be readable.
func (f *fragile) setDown(down bool) { f.faults.Set(eventsLog, eventlogtest.Fault{Down: down}) }

// repair makes all events readable.
func (f *fragile) repair() { f.faults.Set(eventsLog, eventlogtest.Fault{}) }

// forget empties the shelf, so that events are read again.
func (f *fragile) forget() {
	f.shelf.mu.Lock()
	defer f.shelf.mu.Unlock()
	f.shelf.records, f.shelf.order, f.shelf.bytes = map[uint64]eventlog.Record{}, nil, 0
}

// metric returns the value of a metric of the group "w"; "" when there is none.
func (f *fragile) metric(name string) string {
	f.t.Helper()
	families, err := f.metrics.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == "w" {
				return fmt.Sprint(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	return ""
}
