// Package eventlogtest is the conformance suite of package eventlog: what each
// engine must do, sentence by sentence, and random histories against a model.
package eventlogtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A Harness is an engine under test and what its test can do to it. Each
// function that returns an engine ends the one before.
type Harness struct {
	// Engine is open. Its test closes it, and those that follow it.
	Engine eventlog.Engine

	// MaxRecord is the largest Record.Data that Engine takes. 0 means 1 MiB.
	MaxRecord int

	// Reopen closes the engine and opens its storage again.
	Reopen func() eventlog.Engine

	// Crash opens the storage as it is when the process is killed. nil means
	// that the engine has no such test.
	Crash func() eventlog.Engine

	// Advance moves the clock that the engine's windows and ages go by. nil
	// means real time.
	Advance func(time.Duration)
}

// patience bounds the wait for anything that an engine does in the background.
const patience = 20 * time.Second

// Run tests the engines that open returns. They may share a storage: the names
// of the suite's logs are not used twice in a process.
func Run(t *testing.T, open func(t testing.TB) Harness) {
	for _, tt := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"Append", testAppend},
		{"Subjects", testSubjects},
		{"Twins", testTwins},
		{"TwinsAtOnce", testTwinsAtOnce},
		{"TwinsOutsideTheWindow", testTwinsOutsideTheWindow},
		{"AppendAt", testAppendAt},
		{"AppendAtRace", testAppendAtRace},
		{"Sizes", testSizes},
		{"AppendsAtOnce", testAppendsAtOnce},
		{"ManyLogs", testManyLogs},
		{"Reader", testReader},
		{"ReaderWaits", testReaderWaits},
		{"LargeRead", testLargeRead},
		{"ReadsAreBounded", testReadsAreBounded},
		{"Scan", testScan},
		{"Follow", testFollow},
		{"Last", testLast},
		{"ReadKey", testReadKey},
		{"SequenceAt", testSequenceAt},
		{"Delete", testDelete},
		{"Trim", testTrim},
		{"State", testState},
		{"MaxBytesRefuses", testMaxBytesRefuses},
		{"MaxBytesDropsOldest", testMaxBytesDropsOldest},
		{"MaxAge", testMaxAge},
		{"ConfigChanges", testConfigChanges},
		{"Remove", testRemove},
		{"Reopen", testReopen},
		{"Crash", testCrash},
		{"Close", testClose},
		{"Contexts", testContexts},
		{"Histories", testHistories},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

// advance lets d pass on the engine's clock, or until met says that it has.
func (h *Harness) advance(t testing.TB, d time.Duration, met func() bool) {
	t.Helper()
	if h.Advance != nil {
		h.Advance(d)
	}
	until(t, met)
}

// reopen closes the engine and opens it again.
func (h *Harness) reopen() { h.Engine = h.Reopen() }

// maxRecord returns the largest Record.Data.
func (h *Harness) maxRecord() int { return cmp.Or(h.MaxRecord, 1<<20) }

// names counts the logs that were named.
var names atomic.Uint64

// newName returns a name that no log has.
func newName() string { return fmt.Sprintf("T_%d", names.Add(1)) }

// open opens the log that cfg names, or one that is new. It is removed at the
// end of the test.
func (h *Harness) open(t testing.TB, cfg eventlog.LogConfig) *eventlog.Log {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = newName()
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := h.Engine.Remove(ctx, cfg.Name); err != nil && !errors.Is(err, eventlog.ErrClosed) {
				t.Errorf("Remove(%s) = %v", cfg.Name, err)
			}
		})
	}
	l, err := h.Engine.Log(ctxOf(t), cfg)
	if err != nil {
		t.Fatalf("Log(%s) = %v", cfg.Name, err)
	}
	return l
}

// ctxOf returns a context that ends after patience, or with the test.
func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until waits for a condition.
func until(t testing.TB, met func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !met(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the condition was not met in time")
		}
	}
}

// record returns a record with that content.
func record(data string) eventlog.Record {
	return eventlog.Record{Subject: "s", Data: []byte(data)}
}

// store appends a record that must be stored, and returns its sequence.
func store(t testing.TB, l *eventlog.Log, r eventlog.Record) uint64 {
	t.Helper()
	a, err := l.Append(ctxOf(t), r)
	if err != nil || a.Duplicate {
		t.Fatalf("Append(%.40q) = %+v, %v, want a new record", r.Data, a, err)
	}
	return a.Sequence
}

// fill stores one record for each of data.
func fill(t testing.TB, l *eventlog.Log, data ...string) {
	t.Helper()
	for _, d := range data {
		store(t, l, record(d))
	}
}

// extent returns what the log holds, by what the storage says now.
func extent(t testing.TB, l *eventlog.Log) eventlog.State {
	t.Helper()
	if _, err := l.End(ctxOf(t)); err != nil {
		t.Fatalf("End() = %v", err)
	}
	return l.State()
}

// take reads n records.
func take(t testing.TB, r *eventlog.Reader, n int) []eventlog.Record {
	t.Helper()
	ctx := ctxOf(t)
	var got []eventlog.Record
	for len(got) < n {
		records, err := r.Next(ctx, n-len(got))
		if err != nil {
			t.Fatalf("Next() after %d of %d records = %v", len(got), n, err)
		}
		if len(records) > n-len(got) {
			t.Fatalf("Next(%d) returned %d records", n-len(got), len(records))
		}
		got = append(got, records...)
	}
	return got
}

// contents returns what is in records.
func contents(records []eventlog.Record) []string {
	got := []string{}
	for _, r := range records {
		got = append(got, string(r.Data))
	}
	return got
}

// want fails the test unless records hold just that, in order.
func want(t testing.TB, records []eventlog.Record, data ...string) {
	t.Helper()
	if got := contents(records); fmt.Sprint(got) != fmt.Sprint(data) {
		t.Fatalf("got records %.300q, want %.300q", got, data)
	}
	for i := 1; i < len(records); i++ {
		if records[i].Time.Before(records[i-1].Time) {
			t.Fatalf("record %d was stored at %v, record %d at %v",
				records[i-1].Sequence, records[i-1].Time, records[i].Sequence, records[i].Time)
		}
	}
}
