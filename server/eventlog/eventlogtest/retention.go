package eventlogtest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

func testDelete(t *testing.T, h Harness) {
	cfg := eventlog.LogConfig{Name: newName(), Deletes: true}
	l := h.open(t, cfg)
	fill(t, l, numbers(1, 6)...)
	for _, sequence := range []uint64{2, 3, 6} {
		if err := l.Delete(ctxOf(t), sequence); err != nil {
			t.Fatalf("Delete(%d) = %v", sequence, err)
		}
		if _, err := l.Get(ctxOf(t), sequence); !errors.Is(err, eventlog.ErrNotFound) {
			t.Errorf("Get(%d) = %v, want ErrNotFound", sequence, err)
		}
	}
	for _, sequence := range []uint64{0, 2, 6, 7} {
		if err := l.Delete(ctxOf(t), sequence); !errors.Is(err, eventlog.ErrNotFound) {
			t.Errorf("Delete(%d) = %v, want ErrNotFound", sequence, err)
		}
	}
	for range 2 {
		r := l.Read(1)
		want(t, take(t, r, 3), "1", "4", "5")
		for r.Position() < 6 {
			if records, err := r.Next(ctxOf(t), 1); err != nil || len(records) > 0 {
				t.Fatalf("Next() = %v, %v, want nothing up to 6", records, err)
			}
		}
		if end := extent(t, l); end.First != 1 || end.Last != 6 || end.Count != 3 {
			t.Errorf("State() = %+v, want 3 records of 1 to 6", end)
		}
		h.reopen()
		l = h.open(t, cfg)
	}
	if sequence := store(t, l, record("7")); sequence != 7 {
		t.Errorf("after record 6, which was deleted, follows %d", sequence)
	}
	if err := l.Delete(ctxOf(t), 1); err != nil {
		t.Fatal(err)
	}
	if end := extent(t, l); end.First != 4 || end.Count != 3 {
		t.Errorf("State() = %+v, want 4 to be the oldest of 3 that are held", end)
	}
}

func testTrim(t *testing.T, h Harness) {
	cfg := eventlog.LogConfig{Name: newName(), Deletes: true}
	l := h.open(t, cfg)
	trim := func(before uint64, first, last uint64) {
		t.Helper()
		if err := l.Trim(ctxOf(t), before); err != nil {
			t.Fatalf("Trim(%d) = %v", before, err)
		}
		if end := extent(t, l); end.First != first || end.Last != last || end.Count != last+1-first {
			t.Fatalf("State() after Trim(%d) = %+v, want %d to %d", before, end, first, last)
		}
	}
	trim(1, 1, 0)
	fill(t, l, numbers(1, 9)...)
	trim(0, 1, 9)
	trim(1, 1, 9)
	slow := l.Read(1)
	trim(4, 4, 9)
	trim(2, 4, 9)
	var gone *eventlog.TruncatedError
	if _, err := slow.Next(ctxOf(t), 1); !errors.As(err, &gone) || gone.Asked != 1 || gone.First != 4 || slow.Position() != 0 {
		t.Fatalf("Next() = %v, position %d, want a TruncatedError of 1 and 4", err, slow.Position())
	}
	slow.Seek(gone.First)
	want(t, take(t, slow, 2), "4", "5")
	want(t, take(t, l.Read(0), 6), numbers(4, 9)...)
	if _, err := l.Get(ctxOf(t), 3); !errors.Is(err, eventlog.ErrNotFound) {
		t.Errorf("Get(3) = %v, want ErrNotFound", err)
	}
	if err := l.Delete(ctxOf(t), 3); !errors.Is(err, eventlog.ErrNotFound) {
		t.Errorf("Delete(3) = %v, want ErrNotFound", err)
	}
	h.reopen()
	l = h.open(t, cfg)
	want(t, take(t, l.Read(0), 6), numbers(4, 9)...)
	trim(10, 10, 9)
	trim(1000, 10, 9)
	if _, err := l.Read(5).Next(ctxOf(t), 1); !errors.As(err, &gone) || gone.Asked != 5 || gone.First != 10 {
		t.Errorf("Next() = %v, want a TruncatedError of 5 and 10", err)
	}
	h.reopen()
	l = h.open(t, cfg)
	if sequence := store(t, l, record("10")); sequence != 10 {
		t.Errorf("after record 9, which was trimmed, follows %d", sequence)
	}
	want(t, take(t, l.Read(0), 1), "10")
}

func testState(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	if s := extent(t, l); s != (eventlog.State{First: 1}) {
		t.Errorf("State() of an empty log = %+v", s)
	}
	data := strings.Repeat("x", 1000)
	fill(t, l, data, data, data)
	if s := l.State(); s.Last != 3 {
		t.Errorf("State() = %+v, want 3 to be the last", s)
	}
	l.Forget()
	oldest, err := l.Get(ctxOf(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	s := extent(t, l)
	if s.First != 1 || s.Last != 3 || s.Count != 3 || s.Bytes < 3000 || s.Bytes > 6000 || !s.Since.Equal(oldest.Time) {
		t.Errorf("State() = %+v, want 3 records, 3000 bytes and some, since %v", s, oldest.Time)
	}
	if end, err := l.End(ctxOf(t)); err != nil || end != 3 {
		t.Errorf("End() = %d, %v, want 3", end, err)
	}
	if err := l.Trim(ctxOf(t), 4); err != nil {
		t.Fatal(err)
	}
	if s := extent(t, l); s != (eventlog.State{First: 4, Last: 3}) {
		t.Errorf("State() of a trimmed log = %+v", s)
	}
}

// kilobyte is what a record holds of which a log with a bound takes some.
var kilobyte = strings.Repeat("x", 1000)

func testMaxBytesRefuses(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{MaxBytes: 20_000, Deletes: true})
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = l.Append(ctxOf(t), record(kilobyte))
	}
	if !errors.Is(err, eventlog.ErrFull) || n <= 10 || n > 21 {
		t.Fatalf("Append() %d = %v, want ErrFull at about 20", n, err)
	}
	if err := h.Engine.Err(); err != nil {
		t.Errorf("Err() while one log is full = %v", err)
	}
	for sequence := uint64(1); sequence <= 5; sequence++ {
		if err := l.Delete(ctxOf(t), sequence); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() bool {
		_, err := l.Append(ctxOf(t), record(kilobyte))
		if err != nil && !errors.Is(err, eventlog.ErrFull) {
			t.Fatalf("Append() = %v", err)
		}
		return err == nil
	})
}

func testMaxBytesDropsOldest(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{MaxBytes: 20_000, DropOldest: true})
	slow := l.Read(0)
	for i := range 60 {
		store(t, l, record(kilobyte))
		if i == 0 {
			want(t, take(t, slow, 1), kilobyte)
		}
	}
	var s eventlog.State
	until(t, func() bool {
		s = extent(t, l)
		return s.Count <= 20 && s.Bytes <= 20_000
	})
	if s.First < 40 || s.First > 51 || s.Last != 60 || s.Count != 61-s.First {
		t.Fatalf("State() = %+v, want the newest 10 to 20 of 60", s)
	}
	l.Forget()
	var gone *eventlog.TruncatedError
	if _, err := slow.Next(ctxOf(t), 1); !errors.As(err, &gone) || gone.Asked != 2 || gone.First != s.First {
		t.Fatalf("Next() = %v, want a TruncatedError of 2 and %d", err, s.First)
	}
	records := take(t, l.Read(0), int(s.Count)) //nolint:gosec // at most 20
	if records[0].Sequence != s.First {
		t.Errorf("the oldest record is %d, want %d", records[0].Sequence, s.First)
	}
	if _, err := l.Get(ctxOf(t), 1); !errors.Is(err, eventlog.ErrNotFound) {
		t.Errorf("Get(1) = %v, want ErrNotFound", err)
	}
}

func testMaxAge(t *testing.T, h Harness) {
	const age = time.Second
	l := h.open(t, eventlog.LogConfig{MaxAge: age})
	fill(t, l, numbers(1, 3)...)
	h.advance(t, 2*age, func() bool { return extent(t, l).Count == 0 })
	if s := extent(t, l); s != (eventlog.State{First: 4, Last: 3}) {
		t.Errorf("State() = %+v, want nothing before 4", s)
	}
	if sequence := store(t, l, record("4")); sequence != 4 {
		t.Errorf("after record 3, which is too old, follows %d", sequence)
	}
	want(t, take(t, l.Read(0), 1), "4")
}

// testConfigChanges opens a log with other bounds than before.
func testConfigChanges(t *testing.T, h Harness) {
	cfg := eventlog.LogConfig{Name: newName(), MaxBytes: 10_000}
	l := h.open(t, cfg)
	epoch := l.Epoch()
	var err error
	for err == nil {
		_, err = l.Append(ctxOf(t), record(kilobyte))
	}
	if !errors.Is(err, eventlog.ErrFull) {
		t.Fatal(err)
	}
	h.reopen()
	cfg.MaxBytes, cfg.MaxAge, cfg.DedupeWindow = 0, 24*time.Hour, time.Hour
	l = h.open(t, cfg)
	if l.Epoch() != epoch {
		t.Errorf("other bounds made epoch %s of %s", l.Epoch(), epoch)
	}
	if s := extent(t, l); s.First != 1 || s.Count != s.Last {
		t.Errorf("State() = %+v, want that nothing was removed", s)
	}
	last := store(t, l, record(kilobyte))
	h.reopen()
	cfg.MaxBytes, cfg.DropOldest = 5_000, true
	l = h.open(t, cfg)
	until(t, func() bool { return extent(t, l).Bytes <= 5_000 })
	if s := extent(t, l); s.Last != last || s.Count == 0 {
		t.Errorf("State() = %+v, want the newest of %d", s, last)
	}
}
