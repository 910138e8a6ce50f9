package eventlog

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
)

func benchLog(b *testing.B) *Log {
	b.Helper()
	e, err := Open(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close(b.Context()) })
	l, err := e.Log(b.Context(), LogConfig{Name: "EVENTS"})
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l := benchLog(b)
			data := bytes.Repeat([]byte("x"), 1024)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			b.SetParallelism((callers + 1) / 2)
			var id atomic.Uint64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := l.Append(b.Context(), Record{Subject: "s", ID: fmt.Sprint(id.Add(1)), Data: data}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, from := range []string{"storage", "tail"} {
		b.Run("from="+from, func(b *testing.B) {
			l := benchLog(b)
			data := bytes.Repeat([]byte("x"), 1024)
			const n = 5000
			done := make(chan error, n)
			for range n {
				go func() {
					_, err := l.Append(b.Context(), Record{Subject: "s", Data: data})
					done <- err
				}()
			}
			for range n {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			if from == "storage" {
				l.mu.Lock()
				l.tail = tail{}
				l.mu.Unlock()
			}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			r := l.Read(1)
			left := 0
			for b.Loop() {
				if left == 0 {
					if r.Position() == l.Durable() {
						r.Seek(1)
					}
					records, err := r.Next(b.Context(), maxFetch)
					if err != nil {
						b.Fatal(err)
					}
					left = len(records)
				}
				left--
			}
		})
	}
}
