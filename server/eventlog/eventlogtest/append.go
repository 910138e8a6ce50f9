package eventlogtest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

func testAppend(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	if l.Durable() != 0 || len(l.Epoch()) != 16 {
		t.Errorf("a new log is at %d, epoch %q", l.Durable(), l.Epoch())
	}
	if again := h.open(t, eventlog.LogConfig{Name: l.Name()}); again != l {
		t.Error("a log that is open was opened a second time")
	}
	before := time.Now().Add(-time.Minute)
	for i, r := range []eventlog.Record{
		{Subject: "a", Data: []byte("one")},
		{Subject: "a.b", Key: "k", Data: []byte("two")},
		{Subject: "c", ID: "id", Key: "k"},
	} {
		if sequence := store(t, l, r); sequence != uint64(i+1) || l.Durable() != sequence {
			t.Fatalf("record %d is at %d, durable up to %d", i+1, sequence, l.Durable())
		}
		// Once from memory, if the engine keeps it there, and once stored.
		for range 2 {
			got, err := l.Get(ctxOf(t), uint64(i+1))
			if err != nil || got.Sequence != uint64(i+1) || got.Subject != r.Subject || string(got.Data) != string(r.Data) {
				t.Fatalf("Get(%d) = %+v, %v, want %+v", i+1, got, err, r)
			}
			if h.Advance == nil && (got.Time.Before(before) || got.Time.After(time.Now().Add(time.Minute))) {
				t.Errorf("record %d was stored at %v", i+1, got.Time)
			}
			l.Forget()
		}
	}
	for _, sequence := range []uint64{0, 4, 1 << 60} {
		if _, err := l.Get(ctxOf(t), sequence); !errors.Is(err, eventlog.ErrNotFound) {
			t.Errorf("Get(%d) = %v, want ErrNotFound", sequence, err)
		}
	}
}

func testSubjects(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	subjects := []string{"a", "message.new.7", "A_b-c~d.0", "~", "-", strings.Repeat("x.", 30) + "y"}
	for i, s := range subjects {
		store(t, l, eventlog.Record{Subject: s, Key: strings.Repeat("k", i)})
	}
	l.Forget()
	for i, r := range take(t, l.Read(1), len(subjects)) {
		if r.Subject != subjects[i] {
			t.Errorf("the subject of record %d is %q, want %q", r.Sequence, r.Subject, subjects[i])
		}
	}
}

func testTwins(t *testing.T, h Harness) {
	cfg := eventlog.LogConfig{Name: newName(), DedupeWindow: time.Hour, Deletes: true}
	l := h.open(t, cfg)
	fill(t, l, "x")
	store(t, l, eventlog.Record{Subject: "s", ID: "a", Data: []byte("first")})
	store(t, l, eventlog.Record{Subject: "s", ID: "b", Data: []byte("other")})
	twin := func(when string) {
		t.Helper()
		a, err := l.Append(ctxOf(t), eventlog.Record{Subject: "other", ID: "a", Data: []byte("second")})
		if err != nil || !a.Duplicate || a.Sequence != 2 {
			t.Fatalf("Append() %s = %+v, %v, want a duplicate of 2", when, a, err)
		}
	}
	twin("of a twin")
	twin("of a third")
	want(t, take(t, l.Read(1), 3), "x", "first", "other")
	h.reopen()
	l = h.open(t, cfg)
	twin("after a restart")
	if err := l.Delete(ctxOf(t), 2); err != nil {
		t.Fatal(err)
	}
	twin("of a record that was deleted")
	if end := extent(t, l); end.Last != 3 || end.Count != 2 {
		t.Errorf("State() = %+v, want 2 records up to 3", end)
	}
	// A conditional append has no ID, so it is no twin.
	if err := l.AppendAt(ctxOf(t), 4, eventlog.Record{Subject: "s", ID: "a"}); err != nil {
		t.Errorf("AppendAt(4) = %v", err)
	}
}

func testTwinsAtOnce(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	ctx := ctxOf(t)
	const twins, ids = 16, 20
	var mu sync.Mutex
	stored := map[string][]uint64{}
	at := map[string]uint64{}
	var wg sync.WaitGroup
	for i := range twins * ids {
		id := fmt.Sprint("id-", i%ids)
		wg.Go(func() {
			a, err := l.Append(ctx, eventlog.Record{Subject: "s", ID: id, Data: []byte(id)})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("Append(%s) = %v", id, err)
				return
			}
			if !a.Duplicate {
				stored[id] = append(stored[id], a.Sequence)
			}
			if at[id] != 0 && at[id] != a.Sequence {
				t.Errorf("%s is at %d and at %d", id, at[id], a.Sequence)
			}
			at[id] = a.Sequence
			if a.Sequence > l.Durable() {
				t.Errorf("%s is at %d, durable up to %d", id, a.Sequence, l.Durable())
			}
		})
	}
	wg.Wait()
	for id, sequences := range stored {
		if len(sequences) != 1 {
			t.Errorf("%s was stored %d times: %d", id, len(sequences), sequences)
		}
	}
	if end := extent(t, l); end.Last != ids || end.Count != ids {
		t.Errorf("State() = %+v, want %d records", end, ids)
	}
}

func testTwinsOutsideTheWindow(t *testing.T, h Harness) {
	const window = 300 * time.Millisecond
	l := h.open(t, eventlog.LogConfig{DedupeWindow: window})
	r := eventlog.Record{Subject: "s", ID: "a"}
	store(t, l, r)
	if a, err := l.Append(ctxOf(t), r); err != nil || a.Sequence != 1 && h.Advance != nil {
		t.Fatalf("Append() = %+v, %v, want a duplicate of 1", a, err)
	}
	h.advance(t, 3*window, func() bool {
		a, err := l.Append(ctxOf(t), r)
		if err != nil {
			t.Fatalf("Append() = %v", err)
		}
		return !a.Duplicate
	})
}

func testAppendAt(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	try := func(sequence uint64, want error) {
		t.Helper()
		if err := l.AppendAt(ctxOf(t), sequence, record(fmt.Sprint(sequence))); !errors.Is(err, want) {
			t.Fatalf("AppendAt(%d) = %v, want %v", sequence, err, want)
		}
	}
	try(2, eventlog.ErrConflict)
	try(1, nil)
	try(1, eventlog.ErrConflict)
	try(3, eventlog.ErrConflict)
	try(2, nil)
	fill(t, l, "3")
	try(3, eventlog.ErrConflict)
	try(4, nil)
	if err := l.Trim(ctxOf(t), 5); err != nil {
		t.Fatal(err)
	}
	try(1, eventlog.ErrConflict)
	try(4, eventlog.ErrConflict)
	try(5, nil)
	want(t, take(t, l.Read(0), 1), "5")
}

func testAppendAtRace(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	ctx := ctxOf(t)
	const racers, places = 4, 20
	winners := make([][]int, places+1)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for racer := range racers {
		wg.Go(func() {
			for at := uint64(1); at <= places; at++ {
				err := l.AppendAt(ctx, at, record(fmt.Sprint(racer)))
				mu.Lock()
				switch {
				case err == nil:
					winners[at] = append(winners[at], racer)
				case !errors.Is(err, eventlog.ErrConflict):
					t.Errorf("AppendAt(%d) = %v, want nil or ErrConflict", at, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i, r := range take(t, l.Read(1), places) {
		if got := winners[i+1]; len(got) != 1 || fmt.Sprint(got[0]) != string(r.Data) {
			t.Errorf("record %d is of %s; it was acknowledged to %d", i+1, r.Data, got)
		}
	}
}

func testSizes(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	whole := strings.Repeat("x", h.maxRecord())
	r := record(whole)
	r.ID, r.Key = strings.Repeat("i", 64), strings.Repeat("key", 100)
	store(t, l, r)
	_, err := l.Append(ctxOf(t), record(whole+"x"))
	if err == nil || errors.Is(err, eventlog.ErrFull) || errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Append() of a byte more than the limit = %v, want an error for good", err)
	}
	store(t, l, record(""))
	l.Forget()
	want(t, take(t, l.Read(1), 2), whole, "")
}

func testAppendsAtOnce(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	ctx := ctxOf(t)
	const writers, each = 16, 40
	var wg sync.WaitGroup
	defer wg.Wait()
	for w := range writers {
		wg.Go(func() {
			last := uint64(0)
			for i := range each {
				a, err := l.Append(ctx, eventlog.Record{Subject: "s", ID: fmt.Sprint(w, "-", i), Data: fmt.Appendf(nil, "%d-%d", w, i)})
				if err != nil || a.Sequence <= last || l.Durable() < a.Sequence {
					t.Errorf("Append() after %d = %+v, %v, durable %d", last, a, err, l.Durable())
				}
				last = a.Sequence
			}
		})
	}
	r := l.Read(0)
	next := map[string]int{}
	for n := uint64(0); n < writers*each; {
		records, err := r.Next(ctx, 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			n++
			if rec.Sequence != n || n > l.Durable() {
				t.Fatalf("record %d follows %d, durable up to %d", rec.Sequence, n-1, l.Durable())
			}
			w, i, _ := strings.Cut(string(rec.Data), "-")
			if fmt.Sprint(next[w]) != i {
				t.Fatalf("of writer %s record %s follows, want %d", w, i, next[w])
			}
			next[w]++
		}
	}
}

func testManyLogs(t *testing.T, h Harness) {
	const logs, each = 100, 3
	ctx := ctxOf(t)
	open := make([]*eventlog.Log, logs)
	for i := range open {
		open[i] = h.open(t, eventlog.LogConfig{DedupeWindow: time.Minute})
	}
	var wg sync.WaitGroup
	for i, l := range open {
		wg.Go(func() {
			for k := range each {
				if _, err := l.Append(ctx, eventlog.Record{Subject: "s", ID: fmt.Sprint(k), Data: fmt.Append(nil, i)}); err != nil {
					t.Errorf("Append() to log %d = %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i, l := range open {
		l.Forget()
		want(t, take(t, l.Read(1), each), fmt.Sprint(i), fmt.Sprint(i), fmt.Sprint(i))
	}
}
