package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A faulty disk does what fault says before each operation.
type faulty struct {
	fault atomic.Pointer[func(errorfs.Op) error]
	hits  atomic.Uint64 // operations that fault has stopped
}

// set has the disk fail from now on; nil heals it.
func (f *faulty) set(fault func(errorfs.Op) error) {
	if fault == nil {
		f.fault.Store(nil)
		return
	}
	f.fault.Store(&fault)
}

func (f *faulty) String() string { return "faulty" }

// MaybeError implements errorfs.Injector.
func (f *faulty) MaybeError(op errorfs.Op) error {
	fault := f.fault.Load()
	if fault == nil {
		return nil
	}
	err := (*fault)(op)
	if err != nil {
		f.hits.Add(1)
	}
	return err
}

func (f *faulty) tune(o *pebble.Options) {
	small(o)
	o.FS = errorfs.Wrap(vfs.Default, f)
	o.CacheSize = 1 // every read is one of the disk
}

// of returns a fault of the operations of these kinds on files of one ending.
func of(ending string, err error, kinds ...errorfs.OpKind) func(errorfs.Op) error {
	return func(op errorfs.Op) error {
		for _, kind := range kinds {
			if op.Kind == kind && strings.HasSuffix(op.Path, ending) {
				return err
			}
		}
		return nil
	}
}

// openFaulty opens an engine on a disk that the test can break, and its log.
func openFaulty(t testing.TB, cfg Config) (*Engine, *eventlog.Log, *faulty) {
	t.Helper()
	disk := &faulty{}
	cfg.tune = disk.tune
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS", DedupeWindow: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return e, l, disk
}

func appendN(t testing.TB, l *eventlog.Log, n int) {
	t.Helper()
	for i := range n {
		r := eventlog.Record{Subject: "s", ID: fmt.Sprint("id", l.Durable()+1), Data: fmt.Appendf(nil, "%0500d", i)}
		if a, err := l.Append(t.Context(), r); err != nil || a.Duplicate {
			t.Fatalf("Append() = %+v, %v", a, err)
		}
	}
}

func eventually(t testing.TB, met func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !met(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the condition was not met in time")
		}
	}
}

// TestFailedSyncIsFinal has one sync of the write-ahead log fail: whoever waits
// gets an error, nothing is acknowledged any more, though the disk is well
// again, and the next start has all that was.
func TestFailedSyncIsFinal(t *testing.T) {
	for name, kinds := range map[string][]errorfs.OpKind{
		"sync":  {errorfs.OpFileSync, errorfs.OpFileSyncData},
		"write": {errorfs.OpFileWrite},
	} {
		t.Run(name, func(t *testing.T) {
			e, l, disk := openFaulty(t, Config{})
			appendN(t, l, 50)
			disk.set(of(".log", syscall.EIO, kinds...))
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					_, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: fmt.Sprint("late", i), Data: []byte("late")})
					if !errors.Is(err, eventlog.ErrUnavailable) {
						t.Errorf("Append() on a disk that fails = %v, want ErrUnavailable", err)
					}
				})
			}
			wg.Wait()
			if disk.hits.Load() == 0 {
				t.Fatal("the fault did not happen")
			}
			disk.set(nil)
			<-e.Failed()
			if err := e.Err(); !errors.Is(err, eventlog.ErrUnavailable) || !strings.Contains(err.Error(), syscall.EIO.Error()) {
				t.Errorf("Err() = %v, want the cause", err)
			}
			if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s"}); !errors.Is(err, eventlog.ErrUnavailable) {
				t.Errorf("Append() after a failed sync = %v, want ErrUnavailable", err)
			}
			dir := t.TempDir()
			copyDir(t, dir, e.cfg.Dir)
			again := openAt(t, Config{Dir: dir, tune: small})
			l, err := again.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
			if err != nil {
				t.Fatal(err)
			}
			if n := l.Durable(); n < 50 || n > 58 {
				t.Errorf("%d records after the restart, want the 50 acknowledged and at most 8 others", n)
			}
		})
	}
}

// TestHungDisk stops the disk: appends and the look at the health return all the
// same, reads go on, and when the disk goes on so does the engine.
func TestHungDisk(t *testing.T) {
	const timeout = 300 * time.Millisecond
	e, l, disk := openFaulty(t, Config{CommitTimeout: timeout})
	defer func() { closeEngine(t, e) }()
	appendN(t, l, 20)
	hang, hung := make(chan struct{}), atomic.Bool{}
	disk.set(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			hung.Store(true)
			<-hang
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			began := time.Now()
			_, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: fmt.Sprint("hung", i)})
			if took := time.Since(began); !errors.Is(err, eventlog.ErrUnavailable) || took > timeout+time.Second {
				t.Errorf("Append() on a disk that hangs = %v after %v", err, took)
			}
		})
	}
	wg.Wait()
	if !hung.Load() {
		t.Fatal("the fault did not happen")
	}
	if err := e.Err(); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Err() while the disk hangs = %v, want ErrUnavailable", err)
	}
	l.Forget() // or the reads would be of memory
	if r, err := l.Get(t.Context(), 20); err != nil || r.Sequence != 20 {
		t.Errorf("Get() while the disk takes no writes = %v, %v", r, err)
	}
	disk.set(nil)
	close(hang)
	eventually(t, func() bool { return e.Err() == nil })
	a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "hung0"})
	if err != nil {
		t.Fatalf("Append() after the disk went on = %v", err)
	}
	if again, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "hung0"}); err != nil || again.Sequence != a.Sequence || !again.Duplicate {
		t.Errorf("the same again = %+v, %v, want a duplicate of %d", again, err, a.Sequence)
	}
}

// TestReadErrors has the disk fail to read: no read is shorter for it, no twin is
// stored, and afterwards everything is there.
func TestReadErrors(t *testing.T) {
	e, l, _ := openFaulty(t, Config{})
	appendN(t, l, 2000)
	closeEngine(t, e)
	e, l, disk := openFaulty(t, Config{Dir: e.cfg.Dir}) // what was written is in tables now
	defer func() { closeEngine(t, e) }()
	disk.set(of(".sst", syscall.EIO, errorfs.OpFileReadAt, errorfs.OpFileRead, errorfs.OpOpen))
	seen := uint64(0)
	err := l.Scan(t.Context(), 1, l.Durable(), func(r eventlog.Record) error {
		if r.Sequence != seen+1 {
			t.Fatalf("record %d follows %d", r.Sequence, seen)
		}
		seen = r.Sequence
		return nil
	})
	if !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, syscall.EIO) {
		t.Errorf("Scan() of a disk that cannot be read = %v after %d records, want ErrUnavailable", err, seen)
	}
	r := l.Read(1)
	if _, err := r.Next(t.Context(), 10); err == nil || r.Position() != 0 {
		t.Errorf("Next() = %v, position %d, want an error that moves nothing", err, r.Position())
	}
	a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "id77"})
	if err == nil && (!a.Duplicate || a.Sequence != 77) {
		t.Errorf("the twin of record 77 = %+v, %v, want a duplicate or an error", a, err)
	}
	if disk.hits.Load() == 0 {
		t.Fatal("the fault did not happen")
	}
	disk.set(nil)
	seen = 0
	if err := l.Scan(t.Context(), 1, 2000, func(eventlog.Record) error { seen++; return nil }); err != nil || seen != 2000 {
		t.Errorf("Scan() after the fault = %v, %d records, want 2000", err, seen)
	}
	if a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "id77"}); err != nil || !a.Duplicate || a.Sequence != 77 {
		t.Errorf("the twin of record 77 after the fault = %+v, %v, want a duplicate", a, err)
	}
}

// TestBackgroundErrors has the disk refuse new tables, as a full one does: the
// health names the cause, and is well again when the disk is.
func TestBackgroundErrors(t *testing.T) {
	e, l, disk := openFaulty(t, Config{})
	defer func() { closeEngine(t, e) }()
	disk.set(of(".sst", syscall.ENOSPC, errorfs.OpCreate, errorfs.OpFileWrite))
	appendN(t, l, 500) // a memtable's worth
	eventually(t, func() bool { return e.Err() != nil })
	if err := e.Err(); !errors.Is(err, eventlog.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Err() = %v, want the cause", err)
	}
	disk.set(nil)
	eventually(t, func() bool { return e.Err() == nil })
	appendN(t, l, 10)
}

// TestDamagedIdentities damages what holds the identities: callbacks are taken
// all the same.
func TestDamagedIdentities(t *testing.T) {
	e, l, _ := openFaulty(t, Config{})
	appendN(t, l, 2000)
	closeEngine(t, e)
	e, l, disk := openFaulty(t, Config{Dir: e.cfg.Dir})
	defer func() { closeEngine(t, e) }()
	disk.set(of(".sst", pebble.ErrCorruption, errorfs.OpFileReadAt))
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "id77"}); err != nil {
		t.Errorf("Append() beside damaged identities = %v", err)
	}
	if disk.hits.Load() == 0 {
		t.Fatal("the fault did not happen")
	}
	disk.set(nil)
}

// TestReplacedDirectory moves the data directory, or a part of it, away under a
// running engine.
func TestReplacedDirectory(t *testing.T) {
	for _, part := range []string{"", databaseDir, markName} {
		t.Run(part, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			e, l, _ := openFaulty(t, Config{Dir: dir})
			appendN(t, l, 3)
			if err := os.Rename(filepath.Join(dir, part), filepath.Join(filepath.Dir(dir), "away")); err != nil {
				t.Fatal(err)
			}
			<-e.Failed()
			if err := e.Err(); !strings.Contains(err.Error(), "the data directory") {
				t.Errorf("Err() = %v, want the cause", err)
			}
			if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s"}); !errors.Is(err, eventlog.ErrUnavailable) {
				t.Errorf("Append() = %v, want ErrUnavailable", err)
			}
		})
	}
}

// TestLinkedDirectory has the data directory be a link, given as a relative path:
// it is not taken for one that was replaced.
func TestLinkedDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.Mkdir("there", 0o700), os.Symlink("there", "data")); err != nil {
		t.Fatal(err)
	}
	e := openAt(t, Config{Dir: "data"})
	for range 3 {
		e.watch()
	}
	if err := e.Err(); err != nil {
		t.Errorf("Err() = %v", err)
	}
	closeEngine(t, e)
}

// TestSalvageTwice accepts the loss of the same file a second time: the first
// copy stays.
func TestSalvageTwice(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	appendN(t, openLog(t, e, eventlog.LogConfig{Name: "EVENTS"}), 100)
	dir := kill(t, e)
	logs, err := filepath.Glob(filepath.Join(dir, databaseDir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no write-ahead log: ", err)
	}
	e = &Engine{cfg: Config{WALFailoverDir: filepath.Join(dir, "gone")}, logger: slog.New(slog.DiscardHandler)}
	if e.dir, err = openDirectory(dir, false); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.dir.close() }()
	for n, at := range []int{30_000, 20_000} {
		data, err := os.ReadFile(logs[len(logs)-1])
		if err != nil {
			t.Fatal(err)
		}
		data[at] ^= 1
		if err := errors.Join(os.WriteFile(logs[len(logs)-1], data, 0o600), e.salvage()); err != nil {
			t.Fatalf("salvage() = %v", err)
		}
		if kept, err := filepath.Glob(filepath.Join(dir, damagedDir, "*")); err != nil || len(kept) != n+1 {
			t.Errorf("kept %v, %v, want %d files", kept, err, n+1)
		}
	}
}

// refused opens dir, which must be refused, with no file changed.
func refused(t *testing.T, dir, reason string) {
	t.Helper()
	before := digest(t, dir)
	e, err := Open(t.Context(), Config{Dir: dir, tune: small})
	if err == nil {
		closeEngine(t, e)
		t.Fatal("the start was not refused")
	}
	if !strings.Contains(err.Error(), reason) {
		t.Errorf("refused with %q, want %q in it", err, reason)
	}
	if after := digest(t, dir); !maps.Equal(before, after) {
		t.Error("a refused start has changed files")
	}
}

// TestMissingFiles takes each kind of file away, empties it, or puts an older
// one in its place.
func TestMissingFiles(t *testing.T) {
	e, err := Open(t.Context(), Config{Dir: t.TempDir(), tune: small})
	if err != nil {
		t.Fatal(err)
	}
	acked := populate(t, e)
	killed := kill(t, e)
	files, err := filepath.Glob(filepath.Join(killed, databaseDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, filepath.Join(killed, markName)) {
		rel, _ := filepath.Rel(killed, file)
		for name, do := range map[string]func(string) error{
			"missing": os.Remove,
			"empty":   func(path string) error { return os.Truncate(path, 0) },
			"half": func(path string) error {
				info, err := os.Stat(path)
				if err != nil {
					return err
				}
				return os.Truncate(path, info.Size()/2)
			},
		} {
			if strings.HasSuffix(rel, ".sst") && name == "half" && rel[len(rel)-5]%4 != 0 {
				continue // one of four will do
			}
			t.Run(rel+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				copyDir(t, dir, killed)
				if err := do(filepath.Join(dir, rel)); err != nil {
					t.Fatal(err)
				}
				t.Log(openFlipped(t, dir, acked))
			})
		}
	}
}

// TestRefusedStarts is what is refused at once, and why.
func TestRefusedStarts(t *testing.T) {
	prepare := func(t *testing.T) (dir string, acked acknowledged) {
		e, err := Open(t.Context(), Config{Dir: t.TempDir(), tune: small})
		if err != nil {
			t.Fatal(err)
		}
		acked = populate(t, e)
		return kill(t, e), acked
	}
	t.Run("database gone", func(t *testing.T) {
		dir, _ := prepare(t)
		if err := os.RemoveAll(filepath.Join(dir, databaseDir)); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "is missing")
	})
	t.Run("mark gone", func(t *testing.T) {
		dir, acked := prepare(t)
		if err := os.Remove(filepath.Join(dir, markName)); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "high-water mark is missing")
		e := openAt(t, Config{Dir: dir, AcceptDataLoss: true, tune: small})
		if n := check(t, e, acked); n != 0 {
			t.Errorf("%d records are damaged after the loss of a mark", n)
		}
	})
	t.Run("an older database", func(t *testing.T) {
		e, err := Open(t.Context(), Config{Dir: t.TempDir(), tune: small})
		if err != nil {
			t.Fatal(err)
		}
		l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		appendN(t, l, 10)
		older := t.TempDir()
		copyDir(t, older, e.cfg.Dir)
		appendN(t, l, 10)
		epoch := l.Epoch()
		killed := kill(t, e)
		mark, err := os.ReadFile(filepath.Join(killed, markName))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(older, markName), mark, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, older, "records up to 20 were acknowledged, only those up to 10 are there")

		e = openAt(t, Config{Dir: older, AcceptDataLoss: true, tune: small})
		if l, err = e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"}); err != nil {
			t.Fatal(err)
		}
		if l.Epoch() == epoch {
			t.Error("the epoch is the one of before the loss")
		}
		appendN(t, l, 1)
		if l.Durable() != 21 {
			t.Errorf("the next record after the loss of 11 to 20 is %d, want 21", l.Durable())
		}
		n := 0
		if err := l.Scan(t.Context(), 1, 21, func(eventlog.Record) error { n++; return nil }); err != nil || n != 11 {
			t.Errorf("Scan() = %v, %d records, want the first 10 and the new one", err, n)
		}
		if s := l.State(); s.Count != 11 {
			t.Errorf("State() = %+v, want 11 records", s)
		}
		closeEngine(t, e)
		openAt(t, Config{Dir: older, tune: small}) // accepted is accepted
	})
	t.Run("old layout", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "jetstream"), 0o700); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "first storage engine")
	})
	t.Run("in use", func(t *testing.T) {
		e := openAt(t, Config{Dir: t.TempDir()})
		if _, err := Open(t.Context(), Config{Dir: e.cfg.Dir}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
			t.Errorf("Open() of a directory in use = %v", err)
		}
	})
}

// TestSalvage accepts the loss of what a damaged write-ahead log held.
func TestSalvage(t *testing.T) {
	e, err := Open(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 500)
	dir := kill(t, e)
	logs, err := filepath.Glob(filepath.Join(dir, databaseDir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no write-ahead log: ", err)
	}
	data, err := os.ReadFile(logs[len(logs)-1])
	if err != nil {
		t.Fatal(err)
	}
	data[5_000] ^= 1
	if err := os.WriteFile(logs[len(logs)-1], data, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "damaged and cannot be opened")
	again := openAt(t, Config{Dir: dir, AcceptDataLoss: true})
	if l, err = again.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = l.Scan(t.Context(), 1, l.Durable(), func(eventlog.Record) error { n++; return nil })
	if err != nil || n < 5 || n >= 500 || l.Durable() != 500 {
		t.Errorf("Scan() = %v, %d records of %d, want what was before the damage", err, n, l.Durable())
	}
	if kept, err := filepath.Glob(filepath.Join(dir, damagedDir, "*.log")); err != nil || len(kept) != 1 {
		t.Errorf("kept %v, %v, want the damaged file", kept, err)
	}
}

// TestClockAhead starts with a clock that is far ahead: nothing goes before the
// operator has had time to look.
func TestClockAhead(t *testing.T) {
	c := newClock()
	cfg := Config{Dir: t.TempDir(), Clock: c.Now}
	log := eventlog.LogConfig{Name: "EVENTS", MaxAge: 7 * 24 * time.Hour}
	e := openAt(t, cfg)
	l, err := e.Log(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 10)
	closeEngine(t, e)
	c.Advance(8 * 24 * time.Hour)
	e = openAt(t, cfg)
	if l, err = e.Log(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	(&sweeper{engine: e, seen: c.Now().Add(-8 * 24 * time.Hour)}).sweep()
	if s := l.State(); s.Count != 10 {
		t.Errorf("%d of 10 records are left right after the start", s.Count)
	}
	eventually(t, func() bool {
		c.Advance(hold / 2) // the engine's own sweeper has begun to wait by now, or will
		e.sweepSoon()
		return l.State().Count == 0
	})
}

// TestBallast makes room for a start on a full disk.
func TestBallast(t *testing.T) {
	const minFree = 64 << 20
	dir := t.TempDir()
	e := openAt(t, Config{Dir: dir, MinFree: minFree})
	info, err := os.Stat(filepath.Join(dir, ballastName))
	if err != nil || info.Size() != minFree/ballastOf {
		t.Fatalf("the ballast is %v, %v, want %d bytes", info, err, minFree/ballastOf)
	}
	closeEngine(t, e)
	e = openAt(t, Config{Dir: dir, MinFree: 1 << 60})
	if _, err := os.Stat(filepath.Join(dir, ballastName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ballast is still there when the disk is short: %v", err)
	}
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(context.Background(), eventlog.Record{Subject: "s"}); !errors.Is(err, eventlog.ErrFull) {
		t.Errorf("Append() below min_free = %v, want ErrFull", err)
	}
	if err := e.Err(); !errors.Is(err, eventlog.ErrFull) {
		t.Errorf("Err() below min_free = %v, want ErrFull", err)
	}
}

// TestWhole refuses a start, with no file changed, when a log that must be whole
// is not; who accepts the loss goes on without what is damaged.
func TestWhole(t *testing.T) {
	readable := func(o *pebble.Options) {
		o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	}
	e, err := Open(t.Context(), Config{Dir: t.TempDir(), tune: readable})
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "GROUPS", Deletes: true})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 100)
	closeEngine(t, e)
	dir := e.cfg.Dir
	e, err = Open(t.Context(), Config{Dir: dir, tune: readable}) // which writes it to a table
	if err != nil {
		t.Fatal(err)
	}
	closeEngine(t, e)
	tables, err := filepath.Glob(filepath.Join(dir, databaseDir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables %v, %v, want one", tables, err)
	}
	data, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte("0000000050")) // some record's data
	if at < 0 {
		t.Fatal("the data of a record is not in the table")
	}
	data[at] ^= 1
	if err := os.WriteFile(tables[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	before := digest(t, dir)
	cfg := Config{Dir: dir, Whole: []string{"GROUPS"}}
	var lost *eventlog.DataLossError
	if _, err := Open(t.Context(), cfg); !errors.As(err, &lost) {
		t.Fatalf("Open() of a damaged log that must be whole = %v, want a DataLossError", err)
	}
	if !equalDigests(before, digest(t, dir)) {
		t.Error("a refused start has changed files")
	}
	cfg.AcceptDataLoss = true
	e = openAt(t, cfg)
	if l, err = e.Log(t.Context(), eventlog.LogConfig{Name: "GROUPS", Deletes: true}); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := l.Scan(t.Context(), 1, 100, func(eventlog.Record) error { n++; return nil }); err != nil || n < 50 || n > 99 {
		t.Errorf("Scan() = %v, %d records, want most of 100", err, n)
	}
}

// TestStartOnFullDisk ends a start that cannot write what it has replayed.
func TestStartOnFullDisk(t *testing.T) {
	e, l, _ := openFaulty(t, Config{})
	appendN(t, l, 100)
	dir := kill(t, e)
	copied := t.TempDir()
	copyDir(t, copied, dir)
	disk := &faulty{}
	disk.set(of(".sst", syscall.ENOSPC, errorfs.OpCreate, errorfs.OpFileWrite))
	if _, err := Open(t.Context(), Config{Dir: dir, tune: disk.tune}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Open() on a full disk = %v, want the cause", err)
	}
	again := openAt(t, Config{Dir: copied, tune: small}) // the first attempt stays in this process
	if l, err := again.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"}); err != nil || l.Durable() != 100 {
		t.Errorf("after there is room: %v, want 100 records", err)
	}
	disk.set(nil) // which lets the first attempt end
	eventually(t, func() bool { return os.RemoveAll(dir) == nil })
}
