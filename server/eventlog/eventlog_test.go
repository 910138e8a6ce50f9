package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testWriter passes log lines to the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func testLogger(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(testWriter{t}, nil))
}

// openEngine opens an engine that is closed when the test ends.
func openEngine(t *testing.T, cfg Config) *Engine {
	t.Helper()
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

func closeEngine(t *testing.T, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func openLog(t *testing.T, e *Engine, cfg LogConfig) *Log {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "EVENTS"
	}
	l, err := e.Log(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Log: %v", err)
	}
	return l
}

func mustAppend(t *testing.T, l *Log, id, data string) Appended {
	t.Helper()
	a, err := l.Append(t.Context(), Record{Subject: "s", ID: id, Data: []byte(data)})
	if err != nil {
		t.Fatalf("Append(%q): %v", data, err)
	}
	return a
}

// take reads n records and returns their data.
func take(t *testing.T, r *Reader, n int) []string {
	t.Helper()
	var got []string
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(got) < n {
		records, err := r.Next(ctx, n-len(got))
		if err != nil {
			t.Fatalf("Next after %d of %d records: %v", len(got), n, err)
		}
		for _, rec := range records {
			got = append(got, string(rec.Data))
		}
	}
	return got
}

func wantData(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("read %q, want %q", got, want)
	}
}

func TestAppendIsReadBackAfterRestart(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Logger: testLogger(t)}
	e := openEngine(t, cfg)
	l := openLog(t, e, LogConfig{})
	for i := range 3 {
		if a := mustAppend(t, l, "", fmt.Sprint("r", i)); a.Sequence != uint64(i+1) || a.Duplicate {
			t.Fatalf("Append %d = %+v", i, a)
		}
	}
	wantData(t, take(t, l.Read(0), 3), "r0", "r1", "r2")
	epoch := l.Epoch()
	closeEngine(t, e)

	e = openEngine(t, cfg)
	l = openLog(t, e, LogConfig{})
	if l.Epoch() != epoch || len(epoch) != 16 {
		t.Errorf("epoch after restart = %q, want %q", l.Epoch(), epoch)
	}
	if l.Durable() != 3 {
		t.Errorf("Durable after restart = %d, want 3", l.Durable())
	}
	wantData(t, take(t, l.Read(2), 2), "r1", "r2")
	if a := mustAppend(t, l, "", "r3"); a.Sequence != 4 {
		t.Errorf("Append after restart = %+v, want sequence 4", a)
	}
}

func TestDuplicateIsNotStoredAgain(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	e := openEngine(t, cfg)
	l := openLog(t, e, LogConfig{DedupeWindow: time.Hour})
	mustAppend(t, l, "x", "first")
	if a := mustAppend(t, l, "a", "one"); a.Sequence != 2 || a.Duplicate {
		t.Fatalf("first Append = %+v", a)
	}
	if a := mustAppend(t, l, "a", "two"); a.Sequence != 2 || !a.Duplicate {
		t.Fatalf("second Append = %+v, want duplicate of 2", a)
	}
	closeEngine(t, e)
	l = openLog(t, openEngine(t, cfg), LogConfig{DedupeWindow: time.Hour})
	if a := mustAppend(t, l, "a", "three"); a.Sequence != 2 || !a.Duplicate {
		t.Fatalf("Append after restart = %+v, want duplicate of 2", a)
	}
	if l.Durable() != 2 {
		t.Errorf("Durable = %d, want 2", l.Durable())
	}
}

func TestConcurrentAppendsAreReadInOrderWhileTheyCome(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir()}), LogConfig{})
	const writers, each = 16, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := l.Append(t.Context(), Record{Subject: "s", ID: fmt.Sprint(w, "-", i), Data: fmt.Appendf(nil, "%d-%d", w, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	r := l.Read(0)
	next := make(map[string]int)
	for n := uint64(0); n < writers*each; {
		records, err := r.Next(t.Context(), 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			n++
			if rec.Sequence != n {
				t.Fatalf("record %d follows %d", rec.Sequence, n-1)
			}
			if rec.Sequence > l.Durable() {
				t.Fatalf("record %d was read before it was durable (%d)", rec.Sequence, l.Durable())
			}
			w, i, _ := strings.Cut(string(rec.Data), "-")
			if fmt.Sprint(next[w]) != i {
				t.Fatalf("writer %s: read %s, want %d", w, i, next[w])
			}
			next[w]++
		}
	}
	wg.Wait()
}

func TestReaderFromTheStorageAndFromTheTailAgree(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir()}), LogConfig{})
	var want []string
	for i := range 700 {
		want = append(want, fmt.Sprint(i))
	}
	var wg sync.WaitGroup
	for _, d := range want { // one after another, so that the order is known
		if _, err := l.Append(t.Context(), Record{Subject: "s", Data: []byte(d)}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	wantData(t, take(t, l.Read(0), 700), want...)
	l.mu.Lock()
	l.tail = tail{}
	l.mu.Unlock()
	wantData(t, take(t, l.Read(0), 700), want...)
	wantData(t, take(t, l.Read(699), 2), "698", "699")
}

func TestNextWaitsAndEndsWithItsContext(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir()}), LogConfig{})
	r := l.Read(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("Next on an empty log = %v, want the context's error", err)
	}
	got := make(chan []string)
	go func() { got <- take(t, r, 1) }()
	mustAppend(t, l, "", "late")
	wantData(t, <-got, "late")
}

func TestReadersEndWhenTheEngineCloses(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir()})
	l := openLog(t, e, LogConfig{})
	got := make(chan error)
	go func() {
		_, err := l.Read(0).Next(context.Background(), 1)
		got <- err
	}()
	closeEngine(t, e)
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Errorf("Next = %v, want ErrClosed", err)
	}
	if _, err := l.Append(t.Context(), Record{Subject: "s"}); !errors.Is(err, ErrClosed) {
		t.Errorf("Append = %v, want ErrClosed", err)
	}
	if !errors.Is(e.Err(), ErrClosed) {
		t.Errorf("Err = %v, want ErrClosed", e.Err())
	}
}

func TestRetentionTruncatesReaders(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir()}), LogConfig{MaxBytes: 20_000, DropOldest: true})
	data := strings.Repeat("x", 1000)
	slow := l.Read(0)
	mustAppend(t, l, "", data)
	if _, err := slow.Next(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		mustAppend(t, l, "", data)
	}
	l.mu.Lock()
	l.tail = tail{} // a reader that keeps up would be served from there
	l.mu.Unlock()
	state, err := l.State(t.Context())
	if err != nil || state.First < 10 || state.Last != 51 {
		t.Fatalf("State = %+v, %v, want the first 10 records gone", state, err)
	}
	var gone *TruncatedError
	if _, err := slow.Next(t.Context(), 1); !errors.As(err, &gone) || gone.Asked != 2 || gone.First != state.First {
		t.Fatalf("Next = %v, want a TruncatedError from 2 to %d", err, state.First)
	}
	slow.Seek(gone.First)
	records, err := slow.Next(t.Context(), 1)
	if err != nil || records[0].Sequence != gone.First {
		t.Fatalf("Next after Seek = %v, %v", records, err)
	}
	if records, err = l.Read(0).Next(t.Context(), 1); err != nil || records[0].Sequence != gone.First {
		t.Fatalf("Next from the oldest = %v, %v", records, err)
	}
	if _, err := l.Get(t.Context(), 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get(1) = %v, want ErrNotFound", err)
	}
}

func TestFullLogRefusesAndRecovers(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir()}), LogConfig{MaxBytes: 20_000})
	data := strings.Repeat("x", 1000)
	var err error
	n := 0
	for ; n < 100 && err == nil; n++ {
		_, err = l.Append(t.Context(), Record{Subject: "s", Data: []byte(data)})
	}
	if !errors.Is(err, ErrFull) || n < 10 {
		t.Fatalf("Append %d = %v, want ErrFull", n, err)
	}
	for seq := uint64(1); seq <= 5; seq++ {
		if err := l.Delete(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	mustAppend(t, l, "", data)
	if err := l.Delete(t.Context(), 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete twice = %v, want ErrNotFound", err)
	}
}

func TestDiskShortOfSpaceRefuses(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir(), MinFree: 1 << 62})
	l := openLog(t, e, LogConfig{})
	if _, err := l.Append(t.Context(), Record{Subject: "s"}); !errors.Is(err, ErrFull) {
		t.Errorf("Append = %v, want ErrFull", err)
	}
	if !errors.Is(e.Err(), ErrFull) {
		t.Errorf("Err = %v, want ErrFull", e.Err())
	}
}

func TestDeletedRecordsAreSteppedOver(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir()}), LogConfig{})
	for i := range 6 {
		mustAppend(t, l, "", fmt.Sprint(i+1))
	}
	for _, seq := range []uint64{2, 3, 6} {
		if err := l.Delete(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	r := l.Read(1)
	wantData(t, take(t, r, 3), "1", "4", "5")
	if records, err := r.Next(t.Context(), 1); err != nil || len(records) > 0 {
		t.Fatalf("Next = %v, %v, want nothing: the rest was removed", records, err)
	}
	if r.Position() != 6 {
		t.Errorf("Position = %d, want 6: nothing is left before it", r.Position())
	}
}

func TestTrimmedAndRemovedLogsAreNoLoss(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Logger: testLogger(t)}
	e := openEngine(t, cfg)
	l := openLog(t, e, LogConfig{})
	gone := openLog(t, e, LogConfig{Name: "GONE"})
	mustAppend(t, gone, "", "x")
	for i := range 5 {
		mustAppend(t, l, "", fmt.Sprint(i+1))
	}
	if err := l.Trim(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	wantData(t, take(t, l.Read(0), 2), "4", "5")
	for range 2 { // the second time there is nothing to remove
		if err := e.Remove(t.Context(), "GONE"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := gone.Read(0).Next(t.Context(), 1); !errors.Is(err, ErrClosed) {
		t.Errorf("Next of a removed log = %v, want ErrClosed", err)
	}
	closeEngine(t, e)
	e = openEngine(t, cfg)
	wantData(t, take(t, openLog(t, e, LogConfig{}).Read(0), 2), "4", "5")
	if l := openLog(t, e, LogConfig{Name: "GONE"}); l.Durable() != 0 {
		t.Errorf("a removed log came back with %d records", l.Durable())
	}
}

func TestSequenceAt(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir()}), LogConfig{})
	if seq, err := l.SequenceAt(t.Context(), time.Unix(0, 0)); err != nil || seq != 1 {
		t.Fatalf("SequenceAt in an empty log = %d, %v, want 1", seq, err)
	}
	for i := range 3 {
		mustAppend(t, l, "", fmt.Sprint(i))
	}
	second, err := l.Get(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at   time.Time
		want uint64
	}{
		{time.Unix(0, 0), 1},
		{second.Time, 2},
		{second.Time.Add(time.Nanosecond), 3},
		{time.Now().Add(time.Hour), 4},
	} {
		if seq, err := l.SequenceAt(t.Context(), tt.at); err != nil || seq != tt.want {
			t.Errorf("SequenceAt(%v) = %d, %v, want %d", tt.at, seq, err, tt.want)
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	openEngine(t, Config{Dir: dir})
	if _, err := Open(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("Open of a directory in use = %v", err)
	}
}

func TestUnwritableDirectoryIsRefused(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open of a file = %v, want an error that names it", err)
	}
}

func TestOversizeRecordIsRefused(t *testing.T) {
	l := openLog(t, openEngine(t, Config{Dir: t.TempDir(), MaxRecord: 100}), LogConfig{})
	if _, err := l.Append(t.Context(), Record{Subject: "s", Data: make([]byte, 101)}); err == nil {
		t.Error("Append of 101 bytes succeeded, want an error")
	}
	if _, err := l.Append(t.Context(), Record{Subject: "s", Data: make([]byte, 100)}); err != nil {
		t.Errorf("Append of 100 bytes: %v", err)
	}
}
