package local

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/sluicegate/sluice/server/eventlog"
)

// TestChangedMaxAge starts with other ages than the log was written with: what
// goes by age is no loss of data, and what has gone stays away.
func TestChangedMaxAge(t *testing.T) {
	c := newClock()
	cfg := Config{Dir: t.TempDir(), Clock: c.Now}
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, age := range []time.Duration{7 * 24 * time.Hour, time.Minute, 30 * 24 * time.Hour, 0} {
		l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS", MaxAge: age})
		if err != nil {
			t.Fatal(err)
		}
		if age == time.Minute {
			eventually(t, func() bool {
				e.sweepSoon()
				return l.State().Count == 0
			})
		}
		appendN(t, l, 5)
		c.Advance(time.Hour)
		cfg.Dir = kill(t, e)
		if e, err = Open(t.Context(), cfg); err != nil {
			t.Fatalf("after a max_age of %v the start is refused: %v", age, err)
		}
	}
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	if s := l.State(); s.First != 6 || s.Last != 20 {
		t.Errorf("State() = %+v, want 6 to 20", s)
	}
	closeEngine(t, e)
}

// TestOneSyncForAllLogs has appends to many logs wait: one sync serves all.
func TestOneSyncForAllLogs(t *testing.T) {
	const logs = 20
	e, l, disk := openFaulty(t, Config{})
	defer func() { closeEngine(t, e) }()
	all := make([]*eventlog.Log, logs)
	for i := range all {
		var err error
		if all[i], err = e.Log(t.Context(), eventlog.LogConfig{Name: fmt.Sprint("GROUP_", i)}); err != nil {
			t.Fatal(err)
		}
	}
	var syncs atomic.Int64
	reached, release := make(chan struct{}), make(chan struct{})
	disk.set(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			if syncs.Add(1) == 1 {
				close(reached)
				<-release
			}
		}
		return nil
	})
	var wg sync.WaitGroup
	send := func(l *eventlog.Log) {
		wg.Go(func() {
			if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s"}); err != nil {
				t.Errorf("Append() = %v", err)
			}
		})
	}
	send(l)
	<-reached
	for _, l := range all {
		send(l)
	}
	eventually(t, func() bool { return len(e.ops) == logs })
	close(release)
	wg.Wait()
	if n := syncs.Load(); n > 2 {
		t.Errorf("%d syncs for %d logs, want one for the first append and one for all others", n, logs)
	}
}

// TestTrimBeyondTheEnd holds that a log that was trimmed beyond its end goes on
// with the next sequence, also after a crash.
func TestTrimBeyondTheEnd(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 5)
	if err := l.Trim(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	e = openAt(t, Config{Dir: kill(t, e)})
	if l, err = e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	if s := l.State(); s.First != 6 || s.Last != 5 || s.Count != 0 || s.Bytes != 0 {
		t.Errorf("State() = %+v, want an empty log that goes on at 6", s)
	}
	if a, err := l.Append(t.Context(), eventlog.Record{Subject: "s"}); err != nil || a.Sequence != 6 {
		t.Errorf("Append() = %+v, %v, want 6", a, err)
	}
}

// TestOneTimeOfARecord holds that a record is the same from memory, from the
// storage, by its key, and after a restart, its time among the rest.
func TestOneTimeOfARecord(t *testing.T) {
	cfg := Config{Dir: t.TempDir()} // by the real clock, whose times have a monotonic part
	e := openAt(t, cfg)
	open := func() *eventlog.Log {
		l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	get := func(l *eventlog.Log) eventlog.Record {
		r, err := l.Get(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	l := open()
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s", Key: "chat", Data: []byte("data")}); err != nil {
		t.Fatal(err)
	}
	want := get(l)
	l.Forget()
	same := func(from string, got eventlog.Record) {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s it is %+v, want %+v", from, got, want)
		}
	}
	same("from the storage", get(l))
	byKey, err := l.ReadKey(t.Context(), "chat", 0, 1, false)
	if err != nil || len(byKey) != 1 {
		t.Fatalf("ReadKey() = %v, %v", byKey, err)
	}
	same("by its key", byKey[0])
	closeEngine(t, e)
	e = openAt(t, cfg)
	same("after a restart", get(open()))
}

// TestScansWaitInTurn holds that reads of many records, however many there are,
// leave room for appends and for reads of one.
func TestScansWaitInTurn(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s", Key: "chat"}); err != nil {
			t.Fatal(err)
		}
	}
	l.Forget()
	for range cap(e.scans) { // as many are under way as there may be
		e.scans <- struct{}{}
	}
	got := make(chan error)
	go func() {
		_, err := l.Read(1).Next(t.Context(), 3)
		got <- err
	}()
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s"}); err != nil {
		t.Errorf("Append() beside scans = %v", err)
	}
	if _, err := l.Get(t.Context(), 1); err != nil {
		t.Errorf("Get() beside scans = %v", err)
	}
	if records, err := l.ReadKey(t.Context(), "chat", 0, 10, true); err != nil || len(records) != 3 {
		t.Errorf("ReadKey() beside scans = %d records, %v", len(records), err)
	}
	select {
	case err := <-got:
		t.Fatalf("Next() = %v, while its turn had not come", err)
	default:
	}
	<-e.scans
	if err := <-got; err != nil {
		t.Errorf("Next() in its turn = %v", err)
	}
}
