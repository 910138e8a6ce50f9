package local

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// crashedStarts are the rows of the table in DESIGN.md that TestCrashedStart
// has: whether the start is the first.
var crashedStarts = map[string]bool{
	"first start: at any file operation": true,
	"start: at any file operation":       false,
}

// TestCrashedStart crashes before each operation on a file that a start makes.
// The next start must not be refused, and have everything.
func TestCrashedStart(t *testing.T) {
	for name, first := range crashedStarts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "EVENTS")
			disk, mark, want := r.disk.CrashClone(vfs.CrashCloneCfg{}), r.readMark(), whole
			if first {
				disk, mark, want = vfs.NewCrashableMem(), nil, extent{}
			}
			var images []image
			record := recorder{disk: disk, each: func() {
				for _, percent := range []int{0, 100} {
					images = append(images, image{disk: (&rig{disk: disk}).clone(percent), mark: mark, want: []*extent{&want}})
				}
			}}
			o := (&Engine{}).pebbleOptions(false)
			o.ErrorIfNotExists = !first
			o.FS = errorfs.Wrap(disk, &record)
			db, err := pebble.Open(filepath.Join(r.engine.cfg.Dir, databaseDir), o)
			if err != nil {
				t.Fatal(err)
			}
			record.mu.Lock()
			record.each = func() {}
			record.mu.Unlock()
			t.Cleanup(func() { _ = db.Close() })
			t.Logf("%d images", len(images))
			for n, i := range images {
				next := r.start(i)
				if found := next.extent(); !found.is(&want) {
					t.Fatalf("image %d: found %+v, want %+v", n, found, want)
				}
			}
		})
	}
}

// A recorder is told of each operation that changes a disk.
type recorder struct {
	disk *vfs.MemFS
	mu   sync.Mutex
	each func()
}

func (r *recorder) String() string { return "recorder" }

// MaybeError implements errorfs.Injector.
func (r *recorder) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.each()
	}
	return nil
}
