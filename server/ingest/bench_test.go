package ingest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
)

// nobody is a ResponseWriter that keeps the status only.
type nobody struct {
	header http.Header
	status int
}

func (w *nobody) Header() http.Header         { return w.header }
func (w *nobody) WriteHeader(status int)      { w.status = status }
func (w *nobody) Write(p []byte) (int, error) { return len(p), nil }

// processorTime returns what the process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Nowhere is a log's store that keeps nothing.
type nowhere struct {
	eventlog.Store
	last atomic.Uint64
}

func (s *nowhere) Append(context.Context, eventlog.Record) (eventlog.Appended, error) {
	return eventlog.Appended{Sequence: s.last.Add(1)}, nil
}

// What the handler costs without the engine: all but the HTTP server and the
// append.
func BenchmarkHandlerAlone(b *testing.B) {
	metrics, err := eventlog.NewMetrics(nil)
	if err != nil {
		b.Fatal(err)
	}
	options := eventlog.Options{Metrics: metrics, Logger: slog.New(slog.DiscardHandler)}
	run := poster(b, eventlog.NewLog(eventlog.LogConfig{Name: "EVENTS"}, "00112233445566ff", 0, &nowhere{}, options))
	b.ReportAllocs()
	began := processorTime(b)
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op")
}

// The whole path of a callback but for the HTTP server, onto a real log.
// cpu-ns/op is processor time, in which waiting for the disk does not count.
func BenchmarkHandler(b *testing.B) {
	engine, err := local.Open(b.Context(), local.Config{Dir: b.TempDir(), MaxRecord: MaxRecord(defaultMaxBody)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := engine.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	events, err := engine.Log(b.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		b.Fatal(err)
	}
	run := poster(b, events)
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", parallel*runtime.GOMAXPROCS(0)), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(parallel) // times GOMAXPROCS
			began := processorTime(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					run()
				}
			})
			b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// poster returns a function that posts one callback of 0.8 KiB, with an id of its
// own. It is safe for concurrent use.
func poster(b *testing.B, events *eventlog.Log) func() {
	service, err := New(Config{Sources: []Source{{Name: "acme", Path: "/hook-7f3a", Tokens: []Secret{secret(b, token)}}}}, events, events)
	if err != nil {
		b.Fatal(err)
	}
	h, err := NewHandler(service)
	if err != nil {
		b.Fatal(err)
	}
	template := []byte(corpus(b, "e07-retry-identical"))
	header := http.Header{"Content-Type": {"application/json"}}
	var last atomic.Uint64
	return func() {
		id := strconv.FormatUint(1e15+last.Add(1), 10)
		body := bytes.Replace(template, []byte("2c0115f88983f63e"), []byte(id), 1)
		r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/hook-7f3a/message", bytes.NewReader(body))
		if err != nil {
			b.Error(err)
			return
		}
		r.Header = header
		w := nobody{header: make(http.Header)}
		if h.ServeHTTP(&w, r); w.status != 0 && w.status != http.StatusOK {
			b.Errorf("status = %d", w.status)
		}
	}
}
