package local

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A rig is an engine whose database is on a disk that knows what was synced.
type rig struct {
	t      *testing.T
	disk   *vfs.MemFS
	faulty faulty
	clock  *clock
	name   string // of log
	engine *Engine
	log    *eventlog.Log
	mark   []byte // as it was last synced
}

// newRig opens an engine on a disk in memory, with five records in each log.
func newRig(t *testing.T, name string) *rig {
	t.Helper()
	r := &rig{t: t, disk: vfs.NewCrashableMem(), clock: newClock(), name: name}
	r.open(Config{Dir: t.TempDir(), tune: func(o *pebble.Options) { o.FS = errorfs.Wrap(r.disk, &r.faulty) }})
	for _, r.name = range both {
		r.openLog()
		r.keepMark()
		for i := range uint64(5) {
			if i == 3 && r.name == "EVENTS" {
				r.clock.Advance(50 * time.Minute)
			}
			if err := r.append(i + 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.name = name
	r.openLog()
	return r
}

func (r *rig) open(cfg Config) {
	r.t.Helper()
	cfg.Clock = r.clock.Now
	e, err := Open(r.t.Context(), cfg)
	if err != nil {
		r.t.Fatalf("the start is refused: %v", err)
	}
	r.engine = e
	r.t.Cleanup(func() { closeEngine(r.t, e) })
}

func (r *rig) openLog() {
	r.t.Helper()
	cfg := eventlog.LogConfig{Name: r.name, DedupeWindow: 24 * time.Hour, Deletes: true}
	if r.name == "EVENTS" {
		cfg.MaxAge = time.Hour
	}
	var err error
	if r.log, err = r.engine.Log(r.t.Context(), cfg); err != nil {
		r.t.Fatal(err)
	}
}

func keyOf(sequence uint64) string { return fmt.Sprint("chat", sequence%2) }

// append appends the record that is to be at sequence; to a journal as a group
// does, and else as a callback that may come for a second time.
func (r *rig) append(sequence uint64) error {
	rec := eventlog.Record{Subject: "s", Key: keyOf(sequence), ID: fmt.Sprint("id", sequence), Data: []byte("data")}
	if r.name != "EVENTS" {
		return r.log.AppendAt(r.t.Context(), sequence, rec)
	}
	a, err := r.log.Append(r.t.Context(), rec)
	if err == nil && a.Sequence != sequence {
		err = fmt.Errorf("stored at %d, want %d", a.Sequence, sequence)
	}
	return err
}

func (r *rig) readMark() []byte {
	r.t.Helper()
	b, err := os.ReadFile(r.engine.dir.file(markName))
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// keepMark takes down what of the mark is on the disk for sure.
func (r *rig) keepMark() {
	r.engine.marks.mu.Lock()
	dirty := r.engine.marks.dirty
	r.engine.marks.mu.Unlock()
	if !dirty {
		r.mark = r.readMark()
	}
}

// An image is what a crash may leave.
type image struct {
	disk *vfs.MemFS
	mark []byte
	want []*extent // what may be found
}

// crash makes a change, and returns what a crash at the stop may leave.
func (r *rig) crash(c *operation, at stop) []image {
	r.t.Helper()
	reached, release := make(chan struct{}), make(chan struct{})
	kinds := []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData}
	if at == unwritten {
		kinds = []errorfs.OpKind{errorfs.OpFileWrite}
	}
	batches := 0 // only Pebble's one writer of the write-ahead log counts
	r.faulty.set(func(op errorfs.Op) error {
		if !strings.HasSuffix(op.Path, ".log") || !slices.Contains(kinds, op.Kind) {
			return nil
		}
		if batches++; batches == c.batch {
			close(reached)
			<-release
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- c.do(r) }()
	<-reached
	stopped := r.disk.CrashClone(vfs.CrashCloneCfg{})
	var images []image
	r.keepMark()
	mark := r.readMark()
	switch at {
	case unwritten:
		images = []image{{stopped, mark, []*extent{&c.before}}, {r.clone(100), mark, []*extent{&c.before}}}
	case unsynced:
		images = []image{{stopped, mark, []*extent{&c.before}}, {r.clone(100), mark, []*extent{&c.after}}}
		for range 4 {
			images = append(images, image{r.clone(50), mark, []*extent{&c.before, &c.after}})
		}
	}
	select {
	case err := <-done:
		r.t.Fatalf("answered with %v before it is on the disk", err)
	default:
	}
	close(release)
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
	synced, after := r.disk.CrashClone(vfs.CrashCloneCfg{}), r.readMark()
	switch at {
	case unmarked:
		images = []image{{synced, mark, []*extent{&c.after}}}
	case torn:
		images = []image{{synced, tear(mark, after), []*extent{&c.after}}}
	case unanswered:
		images = []image{{synced, after, []*extent{&c.after}}}
	case answered:
		images = []image{{synced, after, []*extent{&c.after}}, {synced, r.mark, []*extent{&c.after}}}
	}
	return images
}

// clone returns the disk with so much, in percent, of what was not synced.
func (r *rig) clone(percent int) *vfs.MemFS {
	return r.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(rand.Uint64(), 0))})
}

// tear returns before with half of the first slot in which after is another.
func tear(before, after []byte) []byte {
	mixed := slices.Clone(before)
	for at := 0; at < len(before); at += markBytes {
		if !slices.Equal(before[at:at+markBytes], after[at:at+markBytes]) {
			copy(mixed[at:at+markBytes/2], after[at:])
			break
		}
	}
	return mixed
}

// start opens what a crash has left, as the next process does.
func (r *rig) start(i image) *rig {
	r.t.Helper()
	next := &rig{t: r.t, clock: newClock(), name: r.name}
	next.clock.Advance(50 * time.Minute)
	dir := r.t.TempDir()
	from, to := filepath.Join(r.engine.cfg.Dir, databaseDir), filepath.Join(dir, databaseDir)
	if _, err := vfs.Clone(i.disk, vfs.Default, from, to); err != nil {
		r.t.Fatal("copy the database: ", err)
	}
	if i.mark != nil {
		if err := os.WriteFile(filepath.Join(dir, markName), i.mark, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	next.open(Config{Dir: dir})
	return next
}

// extent returns what is there.
func (r *rig) extent() extent {
	r.t.Helper()
	logs, err := r.engine.Logs(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	found := extent{logs: logs}
	if !slices.Contains(logs, r.name) {
		return found
	}
	r.openLog()
	found.last = r.log.Durable()
	err = r.log.Scan(r.t.Context(), 1, found.last, func(rec eventlog.Record) error {
		found.held = append(found.held, rec.Sequence)
		return nil
	})
	if err != nil {
		r.t.Errorf("Scan() = %v, want no hole", err)
	}
	return found
}

// check holds what leads to the records against them.
func (r *rig) check(x extent) {
	r.t.Helper()
	if !slices.Contains(x.logs, r.name) {
		return
	}
	if s := r.log.State(); s.First != x.held[0] || s.Last != x.last || s.Count != uint64(len(x.held)) {
		r.t.Errorf("State() = %+v, of %+v", s, x)
	}
	var byKey []uint64
	for i := range uint64(2) {
		records, err := r.log.ReadKey(r.t.Context(), keyOf(i), 0, 100, false)
		if err != nil {
			r.t.Errorf("ReadKey() = %v", err)
		}
		for _, rec := range records {
			byKey = append(byKey, rec.Sequence)
		}
	}
	if slices.Sort(byKey); !slices.Equal(byKey, x.held) {
		r.t.Errorf("the index leads to %d, want %d", byKey, x.held)
	}
	for sequence := uint64(1); sequence <= x.last; sequence++ {
		if err := r.append(sequence); (err == nil) == (r.name != "EVENTS") {
			r.t.Errorf("record %d again: %v", sequence, err) // a twin, or a conflict
		}
	}
	if n := r.log.Durable(); n != x.last {
		r.t.Errorf("twins were stored, up to %d", n)
	}
}

// audit closes the engine, and has all that is there audited.
func (r *rig) audit() {
	r.t.Helper()
	closeEngine(r.t, r.engine)
	e, err := OpenReadOnly(r.t.Context(), Config{Dir: r.engine.cfg.Dir})
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = e.closeFiles() }()
	for name := range e.stores {
		if problems, err := e.Audit(r.t.Context(), name); err != nil || len(problems) > 0 {
			r.t.Errorf("Audit(%s) = %q, %v", name, problems, err)
		}
	}
}
