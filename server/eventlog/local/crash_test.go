package local

import (
	"errors"
	"fmt"
	"maps"
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

// A stop is how far a change has come when the crash is.
type stop int

const (
	unwritten stop = iota // its batch is not in the write-ahead log
	unsynced              // it is, and not synced
	unmarked              // it is synced, and the mark does not say so
	torn                  // half of the mark is written
	unanswered            // the mark is written, and nobody was told
	answered              // everybody was told, and the mark is not synced
)

// crashes are the rows of the table in DESIGN.md.
var crashes = map[string]struct {
	change *operation
	stop   stop
}{
	"append: not written":                   {&appending, unwritten},
	"append: written, not synced":           {&appending, unsynced},
	"append: synced, not marked":            {&appending, unmarked},
	"append: mark half written":             {&appending, torn},
	"append: marked, not answered":          {&appending, unanswered},
	"append: answered, mark not synced":     {&appending, answered},
	"twin: the first not synced":            {&twins, unsynced},
	"twin: answered":                        {&twins, answered},
	"journal: written, not synced":          {&journal, unsynced},
	"journal: synced, not answered":         {&journal, unanswered},
	"delete: written, not synced":           {&deleting, unsynced},
	"delete: synced, not marked":            {&deleting, unmarked},
	"trim: written, not synced":             {&trimming, unsynced},
	"trim: synced, not marked":              {&trimming, unmarked},
	"retention: not written":                {&retaining, unwritten},
	"retention: written, not synced":        {&retaining, unsynced},
	"retention: synced, not marked":         {&retaining, unmarked},
	"create log: written, not synced":       {&creating, unsynced},
	"create log: synced, not marked":        {&creating, unmarked},
	"create log: answered, mark not synced": {&filling, answered},
	"remove log: flagged, not written":      {&removing, unwritten},
	"remove log: written, not synced":       {&removing, unsynced},
	"remove log: synced, mark not cleared":  {&removing, unmarked},
	"remove log: answered, mark not synced": {&removing, answered},
}

// An operation is a change and what the logs are before and after it.
type operation struct {
	log           string // the one that is looked into
	do            func(*rig) error
	batch         int // which of its batches meets the crash, from 1
	before, after extent
}

// An extent is what logs there are and what that one holds.
type extent struct {
	logs []string
	held []uint64
	last uint64
}

var (
	both  = []string{"EVENTS", "GROUP_1"}
	whole = extent{both, []uint64{1, 2, 3, 4, 5}, 5}
	six   = extent{both, []uint64{1, 2, 3, 4, 5, 6}, 6}

	appending = operation{"EVENTS", func(r *rig) error { return r.append(6) }, 1, whole, six}
	twins     = operation{"EVENTS", func(r *rig) error {
		second := make(chan error, 1)
		go func() { second <- r.append(6) }()
		return errors.Join(r.append(6), <-second)
	}, 1, whole, six}
	journal   = operation{"GROUP_1", func(r *rig) error { return r.append(6) }, 1, whole, six}
	deleting  = operation{"EVENTS", func(r *rig) error { return r.log.Delete(r.t.Context(), 3) }, 1, whole, extent{both, []uint64{1, 2, 4, 5}, 5}}
	trimming  = operation{"EVENTS", func(r *rig) error { return r.log.Trim(r.t.Context(), 4) }, 1, whole, extent{both, []uint64{4, 5}, 5}}
	retaining = operation{"EVENTS", func(r *rig) error {
		r.clock.Advance(20 * time.Minute) // record 3 is older than max_age now
		r.engine.sweepSoon()
		eventually(r.t, func() bool { return r.log.State().First == 4 })
		return nil
	}, 1, whole, extent{both, []uint64{4, 5}, 5}}
	creating = operation{"EVENTS", func(r *rig) error {
		_, err := r.engine.Log(r.t.Context(), eventlog.LogConfig{Name: "NEW"})
		return err
	}, 1, whole, extent{append(slices.Clone(both), "NEW"), whole.held, 5}}
	filling = operation{"EVENTS", func(r *rig) error {
		l, err := r.engine.Log(r.t.Context(), eventlog.LogConfig{Name: "NEW"})
		if err != nil {
			return err
		}
		r.keepMark()
		_, err = l.Append(r.t.Context(), eventlog.Record{Subject: "s"})
		return err
	}, 1, whole, extent{append(slices.Clone(both), "NEW"), whole.held, 5}}
	removing = operation{"GROUP_1", func(r *rig) error { return r.engine.Remove(r.t.Context(), "GROUP_1") }, 2, whole, extent{both[:1], nil, 0}}
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
	if ok, err := vfs.Clone(i.disk, vfs.Default, from, to); !ok || err != nil {
		r.t.Fatal("copy the database: ", err)
	}
	if err := os.WriteFile(filepath.Join(dir, markName), i.mark, 0o600); err != nil {
		r.t.Fatal(err)
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

func (x extent) is(other *extent) bool {
	return slices.Equal(x.logs, other.logs) && slices.Equal(x.held, other.held) && x.last == other.last
}

// TestCrash crashes at each step of each change: by a kill, after which all that
// was written is there, and by a power cut, after which no more than what was
// synced need be. No start may be refused, nothing that was answered may be
// missing, and who was not answered can do it again.
func TestCrash(t *testing.T) {
	for name, row := range crashes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, row.change.log)
			for _, i := range r.crash(row.change, row.stop) {
				next := r.start(i)
				found := next.extent()
				if !slices.ContainsFunc(i.want, found.is) {
					t.Fatalf("found %+v, want %+v", found, i.want[0])
				}
				next.check(found)
				again(next, row.change)
				if found = next.extent(); !found.is(&row.change.after) {
					t.Errorf("done again it is %+v, want %+v", found, row.change.after)
				}
				next.check(found)
				next.audit()
			}
		})
	}
}

// again makes a change that nobody answered once more.
func again(r *rig, c *operation) {
	r.t.Helper()
	err := c.do(r)
	if err != nil && !errors.Is(err, eventlog.ErrNotFound) && !errors.Is(err, eventlog.ErrConflict) {
		r.t.Errorf("the same again: %v", err)
	}
}

// TestCrashTable holds that the table in DESIGN.md is of these rows.
func TestCrashTable(t *testing.T) {
	design, err := os.ReadFile("../../../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(design), "### What a crash leaves")
	table, _, _ = strings.Cut(table, "\n#")
	rows := map[string]bool{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.Contains(cells[1], ": ") {
			rows[strings.TrimSpace(cells[1])] = true
		}
	}
	maps.DeleteFunc(rows, func(row string, _ bool) bool { return strings.HasPrefix(row, "group: ") }) // package group's
	if !slices.Equal(slices.Sorted(maps.Keys(rows)), slices.Sorted(maps.Keys(crashes))) {
		t.Errorf("DESIGN.md has the rows %q, the test %q", slices.Sorted(maps.Keys(rows)), slices.Sorted(maps.Keys(crashes)))
	}
}
