package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/subscription"
)

// A memory is an engine whose logs lose what a test wants them to lose.
type memory struct {
	metrics *eventlog.Metrics
	epoch   string

	mu   sync.Mutex
	logs map[string]*memoryLog
}

func newMemory(t *testing.T) *memory {
	t.Helper()
	metrics, err := eventlog.NewMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &memory{metrics: metrics, epoch: "0123456789abcdef", logs: map[string]*memoryLog{}}
}

func (m *memory) Log(_ context.Context, cfg eventlog.LogConfig) (*eventlog.Log, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.logs[cfg.Name]
	if l == nil {
		l = &memoryLog{name: cfg.Name, first: 1, damaged: map[uint64]bool{}}
		m.logs[cfg.Name] = l
	}
	if l.log == nil {
		l.log = eventlog.NewLog(cfg, m.epoch, l.last(), l, eventlog.Options{Metrics: m.metrics, Logger: slog.New(slog.DiscardHandler)})
	}
	return l.log, nil
}

// get returns the log of that name.
func (m *memory) get(name string) *memoryLog {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[name]
}

// reopen has logs be opened anew, as of an epoch.
func (m *memory) reopen(epoch string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch = epoch
	for _, l := range m.logs {
		if l.log != nil {
			l.log.Close()
		}
		l.log = nil
	}
}

func (m *memory) Remove(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.logs[name]; l != nil && l.log != nil {
		l.log.Close()
	}
	delete(m.logs, name)
	return nil
}

func (*memory) Err() error                  { return nil }
func (*memory) Failed() <-chan struct{}     { return nil }
func (*memory) Close(context.Context) error { return nil }

// A memoryLog is one of its logs.
type memoryLog struct {
	name string

	mu      sync.Mutex
	log     *eventlog.Log
	records []eventlog.Record // from sequence 1 on; one without a subject was removed
	first   uint64
	damaged map[uint64]bool
	down    bool
	flaky   int // each so many appends one fails, and may be stored; 0 is none does
	appends int
}

func (l *memoryLog) last() uint64 { return uint64(len(l.records)) }

// edit changes what the log has, and forgets what is cached of it.
func (l *memoryLog) edit(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	if l.log != nil {
		l.log.Forget()
	}
}

// damage makes records unreadable.
func (l *memoryLog) damage(first, last uint64) {
	l.edit(func() {
		for n := first; n <= last; n++ {
			l.damaged[n] = true
		}
	})
}

func (l *memoryLog) repair() { l.edit(func() { clear(l.damaged) }) }

func (l *memoryLog) setDown(down bool) { l.edit(func() { l.down = down }) }

func (l *memoryLog) Append(_ context.Context, r eventlog.Record) (eventlog.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.last() + 1
	if r.Sequence != 0 && r.Sequence != next {
		return eventlog.Appended{}, eventlog.ErrConflict
	}
	l.appends++
	fails := l.flaky > 0 && l.appends%l.flaky == 0
	if fails && l.appends/l.flaky%2 == 0 {
		return eventlog.Appended{}, eventlog.ErrUnavailable
	}
	r.Sequence, r.Time = next, time.Now()
	l.records = append(l.records, r)
	l.log.Advance([]eventlog.Record{r}, next)
	if fails {
		return eventlog.Appended{}, eventlog.ErrUnavailable
	}
	return eventlog.Appended{Sequence: next}, nil
}

func (l *memoryLog) Fetch(_ context.Context, from, to uint64, limit int) ([]eventlog.Record, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.down:
		return nil, 0, eventlog.ErrUnavailable
	case from < l.first:
		return nil, 0, &eventlog.TruncatedError{Asked: from, First: l.first}
	case l.damaged[from]:
		last := from
		for last < to && l.damaged[last+1] {
			last++
		}
		return nil, 0, &eventlog.DamagedError{Log: l.name, First: from, Last: last, Err: errors.New("checksum mismatch")}
	}
	var out []eventlog.Record
	through := from - 1
	for through < to && len(out) < limit && !l.damaged[through+1] {
		through++
		if r := l.records[through-1]; r.Subject != "" {
			out = append(out, r)
		}
	}
	return out, through, nil
}

func (l *memoryLog) ReadKey(context.Context, string, uint64, int, bool) ([]eventlog.Record, error) {
	return nil, errors.ErrUnsupported
}

func (l *memoryLog) SequenceAt(context.Context, time.Time) (uint64, error) {
	return 0, errors.ErrUnsupported
}

func (l *memoryLog) Delete(_ context.Context, sequence uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[sequence-1] = eventlog.Record{}
	return nil
}

func (l *memoryLog) Trim(_ context.Context, sequence uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = max(l.first, sequence)
	return nil
}

func (l *memoryLog) End(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return 0, eventlog.ErrUnavailable
	}
	return l.last(), nil
}

func (l *memoryLog) State() eventlog.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return eventlog.State{First: l.first, Last: l.last(), Count: l.last() + 1 - l.first}
}

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

// A fragile is a Service over a memory.
type fragile struct {
	*Service

	t       *testing.T
	memory  *memory
	log     lines
	metrics *prometheus.Registry
}

func openFragile(t *testing.T) *fragile {
	t.Helper()
	f := &fragile{t: t, memory: newMemory(t)}
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// open makes and starts the service.
func (f *fragile) open() error {
	f.t.Helper()
	events, err := f.memory.Log(f.t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		return err
	}
	positions, err := subscription.New(subscription.Config{Log: events})
	if err != nil {
		return err
	}
	f.metrics = prometheus.NewRegistry()
	s, err := New(f.t.Context(), Config{
		Engine: f.memory, Events: events, Positions: positions,
		Logger: slog.New(slog.NewTextHandler(&f.log, nil)), Registerer: f.metrics,
	})
	if err != nil {
		return err
	}
	f.Service = s
	s.Start()
	return nil
}

// restart closes the service, has the storage change, and opens it again.
func (f *fragile) restart(epoch string, change func()) {
	f.t.Helper()
	f.Close()
	f.memory.reopen(epoch)
	change()
	if err := f.open(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fragile) eventsLog() *memoryLog { return f.memory.get("EVENTS") }

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

func (*memory) Logs(context.Context) ([]string, error) { return nil, nil }
