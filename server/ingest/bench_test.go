package ingest

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

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

// The whole path of a callback but for the HTTP server, onto a real log.
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
	service, err := New(Config{Sources: []Source{{Name: "acme", Path: "/hook-7f3a", Tokens: []Secret{secret(b, token)}}}}, events, events)
	if err != nil {
		b.Fatal(err)
	}
	h, err := NewHandler(service)
	if err != nil {
		b.Fatal(err)
	}
	// A template of 0.8 KiB, in which each request has an id of its own.
	template := []byte(corpus(b, "e07-retry-identical"))
	var last atomic.Uint64
	cores := runtime.GOMAXPROCS(0) // RunParallel starts a multiple of it
	for _, parallel := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", parallel*cores), func(b *testing.B) {
			b.SetBytes(int64(len(template)))
			b.ReportAllocs()
			b.SetParallelism(parallel)
			b.RunParallel(func(pb *testing.PB) {
				header := http.Header{"Content-Type": {"application/json"}}
				for pb.Next() {
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
						return
					}
				}
			})
		})
	}
}
