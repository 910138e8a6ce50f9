package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// running returns the node that runs now.
func runningNode(t *testing.T, e *Engine) *node {
	t.Helper()
	n, err := e.running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFailedSyncIsNeverSuccess fails one sync under load: nothing that waited
// for it may be acknowledged by it, the storage must come back by itself, and
// what was acknowledged before must still be there.
func TestFailedSyncIsNeverSuccess(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir(), Logger: testLogger(t)})
	l := openLog(t, e, LogConfig{DedupeWindow: time.Hour})
	before := mustAppend(t, l, "before", "before")

	n := runningNode(t, e)
	n.commits.sync = func([]write) error { return errors.New("injected: input/output error") }
	var acked sync.Map
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			id := fmt.Sprint("under-", i)
			// Appends with an ID are tried again by themselves on the storage
			// that comes after.
			if a, err := l.Append(t.Context(), Record{Subject: "s", ID: id, Data: []byte(id)}); err == nil {
				acked.Store(a.Sequence, id)
			} else if !errors.Is(err, ErrUnavailable) {
				t.Errorf("Append = %v, want success or ErrUnavailable", err)
			}
		})
	}
	wg.Wait()
	if fresh := runningNode(t, e); fresh == n {
		t.Fatal("the storage was not started anew")
	}
	if err := e.Err(); err != nil {
		t.Errorf("Err after recovery = %v", err)
	}
	count := 0
	acked.Range(func(seq, id any) bool {
		count++
		rec, err := l.Get(t.Context(), seq.(uint64))
		if err != nil || string(rec.Data) != id.(string) {
			t.Errorf("Get(%d) = %q, %v, want %q", seq, rec.Data, err, id)
		}
		return true
	})
	if count != 20 {
		t.Errorf("%d of 20 appends got through after the storage came back", count)
	}
	if rec, err := l.Get(t.Context(), before.Sequence); err != nil || string(rec.Data) != "before" {
		t.Errorf("Get(%d) = %q, %v", before.Sequence, rec.Data, err)
	}
}

// TestRecordsOfAFailedSyncAreForgotten looks at what the storage holds after a
// failed sync: the records may be in the system's cache and not on the disk, so
// that a duplicate of one must not be answered with success.
func TestRecordsOfAFailedSyncAreForgotten(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir(), CommitTimeout: 300 * time.Millisecond})
	l := openLog(t, e, LogConfig{DedupeWindow: time.Hour})
	mustAppend(t, l, "a", "a")
	n := runningNode(t, e)
	var failed atomic.Bool
	n.commits.sync = func([]write) error { failed.Store(true); return errors.New("injected") }
	if _, err := l.Append(t.Context(), Record{Subject: "s", Data: []byte("lost")}); !errors.Is(err, ErrUnavailable) { // no ID: not tried again
		t.Fatalf("Append = %v, want ErrUnavailable", err)
	}
	if !failed.Load() {
		t.Fatal("the sync was not reached")
	}
	b := mustAppend(t, l, "b", "b")
	if b.Duplicate || b.Sequence < 3 {
		t.Errorf("Append after the failure = %+v, want a new record after 2, which is used up", b)
	}
	wantData(t, take(t, l.Read(1), 2), "a", "b")
}

// TestSilentStorageIsRestarted lets acknowledgements go missing, as the
// embedded server does after a write error.
func TestSilentStorageIsRestarted(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir(), Logger: testLogger(t), CommitTimeout: 15 * time.Second})
	l := openLog(t, e, LogConfig{})
	n := runningNode(t, e)
	c := n.commits
	c.mu.Lock()
	c.token++
	c.inflight[c.token] = &pending{log: l, done: make(chan struct{})} // never acknowledged
	c.oldest = time.Now().Add(-2 * stallTimeout)
	c.mu.Unlock()
	<-n.failed
	mustAppend(t, l, "a", "a") // waits for the storage that comes after
	if runningNode(t, e) == n {
		t.Error("the storage was not started anew")
	}
}

// copyDir copies a data directory as a crash would leave it.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// blockFile returns the path of the only message block of a log.
func blockFile(t *testing.T, dir string) string {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "EVENTS", "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("blocks: %v, %v", blocks, err)
	}
	return blocks[0]
}

// TestLossIsNoticedAtStart damages the storage behind the engine's back in the
// ways that the server passes over in silence.
func TestLossIsNoticedAtStart(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, Config{Dir: dir})
	l := openLog(t, e, LogConfig{})
	for i := range 100 {
		mustAppend(t, l, "", fmt.Sprintf("record %d with some text to flip a bit in", i))
	}
	epoch := l.Epoch()
	closeEngine(t, e)

	edit := func(path string, change func([]byte) []byte) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	forgetIndex := func(dir string) { // the server rebuilds it from the blocks
		if err := os.Remove(filepath.Join(filepath.Dir(blockFile(t, dir)), "index.db")); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		damage    func(dir string)
		corrupted bool
		ok        bool // nothing is lost
	}{
		"nothing": {damage: func(string) {}, ok: true},
		"tail cut off": {damage: func(dir string) {
			forgetIndex(dir)
			edit(blockFile(t, dir), func(b []byte) []byte { return b[:len(b)-200] })
		}},
		"bit flipped in the middle": {damage: func(dir string) {
			forgetIndex(dir)
			edit(blockFile(t, dir), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}},
		"store gone": {damage: func(dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "jetstream")); err != nil {
				t.Fatal(err)
			}
		}},
		"blocks gone, index kept": {damage: func(dir string) {
			if err := os.Remove(blockFile(t, dir)); err != nil {
				t.Fatal(err)
			}
		}},
		"another store": {corrupted: true, damage: func(dir string) {
			edit(filepath.Join(dir, marksFile), func(b []byte) []byte {
				var m marks
				if err := json.Unmarshal(b, &m); err != nil {
					t.Fatal(err)
				}
				m.Logs["EVENTS"].Sums[10].Sum++
				b, _ = json.Marshal(m)
				return b
			})
		}},
		"description lost": {ok: true, damage: func(dir string) {
			for _, f := range []string{"meta.inf", "meta.sum"} {
				if err := os.Remove(filepath.Join(filepath.Dir(filepath.Dir(blockFile(t, dir))), f)); err != nil {
					t.Fatal(err)
				}
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			tt.damage(dir)
			e := openEngine(t, Config{Dir: dir, Logger: testLogger(t)})
			l, err := e.Log(t.Context(), LogConfig{Name: "EVENTS"})
			if tt.ok {
				if err != nil {
					t.Fatalf("Log: %v", err)
				}
				if l.Epoch() != epoch || l.Durable() != 100 {
					t.Errorf("epoch %s, durable %d, want %s, 100", l.Epoch(), l.Durable(), epoch)
				}
				if got := take(t, l.Read(0), 100); got[99] != "record 99 with some text to flip a bit in" {
					t.Errorf("last record = %q", got[99])
				}
				return
			}
			var loss *DataLossError
			if !errors.As(err, &loss) || loss.Want != 100 || loss.Corrupted != tt.corrupted {
				t.Fatalf("Log = %v, want a DataLossError, corrupted %v", err, tt.corrupted)
			}
			closeEngine(t, e)

			e = openEngine(t, Config{Dir: dir, AcceptDataLoss: true})
			l = openLog(t, e, LogConfig{})
			if l.Epoch() == epoch {
				t.Error("the epoch stayed the same after a loss of data: old cursors would skip in silence")
			}
			mustAppend(t, l, "", "after")
			closeEngine(t, e)
			l = openLog(t, openEngine(t, Config{Dir: dir}), LogConfig{}) // accepted once is enough
			if got := take(t, l.Read(l.Durable()), 1); got[0] != "after" {
				t.Errorf("last record = %q", got[0])
			}
		})
	}
}

// TestCrashKeepsWhatWasAcknowledged copies the directory while appends go on,
// as a crash of the process would leave it, and opens the copy.
func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, Config{Dir: dir})
	l := openLog(t, e, LogConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var acked atomic.Uint64
	var once sync.Once
	enough := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				a, err := l.Append(t.Context(), Record{Subject: "s", Data: []byte("data")})
				if err != nil {
					t.Error(err)
					return
				}
				if acked.Store(a.Sequence); a.Sequence >= 500 {
					once.Do(func() { close(enough) })
				}
			}
		})
	}
	<-enough
	promised := acked.Load()
	crashed := copyDir(t, dir)
	cancel()
	wg.Wait()
	l = openLog(t, openEngine(t, Config{Dir: crashed}), LogConfig{})
	if l.Durable() < promised {
		t.Errorf("after the crash the log ends at %d, %d were acknowledged", l.Durable(), promised)
	}
}
