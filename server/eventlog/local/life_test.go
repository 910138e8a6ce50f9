package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

func openLog(t testing.TB, e *Engine, cfg eventlog.LogConfig) *eventlog.Log {
	t.Helper()
	l, err := e.Log(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// hangSyncs has each sync of the write-ahead log wait until the returned function
// is called.
func (f *faulty) hangSyncs() (release func()) {
	hang := make(chan struct{})
	f.set(func(op errorfs.Op) error {
		if strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			<-hang
		}
		return nil
	})
	return func() {
		f.set(nil)
		close(hang)
	}
}

// TestNothingIsAnsweredBeforeTheSync has the disk take no sync: neither a large
// record, which Pebble treats in its own way, nor a twin, nor a conflict is
// answered.
func TestNothingIsAnsweredBeforeTheSync(t *testing.T) {
	large := []byte(strings.Repeat("x", 300<<10)) // more than a memtable of the test
	for name, appends := range map[string]func(*eventlog.Log) error{
		"large": func(l *eventlog.Log) error {
			_, err := l.Append(context.Background(), eventlog.Record{Subject: "s", Data: large})
			return err
		},
		"twin": func(l *eventlog.Log) error {
			_, err := l.Append(context.Background(), eventlog.Record{Subject: "s", ID: "first"})
			return err
		},
		"conflict": func(l *eventlog.Log) error {
			return l.AppendAt(context.Background(), 4, eventlog.Record{Subject: "s"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, l, disk := openFaulty(t, Config{CommitTimeout: time.Second})
			defer func() { closeEngine(t, e) }()
			appendN(t, l, 3)
			release := disk.hangSyncs()
			defer release()
			if name == "large" {
				if err := appends(l); !errors.Is(err, eventlog.ErrUnavailable) {
					t.Errorf("answered %v while the disk takes no sync, want ErrUnavailable", err)
				}
				return
			}
			first := make(chan error, 1)
			go func() {
				_, err := l.Append(context.Background(), eventlog.Record{Subject: "s", ID: "first"})
				first <- err
			}()
			eventually(t, func() bool { return e.writing.Load() != 0 })
			if err := appends(l); !errors.Is(err, eventlog.ErrUnavailable) {
				t.Errorf("answered %v while the disk takes no sync, want ErrUnavailable", err)
			}
			if err := <-first; !errors.Is(err, eventlog.ErrUnavailable) {
				t.Errorf("the first record: %v, want ErrUnavailable", err)
			}
			if n := l.Durable(); n != 3 {
				t.Errorf("readers are shown %d records, 3 are durable", n)
			}
		})
	}
}

// TestCloseAfterFailure closes an engine that fails meanwhile: it never closes
// the database, whose state is not known, and whoever waits for records returns.
func TestCloseAfterFailure(t *testing.T) {
	for i := range 20 {
		e, l, disk := openFaulty(t, Config{})
		appendN(t, l, 3)
		disk.set(of(".log", syscall.EIO, errorfs.OpFileSync, errorfs.OpFileSyncData))
		followed := make(chan error, 1)
		go func() {
			followed <- l.Follow(context.Background(), 1, func(eventlog.Step) error { return nil })
		}()
		go func() { _, _ = l.Append(context.Background(), eventlog.Record{Subject: "s"}) }()
		eventually(t, func() bool { return disk.hits.Load() > 0 })
		if i%2 == 0 {
			<-e.Failed()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := e.Close(ctx)
		cancel()
		if !errors.Is(err, eventlog.ErrUnavailable) {
			t.Fatalf("Close() after a failure = %v, want the failure", err)
		}
		if _, err := e.marks.file.Stat(); err != nil {
			t.Fatalf("Close() after a failure has closed the files: %v", err)
		}
		select {
		case err := <-followed:
			if !errors.Is(err, eventlog.ErrClosed) {
				t.Errorf("Follow() = %v, want ErrClosed", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("a reader waits for ever after Close")
		}
	}
}

// TestCloseOnAHungDisk closes an engine whose disk takes no write.
func TestCloseOnAHungDisk(t *testing.T) {
	e, l, disk := openFaulty(t, Config{})
	appendN(t, l, 3)
	hang := make(chan struct{})
	defer close(hang)
	disk.set(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			<-hang
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- e.Close(ctx) }()
	select {
	case err := <-closed:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close() = %v, want DeadlineExceeded", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Close() waits for ever")
	}
}

// TestAbandonedTrim has nobody wait for a trim any more when it is durable: what
// it removes is not shown.
func TestAbandonedTrim(t *testing.T) {
	e, l, disk := openFaulty(t, Config{CommitTimeout: time.Second})
	defer func() { closeEngine(t, e) }()
	appendN(t, l, 1)
	release := disk.hangSyncs()
	if err := l.Trim(t.Context(), 2); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Trim() = %v, want ErrUnavailable", err)
	}
	release()
	eventually(t, func() bool { return l.State().First == 2 })
	if _, err := l.Get(t.Context(), 1); !errors.Is(err, eventlog.ErrNotFound) {
		t.Errorf("Get(1) = %v after it was removed, want ErrNotFound", err)
	}
}

// TestReadsAtClose has reads wait for others when the engine closes.
func TestReadsAtClose(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	hold := make(chan struct{})
	var wg sync.WaitGroup
	for range maxReads {
		wg.Go(func() {
			_, _ = read(t.Context(), e, func() (struct{}, error) { <-hold; return struct{}{}, nil })
		})
	}
	eventually(t, func() bool { return len(e.reads) == maxReads })
	waits := make(chan error, 1)
	go func() {
		_, err := read(t.Context(), e, func() (struct{}, error) { return struct{}{}, nil })
		waits <- err
	}()
	closed := make(chan error, 1)
	go func() { closed <- e.Close(t.Context()) }()
	select {
	case err := <-waits:
		if !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("a read at Close = %v, want ErrClosed", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("a read waits though the engine closes")
	}
	close(hold)
	wg.Wait()
	if err := <-closed; err != nil {
		t.Errorf("Close() = %v", err)
	}
}

// TestNewLogHasADurableMark makes a log: a power cut right after must not look
// like the loss of its mark.
func TestNewLogHasADurableMark(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	for i := range 5 {
		openLog(t, e, eventlog.LogConfig{Name: fmt.Sprint("L", i)})
		e.marks.mu.Lock()
		dirty := e.marks.dirty
		e.marks.mu.Unlock()
		if dirty {
			t.Fatal("Log() has returned before the new log's mark is on stable storage")
		}
	}
}

// TestPlacesOfMarks ends the process between the sync of a new log and its mark:
// the place of that mark is not given to another log.
func TestPlacesOfMarks(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	e := openAt(t, cfg)
	openLog(t, e, eventlog.LogConfig{Name: "A"})
	cfg.Dir = kill(t, e)
	if err := os.Truncate(filepath.Join(cfg.Dir, markName), 0); err != nil {
		t.Fatal(err)
	}
	e = openAt(t, cfg)
	openLog(t, e, eventlog.LogConfig{Name: "B"})
	if a, b := e.known("A").entry.slot, e.known("B").entry.slot; a == b {
		t.Errorf("both logs have their mark at %d", a)
	}
	for _, name := range []string{"A", "B"} {
		appendN(t, openLog(t, e, eventlog.LogConfig{Name: name}), 3)
	}
	cfg.Dir = kill(t, e)
	openAt(t, cfg)
}

// TestRemovedAndMadeAgain removes a log and makes one of that name, with a crash
// between all steps.
func TestRemovedAndMadeAgain(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	e := openAt(t, cfg)
	for i := range 4 {
		l := openLog(t, e, eventlog.LogConfig{Name: "A"})
		appendN(t, l, 3+i)
		cfg.Dir = kill(t, e)
		e = openAt(t, cfg)
		if err := e.Remove(t.Context(), "A"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			cfg.Dir = kill(t, e)
			e = openAt(t, cfg)
		}
		if names, err := e.Logs(t.Context()); err != nil || len(names) > 0 {
			t.Fatalf("Logs() after Remove = %v, %v", names, err)
		}
	}
	if n := len(e.marks.places); n != 1 {
		t.Errorf("one log at a time has left %d places of marks", n)
	}
}

// TestRemoveUnderReaders removes a log that is read and opened: nobody is told
// of damage.
func TestRemoveUnderReaders(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir(), tune: small})
	for range 10 {
		cfg := eventlog.LogConfig{Name: "A"}
		l := openLog(t, e, cfg)
		appendN(t, l, 50)
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					l.Forget()
					err := l.Scan(t.Context(), 1, 50, func(eventlog.Record) error { return nil })
					if errors.As(err, new(*eventlog.DamagedError)) {
						t.Errorf("Scan() of a log that is removed = %v", err)
						return
					}
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				if l, err := e.Log(t.Context(), cfg); err != nil || l == nil {
					t.Errorf("Log() beside Remove = %v, %v", l, err)
				}
			}
		})
		if err := e.Remove(t.Context(), "A"); err != nil {
			t.Error(err)
		}
		<-time.After(5 * time.Millisecond)
		close(done)
		wg.Wait()
		if err := e.Remove(t.Context(), "A"); err != nil {
			t.Error(err)
		}
	}
}

// TestFailedCreation has the first start end after any of its steps: the next one
// works.
func TestFailedCreation(t *testing.T) {
	for n := int64(0); ; n++ {
		disk := &faulty{}
		cfg := Config{Dir: filepath.Join(t.TempDir(), "data"), tune: disk.tune}
		var ops atomic.Int64
		disk.set(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileSync && filepath.Ext(op.Path) != ".log" && !strings.Contains(filepath.Base(op.Path), ".") {
				return nil // Pebble panics in a goroutine of its own where a directory cannot be synced
			}
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && ops.Add(1) > n {
				return syscall.EIO
			}
			return nil
		})
		opened := make(chan error, 1)
		go func() {
			e, err := Open(t.Context(), cfg)
			if err == nil {
				e.fail(errKilled)
				_ = e.Close(t.Context())
				_ = e.closeFiles()
			}
			opened <- err
		}()
		var first error
		select {
		case first = <-opened:
		case <-time.After(10 * time.Second):
			t.Fatalf("Open() hangs when the disk fails at step %d", n)
		}
		if first == nil && n > 5 {
			return
		}
		dir := t.TempDir()
		copyDir(t, dir, cfg.Dir)
		e, err := Open(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatalf("Open() after a first start that failed at step %d (%v) = %v", n, first, err)
		}
		closeEngine(t, e)
	}
}

// TestTrimErrors has the disk fail to read while the log is trimmed: the bytes
// held are not forgotten.
func TestTrimErrors(t *testing.T) {
	e, l, _ := openFaulty(t, Config{})
	appendN(t, l, 1000)
	closeEngine(t, e)
	e, l, disk := openFaulty(t, Config{Dir: e.cfg.Dir})
	defer func() { closeEngine(t, e) }()
	before := l.State()
	disk.set(of(".sst", syscall.EIO, errorfs.OpFileReadAt, errorfs.OpFileRead, errorfs.OpOpen))
	if err := l.Trim(t.Context(), 500); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Trim() = %v, want ErrUnavailable", err)
	}
	disk.set(nil)
	appendN(t, l, 1)
	if after := l.State(); after.Bytes < before.Bytes || after.First != 1 {
		t.Errorf("State() after a trim that failed = %+v, before %+v", after, before)
	}
	if err := l.Trim(t.Context(), 500); err != nil {
		t.Error(err)
	}
	if after := l.State(); after.Count != 502 || after.Bytes > before.Bytes {
		t.Errorf("State() after the trim = %+v", after)
	}
}

// TestWidenErrors has the disk fail at any read while a log gets a much longer
// window: no identity is forgotten.
func TestWidenErrors(t *testing.T) {
	e, l, _ := openFaulty(t, Config{})
	appendN(t, l, 1000)
	closeEngine(t, e)
	disk := &faulty{}
	e = openAt(t, Config{Dir: e.cfg.Dir, tune: disk.tune})
	failures := 0
	for n := int64(0); ; n++ {
		var reads atomic.Int64
		disk.set(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") && reads.Add(1) > n {
				return syscall.EIO
			}
			return nil
		})
		var err error
		if l, err = e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS", DedupeWindow: 24 * time.Hour}); err == nil {
			break
		}
		failures++
	}
	disk.set(nil)
	if failures == 0 {
		t.Fatal("the fault did not happen")
	}
	for i := 1; i <= 1000; i += 13 {
		a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: fmt.Sprint("id", i)})
		if err != nil || !a.Duplicate {
			t.Fatalf("the twin of %d = %+v, %v, after %d failures", i, a, err, failures)
		}
	}
}

// TestHealthOfBackgroundWork has flushes fail while compactions succeed.
func TestHealthOfBackgroundWork(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	l := e.listener()
	l.FlushEnd(pebble.FlushInfo{Err: syscall.ENOSPC})
	l.BackgroundError(syscall.ENOSPC)
	l.CompactionEnd(pebble.CompactionInfo{Err: pebble.ErrCancelledCompaction})
	l.CompactionEnd(pebble.CompactionInfo{})
	if err := e.Err(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Err() while flushes fail = %v", err)
	}
	l.FlushEnd(pebble.FlushInfo{})
	if err := e.Err(); err != nil {
		t.Errorf("Err() once flushes succeed = %v", err)
	}
}

// TestReadKeyAcrossBuckets reads one key from several buckets of the index.
func TestReadKeyAcrossBuckets(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	l := openLog(t, e, eventlog.LogConfig{Name: "A"})
	s := e.known("A")
	moveTo := func(last uint64) { // as if the log had grown and been trimmed
		err := e.submit(t.Context(), &op{do: func(g *group, _ *op) error {
			c := g.of(s)
			c.state.last, c.touched = last, true
			if c.state.first == 1 {
				c.state.first = last + 1
				s.first.Store(last + 1)
			} else {
				must(g.batch.Set(sequenceKey(keyLost, s.entry.number, s.next.last+1), sequenceKey(keyLost, 0, last)[5:], nil))
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	const bucket = 1 << indexBits
	var want []uint64
	for _, last := range []uint64{bucket - 3, 2*bucket - 2, 4*bucket - 4} {
		moveTo(last)
		for i := range 6 {
			key := "chat"
			if i%3 == 1 {
				key = "other"
			}
			a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", Key: key})
			if err != nil {
				t.Fatal(err)
			}
			if key == "chat" {
				want = append(want, a.Sequence)
			}
		}
	}
	for i, from := range want {
		for _, reverse := range []bool{false, true} {
			records, err := l.ReadKey(t.Context(), "chat", from, 1000, reverse)
			var got []uint64
			for _, r := range records {
				got = append(got, r.Sequence)
			}
			expected := want[i:]
			if reverse {
				expected = nil
				for j := i; j >= 0; j-- {
					expected = append(expected, want[j])
				}
			}
			if err != nil || fmt.Sprint(got) != fmt.Sprint(expected) {
				t.Errorf("ReadKey(from %d, reverse %v) = %v, %v, want %v", from, reverse, got, err, expected)
			}
		}
	}
}

// An erofs is a file system that takes no lock, because it takes no write.
type erofs struct{ vfs.FS }

func (erofs) Lock(name string) (io.Closer, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
}

// TestReadOnlyFileSystem opens a log on a file system that takes no write.
func TestReadOnlyFileSystem(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	appendN(t, openLog(t, e, eventlog.LogConfig{Name: "A"}), 3)
	closeEngine(t, e)
	again, err := OpenReadOnly(t.Context(), Config{Dir: e.cfg.Dir, tune: func(o *pebble.Options) { o.FS = erofs{vfs.Default} }})
	if err != nil {
		t.Fatalf("OpenReadOnly() = %v", err)
	}
	defer closeEngine(t, again)
	if _, err := openLog(t, again, eventlog.LogConfig{Name: "A"}).Get(t.Context(), 3); err != nil {
		t.Errorf("Get(3) = %v", err)
	}
}

// TestReadOnly opens what is missing, in use, damaged or no data directory, for
// reading only.
func TestReadOnly(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := OpenReadOnly(t.Context(), Config{Dir: missing}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenReadOnly() of a missing directory = %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenReadOnly() has made the directory: %v", err)
	}
	empty := t.TempDir()
	if _, err := OpenReadOnly(t.Context(), Config{Dir: empty}); err == nil || errors.As(err, new(*eventlog.DataLossError)) {
		t.Errorf("OpenReadOnly() of an empty directory = %v, want an error that is no loss", err)
	}
	if n := len(digest(t, empty)); n > 0 {
		t.Errorf("OpenReadOnly() has made %d files", n)
	}
	e := openAt(t, Config{Dir: t.TempDir(), tune: small})
	appendN(t, openLog(t, e, eventlog.LogConfig{Name: "A"}), 5)
	if _, err := OpenReadOnly(t.Context(), Config{Dir: e.cfg.Dir}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("OpenReadOnly() of a directory in use = %v", err)
	}
	dir := kill(t, e)
	if err := os.Remove(filepath.Join(dir, markName)); err != nil {
		t.Fatal(err)
	}
	before := digest(t, dir)
	r, err := OpenReadOnly(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatalf("OpenReadOnly() of a directory without its mark = %v", err)
	}
	l := openLog(t, r, eventlog.LogConfig{Name: "A"})
	if last, err := l.Last(t.Context(), 9); err != nil || len(last) != 5 {
		t.Errorf("Last() = %d records, %v", len(last), err)
	}
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s"}); err == nil {
		t.Error("Append() to a log that is read only")
	}
	closeEngine(t, r)
	if !equalDigests(before, digest(t, dir)) {
		t.Error("OpenReadOnly() has changed files")
	}
}

// TestFailoverDirectoryIsGone starts without the directory that part of the
// write-ahead log may be in: that is no damage, and the error names it.
func TestFailoverDirectoryIsGone(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	cfg := Config{Dir: t.TempDir(), WALFailoverDir: other}
	e := openAt(t, cfg)
	appendN(t, openLog(t, e, eventlog.LogConfig{Name: "A"}), 5)
	cfg.Dir = kill(t, e)
	cfg.WALFailoverDir = ""
	_, err := Open(t.Context(), cfg)
	if err == nil || errors.As(err, new(*eventlog.DataLossError)) || !strings.Contains(err.Error(), other) {
		t.Errorf("Open() without wal_failover_dir = %v, want an error that names it", err)
	}
	r, err := OpenReadOnly(t.Context(), cfg)
	if err != nil {
		t.Fatalf("OpenReadOnly() without wal_failover_dir = %v", err)
	}
	if l := openLog(t, r, eventlog.LogConfig{Name: "A"}); l.Durable() != 5 {
		t.Errorf("%d records for who only reads, want 5", l.Durable())
	}
	closeEngine(t, r)
	cfg.WALFailoverDir = other
	if l := openLog(t, openAt(t, cfg), eventlog.LogConfig{Name: "A"}); l.Durable() != 5 {
		t.Errorf("%d records with wal_failover_dir, want 5", l.Durable())
	}
}

// TestAcceptedLossOfAll loses every record of a log: what is lost is not held.
func TestAcceptedLossOfAll(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	e := openAt(t, cfg)
	l := openLog(t, e, eventlog.LogConfig{Name: "A"})
	older := t.TempDir()
	copyDir(t, older, e.cfg.Dir)
	appendN(t, l, 10)
	newer := kill(t, e)
	mark, err := os.ReadFile(filepath.Join(newer, markName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(older, markName), mark, 0o600); err != nil {
		t.Fatal(err)
	}
	e = openAt(t, Config{Dir: older, AcceptDataLoss: true})
	l = openLog(t, e, eventlog.LogConfig{Name: "A"})
	if s := l.State(); s.Count != 0 || s.First != 11 || s.Last != 10 {
		t.Errorf("State() = %+v after the loss of all records, want an empty log that ends at 10", s)
	}
	appendN(t, l, 2)
	if s := l.State(); s.Count != 2 || s.First != 11 {
		t.Errorf("State() = %+v, want 11 and 12", s)
	}
}
