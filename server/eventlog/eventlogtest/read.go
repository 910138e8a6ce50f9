package eventlogtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

// numbers returns the numbers from first to last, in decimal.
func numbers(first, last int) []string {
	all := []string{}
	for i := first; i <= last; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func testReader(t *testing.T, h Harness) {
	const n = 700
	l := h.open(t, eventlog.LogConfig{})
	all := numbers(1, n)
	fill(t, l, all...)
	for _, from := range []string{"memory", "storage"} {
		if from == "storage" {
			l.Forget()
		}
		want(t, take(t, l.Read(0), n), all...)
		want(t, take(t, l.Read(1), n), all...)
		want(t, take(t, l.Read(n-1), 2), all[n-2:]...)
		want(t, take(t, l.Read(300), 1), "300")
		r := l.Read(5)
		if r.Position() != 4 {
			t.Errorf("the position of Read(5) is %d, want 4", r.Position())
		}
		want(t, take(t, r, 2), "5", "6")
		if r.Position() != 6 {
			t.Errorf("the position after record 6 is %d", r.Position())
		}
		r.Seek(n)
		want(t, take(t, r, 1), all[n-1])
		if records, err := l.Read(1).Next(ctxOf(t), -1); err != nil || len(records) != 1 {
			t.Errorf("Next(-1) = %d records, %v, want 1", len(records), err)
		}
		if records, err := l.Read(1).Next(ctxOf(t), 1<<30); err != nil || len(records) == 0 || len(records) > 1000 {
			t.Errorf("Next(2^30) = %d records, %v, want at most 1000", len(records), err)
		}
	}
}

func testReaderWaits(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r := l.Read(1)
	if _, err := r.Next(ended, 1); !errors.Is(err, context.Canceled) || r.Position() != 0 {
		t.Errorf("Next() at the end = %v, position %d, want the context's error", err, r.Position())
	}
	ctx := ctxOf(t)
	const readers = 8
	got := make(chan string, readers)
	for range readers {
		go func() {
			records, err := l.Read(1).Next(ctx, 10)
			got <- fmt.Sprint(contents(records), err)
		}()
	}
	fill(t, l, "late")
	for range readers {
		if s := <-got; s != fmt.Sprint([]string{"late"}, nil) {
			t.Errorf("a reader that waited got %s", s)
		}
	}
}

// testLargeRead reads more than one read may return.
func testLargeRead(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{})
	var all []string
	for i := range 12 {
		all = append(all, strings.Repeat(fmt.Sprint(i%10), h.maxRecord()/2-i))
	}
	fill(t, l, all...)
	l.Forget()
	want(t, take(t, l.Read(1), len(all)), all...)
}

// testReadsAreBounded reads large records. No read returns many more bytes than it
// may, and what it leaves off comes with the next one.
func testReadsAreBounded(t *testing.T, h Harness) {
	const n = 20
	large := eventlog.MaxReadBytes / 3
	l := h.open(t, eventlog.LogConfig{})
	for i := range n {
		store(t, l, eventlog.Record{Subject: "s", Key: "k", Data: bytes.Repeat([]byte{byte(i)}, large)})
	}
	for _, from := range []string{"memory", "storage"} {
		if from == "storage" {
			l.Forget()
		}
		r := l.Read(1)
		for name, next := range map[string]func(at uint64) ([]eventlog.Record, error){
			"Next": func(at uint64) ([]eventlog.Record, error) {
				if at > n {
					return nil, nil
				}
				return r.Next(ctxOf(t), 1000)
			},
			"ReadKey": func(at uint64) ([]eventlog.Record, error) { return l.ReadKey(ctxOf(t), "k", at, 1000, false) },
			"ReadKey in reverse": func(at uint64) ([]eventlog.Record, error) {
				if at > n {
					return nil, nil
				}
				return l.ReadKey(ctxOf(t), "k", n+1-at, 1000, true)
			},
		} {
			at := uint64(1) // how many are read, and one
			for {
				records, err := next(at)
				if err != nil {
					t.Fatalf("%s from %s: %v", name, from, err)
				}
				if len(records) == 0 {
					break
				}
				for _, r := range records {
					want := at
					if name == "ReadKey in reverse" {
						want = n + 1 - at
					}
					if r.Sequence != want || len(r.Data) != large || r.KeyHash != eventlog.HashKey("k") {
						t.Fatalf("%s from %s: record %d of %d bytes, want %d", name, from, r.Sequence, len(r.Data), want)
					}
					at++
				}
				if got := len(records) * large; got > eventlog.MaxReadBytes {
					t.Errorf("%s from %s returned %d bytes, want at most %d", name, from, got, eventlog.MaxReadBytes)
				}
			}
			if at != n+1 {
				t.Errorf("%s from %s returned %d records, want %d", name, from, at-1, n)
			}
		}
	}
}

func testScan(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{Deletes: true})
	fill(t, l, numbers(1, 600)...)
	for _, sequence := range []uint64{2, 300, 301, 599} {
		if err := l.Delete(ctxOf(t), sequence); err != nil {
			t.Fatal(err)
		}
	}
	scan := func(first, last uint64, stop uint64, err error) (got []string, _ error) {
		scanned := l.Scan(ctxOf(t), first, last, func(r eventlog.Record) error {
			got = append(got, string(r.Data))
			if r.Sequence == stop {
				return err
			}
			return nil
		})
		return got, scanned
	}
	check := func(got []string, err error, all ...string) {
		t.Helper()
		if err != nil || !slices.Equal(got, all) {
			t.Errorf("Scan() = %.200q, %v, want %.200q", got, err, all)
		}
	}
	got, err := scan(1, 600, 0, nil)
	check(got, err, slices.Concat([]string{"1"}, numbers(3, 299), numbers(302, 598), []string{"600"})...)
	got, err = scan(0, 3, 0, nil)
	check(got, err, "1", "3")
	got, err = scan(299, 302, 0, nil)
	check(got, err, "299", "302")
	got, err = scan(300, 301, 0, nil)
	check(got, err)
	got, err = scan(5, 4, 0, nil)
	check(got, err)
	got, err = scan(1, 600, 4, eventlog.ErrStop)
	check(got, err, "1", "3", "4")
	failure := errors.New("of the visitor")
	if got, err = scan(1, 600, 3, failure); !errors.Is(err, failure) || len(got) != 2 {
		t.Errorf("Scan() = %q, %v, want the visitor's error", got, err)
	}
	if err := l.Trim(ctxOf(t), 597); err != nil {
		t.Fatal(err)
	}
	got, err = scan(1, 600, 0, nil)
	check(got, err, "597", "598", "600")
}

func testFollow(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{Deletes: true})
	fill(t, l, numbers(1, 10)...)
	if err := l.Trim(ctxOf(t), 4); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete(ctxOf(t), 6); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("enough")
	follow := func(from uint64, last int) (got []string, truncated uint64) {
		t.Helper()
		position := uint64(0)
		err := l.Follow(ctxOf(t), from, func(s eventlog.Step) error {
			if s.Position < position || s.Damaged != nil {
				t.Errorf("step %+v after position %d", s, position)
			}
			position = s.Position
			truncated = max(truncated, s.First)
			got = append(got, contents(s.Records)...)
			if position == 10 && last > 10 {
				fill(t, l, numbers(11, last)...) // while it is followed
			}
			if position >= uint64(last) { //nolint:gosec // small
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) {
			t.Errorf("Follow() = %v", err)
		}
		return got, truncated
	}
	for from, first := range map[uint64]uint64{0: 0, 2: 4} {
		got, truncated := follow(from, 10)
		if !slices.Equal(got, append(numbers(4, 5), numbers(7, 10)...)) || truncated != first {
			t.Errorf("Follow(%d) = %q, truncated at %d, want %d", from, got, truncated, first)
		}
	}
	if got, _ := follow(8, 13); !slices.Equal(got, numbers(8, 13)) {
		t.Errorf("Follow(8) = %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := l.Follow(ctx, 13, func(eventlog.Step) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Follow() = %v, want the context's error", err)
	}
}

func testLast(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{Deletes: true})
	last := func(n int, all ...string) {
		t.Helper()
		records, err := l.Last(ctxOf(t), n)
		if err != nil {
			t.Fatalf("Last(%d) = %v", n, err)
		}
		want(t, records, all...)
	}
	last(3)
	fill(t, l, numbers(1, 200)...)
	for sequence := uint64(20); sequence < 198; sequence++ {
		if err := l.Delete(ctxOf(t), sequence); err != nil {
			t.Fatal(err)
		}
	}
	last(0)
	last(1, "200")
	last(4, "19", "198", "199", "200")
	if err := l.Trim(ctxOf(t), 18); err != nil {
		t.Fatal(err)
	}
	last(1000, "18", "19", "198", "199", "200")
}

func testReadKey(t *testing.T, h Harness) {
	const n = 300
	l := h.open(t, eventlog.LogConfig{Deletes: true})
	read := func(key string, from uint64, limit int, reverse bool) []uint64 {
		t.Helper()
		records, err := l.ReadKey(ctxOf(t), key, from, limit, reverse)
		if err != nil {
			t.Fatalf("ReadKey(%q, %d, %d, %v) = %v", key, from, limit, reverse, err)
		}
		got := []uint64{}
		for _, r := range records {
			if string(r.Data) != fmt.Sprint(r.Sequence) || !strings.HasPrefix(r.Subject, "s.") || r.KeyHash != eventlog.HashKey(key) {
				t.Errorf("record %d: %q, subject %q", r.Sequence, r.Data, r.Subject)
			}
			got = append(got, r.Sequence)
		}
		return got
	}
	if got := read("rare", 0, 10, true); len(got) != 0 {
		t.Errorf("an empty log has %d", got)
	}
	of := map[string][]uint64{}
	for i := uint64(1); i <= n; i++ {
		key := "" // has no key
		switch {
		case i == 10 || i == 150 || i == 290:
			key = "rare"
		case i%2 == 0:
			key = fmt.Sprint("chat.*>", i%10)
		}
		of[key] = append(of[key], i)
		store(t, l, eventlog.Record{Subject: fmt.Sprint("s.", i%3), Key: key, Data: []byte(fmt.Sprint(i))})
	}
	check := func() {
		t.Helper()
		for _, key := range []string{"rare", "chat.*>4", "chat.*>8", "nobody"} {
			for _, from := range []uint64{0, 1, 10, 11, 149, 150, n, n + 50} {
				for _, limit := range []int{0, 1, 2, 1000} {
					forwards, backwards := []uint64{}, []uint64{}
					for _, sequence := range of[key] {
						if sequence >= from {
							forwards = append(forwards, sequence)
						}
						if from == 0 || sequence <= from {
							backwards = append(backwards, sequence)
						}
					}
					slices.Reverse(backwards)
					forwards = forwards[:min(len(forwards), max(limit, 1))]
					backwards = backwards[:min(len(backwards), max(limit, 1))]
					if got := read(key, from, limit, false); !slices.Equal(got, forwards) {
						t.Errorf("ReadKey(%q, %d, %d) = %d, want %d", key, from, limit, got, forwards)
					}
					if got := read(key, from, limit, true); !slices.Equal(got, backwards) {
						t.Errorf("ReadKey(%q, %d, %d, reverse) = %d, want %d", key, from, limit, got, backwards)
					}
				}
			}
		}
	}
	check()
	if err := l.Delete(ctxOf(t), 150); err != nil {
		t.Fatal(err)
	}
	of["rare"] = []uint64{10, 290}
	check()
	if err := l.Trim(ctxOf(t), 100); err != nil {
		t.Fatal(err)
	}
	for key, sequences := range of {
		of[key] = slices.DeleteFunc(sequences, func(sequence uint64) bool { return sequence < 100 })
	}
	check()
}

func testSequenceAt(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{Deletes: true})
	at := func(when time.Time, sequence uint64) {
		t.Helper()
		if got, err := l.SequenceAt(ctxOf(t), when); err != nil || got != sequence {
			t.Errorf("SequenceAt(%v) = %d, %v, want %d", when, got, err, sequence)
		}
	}
	at(time.Unix(0, 0), 1)
	fill(t, l, numbers(1, 5)...)
	l.Forget()
	records := take(t, l.Read(1), 5)
	at(time.Unix(0, 0), 1)
	at(records[4].Time.Add(time.Nanosecond), 6)
	at(records[4].Time.Add(time.Hour), 6)
	for _, r := range records {
		first := slices.IndexFunc(records, func(o eventlog.Record) bool { return !o.Time.Before(r.Time) })
		at(r.Time, records[first].Sequence)
	}
	if err := l.Trim(ctxOf(t), 3); err != nil {
		t.Fatal(err)
	}
	at(time.Unix(0, 0), 3)
}

func testContexts(t *testing.T, h Harness) {
	l := h.open(t, eventlog.LogConfig{Deletes: true})
	fill(t, l, numbers(1, 5)...)
	l.Forget()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Append":     func() error { _, err := l.Append(ctx, record("x")); return err },
		"AppendAt":   func() error { return l.AppendAt(ctx, 1, record("x")) },
		"Get":        func() error { _, err := l.Get(ctx, 1); return err },
		"Next":       func() error { _, err := l.Read(1).Next(ctx, 1); return err },
		"ReadKey":    func() error { _, err := l.ReadKey(ctx, "k", 0, 1, true); return err },
		"SequenceAt": func() error { _, err := l.SequenceAt(ctx, time.Now()); return err },
		"Trim":       func() error { return l.Trim(ctx, 1) },
		"End":        func() error { _, err := l.End(ctx); return err },
	} {
		// Whoever needs not wait may do it all the same.
		if err := call(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, eventlog.ErrConflict) {
			t.Errorf("%s() = %v, want the context's error", name, err)
		}
	}
	if r, err := l.Get(ctxOf(t), 1); err != nil || string(r.Data) != "1" {
		t.Errorf("Get(1) = %+v, %v", r, err)
	}
}
