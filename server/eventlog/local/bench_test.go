package local

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

func benchLog(b *testing.B) *eventlog.Log {
	b.Helper()
	e, err := Open(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { closeEngine(b, e) })
	l, err := e.Log(b.Context(), eventlog.LogConfig{Name: "EVENTS", DedupeWindow: 24 * time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// benchAppend appends n records from so many callers at once.
func benchAppend(b *testing.B, l *eventlog.Log, callers, n int) {
	b.Helper()
	data := bytes.Repeat([]byte("0123456789abcde"), 100)
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := left.Add(-1); i >= 0; i = left.Add(-1) {
				r := eventlog.Record{Subject: "message.text", ID: fmt.Sprint("message-", i), Key: fmt.Sprint("chat-", i%1000), Data: data}
				if _, err := l.Append(b.Context(), r); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l := benchLog(b)
			b.SetBytes(1500)
			b.ReportAllocs()
			b.ResetTimer()
			benchAppend(b, l, callers, b.N)
		})
	}
}

// BenchmarkScan replays stored records, one an operation.
func BenchmarkScan(b *testing.B) {
	l := benchLog(b)
	benchAppend(b, l, 256, 20_000)
	b.SetBytes(1500)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		l.Forget()
		err := l.Scan(b.Context(), 1, l.Durable(), func(eventlog.Record) error {
			if left--; left <= 0 {
				return eventlog.ErrStop
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
