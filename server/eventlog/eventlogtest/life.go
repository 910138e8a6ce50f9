package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

func testRemove(t *testing.T, h Harness) {
	cfg := eventlog.LogConfig{Name: newName(), DedupeWindow: time.Hour}
	kept := h.open(t, eventlog.LogConfig{})
	fill(t, kept, "kept")
	l := h.open(t, cfg)
	r := eventlog.Record{Subject: "s", Key: "k", ID: "a", Data: []byte("old")}
	store(t, l, r)
	waits := make(chan error, 1)
	go func() {
		_, err := l.Read(2).Next(context.Background(), 1)
		waits <- err
	}()
	for range 2 { // the second time there is nothing to remove
		if err := h.Engine.Remove(ctxOf(t), cfg.Name); err != nil {
			t.Fatalf("Remove() = %v", err)
		}
	}
	select {
	case err := <-waits:
		if !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("Next() of a log that was removed = %v, want ErrClosed", err)
		}
	case <-ctxOf(t).Done():
		t.Fatal("a reader of a log that was removed waits on")
	}
	fresh := h.open(t, cfg)
	if fresh.Epoch() == l.Epoch() || fresh.Durable() != 0 {
		t.Errorf("the log came back with epoch %s, durable %d", fresh.Epoch(), fresh.Durable())
	}
	if sequence := store(t, fresh, r); sequence != 1 {
		t.Errorf("the first record is at %d", sequence)
	}
	if records, err := fresh.ReadKey(ctxOf(t), "k", 0, 10, false); err != nil || len(records) != 1 {
		t.Errorf("ReadKey() = %d records, %v, want 1", len(records), err)
	}
	want(t, take(t, kept.Read(0), 1), "kept")
	h.reopen()
	if again := h.open(t, cfg); again.Epoch() != fresh.Epoch() || again.Durable() != 1 {
		t.Errorf("after a restart epoch %s, durable %d, want %s, 1", again.Epoch(), again.Durable(), fresh.Epoch())
	}
	if err := h.Engine.Remove(ctxOf(t), cfg.Name); err != nil {
		t.Error(err)
	}
}

func testReopen(t *testing.T, h Harness) {
	cfg := eventlog.LogConfig{Name: newName()}
	l := h.open(t, cfg)
	epoch := l.Epoch()
	for i := range 3 {
		fill(t, l, numbers(10*i+1, 10*i+10)...)
		h.reopen()
		l = h.open(t, cfg)
		if l.Epoch() != epoch || l.Durable() != uint64(10*i+10) {
			t.Fatalf("after a restart epoch %s, durable %d, want %s, %d", l.Epoch(), l.Durable(), epoch, 10*i+10)
		}
		want(t, take(t, l.Read(0), 10*i+10), numbers(1, 10*i+10)...)
	}
	if err := h.Engine.Remove(ctxOf(t), cfg.Name); err != nil {
		t.Error(err)
	}
}

// testCrash kills the engine while appends go on: what was acknowledged is
// there, and what is there is whole.
func testCrash(t *testing.T, h Harness) {
	if h.Crash == nil {
		t.Skip("the engine has no crash of its own")
	}
	cfg := eventlog.LogConfig{Name: newName(), DedupeWindow: time.Hour}
	l := h.open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var acked sync.Map
	var count atomic.Int64
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprint(w, "-", i)
				a, err := l.Append(ctx, eventlog.Record{Subject: "s", ID: id, Key: "k", Data: []byte(id)})
				if err != nil {
					return
				}
				acked.Store(a.Sequence, id)
				count.Add(1)
			}
		})
	}
	until(t, func() bool { return count.Load() > 200 })
	promised := map[uint64]string{}
	acked.Range(func(sequence, id any) bool {
		promised[sequence.(uint64)] = id.(string) //nolint:errcheck,forcetypeassert // stored so above
		return true
	})
	h.Engine = h.Crash()
	cancel()
	wg.Wait()
	l = h.open(t, cfg)
	for sequence, id := range promised {
		if r, err := l.Get(ctxOf(t), sequence); err != nil || string(r.Data) != id {
			t.Fatalf("Get(%d) after a crash = %q, %v, want %q", sequence, r.Data, err, id)
		}
		if a, err := l.Append(ctxOf(t), eventlog.Record{Subject: "s", ID: id}); err != nil || !a.Duplicate || a.Sequence != sequence {
			t.Fatalf("Append(%s) after a crash = %+v, %v, want a duplicate of %d", id, a, err, sequence)
		}
	}
	for i, r := range take(t, l.Read(1), int(l.Durable())) { //nolint:gosec // small
		if r.Sequence != uint64(i+1) {
			t.Fatalf("record %d follows %d", r.Sequence, i)
		}
	}
}

func testClose(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	fill(t, l, "a", "b")
	if err := h.Engine.Err(); err != nil {
		t.Errorf("Err() = %v", err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := l.Read(3).Next(context.Background(), 1)
		waits <- err
	}()
	if err := h.Engine.Close(ctxOf(t)); err != nil {
		t.Fatalf("Close() = %v", err)
	}
	if err := h.Engine.Close(ctxOf(t)); err != nil {
		t.Errorf("Close() of an engine that is closed = %v", err)
	}
	l.Forget()
	if err := <-waits; !errors.Is(err, eventlog.ErrClosed) {
		t.Errorf("Next() of a reader that waited = %v, want ErrClosed", err)
	}
	for name, call := range map[string]func() error{
		"Append":     func() error { _, err := l.Append(ctxOf(t), record("x")); return err },
		"AppendAt":   func() error { return l.AppendAt(ctxOf(t), 3, record("x")) },
		"Get":        func() error { _, err := l.Get(ctxOf(t), 1); return err },
		"Next":       func() error { _, err := l.Read(1).Next(ctxOf(t), 1); return err },
		"ReadKey":    func() error { _, err := l.ReadKey(ctxOf(t), "k", 0, 1, true); return err },
		"SequenceAt": func() error { _, err := l.SequenceAt(ctxOf(t), time.Now()); return err },
		"Delete":     func() error { return l.Delete(ctxOf(t), 1) },
		"Trim":       func() error { return l.Trim(ctxOf(t), 2) },
		"End":        func() error { _, err := l.End(ctxOf(t)); return err },
		"Follow":     func() error { return l.Follow(ctxOf(t), 0, func(eventlog.Step) error { return nil }) },
		"Log":        func() error { _, err := h.Engine.Log(ctxOf(t), eventlog.LogConfig{Name: newName()}); return err },
		"Remove":     func() error { return h.Engine.Remove(ctxOf(t), l.Name()) },
		"Err":        func() error { return h.Engine.Err() },
	} {
		if err := call(); !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("%s() of an engine that is closed = %v, want ErrClosed", name, err)
		}
	}
	h.reopen()
	again := h.open(t, eventlog.LogConfig{Name: l.Name()})
	want(t, take(t, again.Read(0), 2), "a", "b")
	if err := h.Engine.Remove(ctxOf(t), l.Name()); err != nil {
		t.Error(err)
	}
}
