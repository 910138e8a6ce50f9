package local

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	indexed     = 4000 // records of a test of the index
	indexedKeys = 7
)

// tiny makes tables that hold records or the index, and seldom both.
func tiny(o *pebble.Options) {
	small(o)
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = 4 << 10
	}
}

// fillIndexed appends records under a few keys, to a log whose index gets tables
// of its own, and returns which records each key has.
func fillIndexed(t *testing.T, e *Engine) (want map[string][]uint64) {
	t.Helper()
	l := openLog(t, e, eventlog.LogConfig{Name: "A"})
	want = make(map[string][]uint64)
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(64)
	for i := range indexed {
		g.Go(func() error {
			key := fmt.Sprint("chat", i%indexedKeys)
			a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", Key: key, ID: fmt.Sprint(i), Data: make([]byte, 100)})
			mu.Lock()
			defer mu.Unlock()
			want[key] = append(want[key], a.Sequence)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	for key, sequences := range want {
		slices.Sort(sequences)
		want[key] = slices.DeleteFunc(sequences, func(sequence uint64) bool { return sequence == 5 })
	}
	if err := e.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := e.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	return want
}

// damageTables overwrites the tables that hold nothing but keys of one kind.
func damageTables(t *testing.T, e *Engine, kind byte) {
	t.Helper()
	levels, err := e.db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, table := range slices.Concat(levels...) {
		if table.Smallest.UserKey[0] == kind && table.Largest.UserKey[0] == kind {
			names = append(names, fmt.Sprintf("%06d.sst", table.FileNum))
		}
	}
	if len(names) == 0 {
		t.Fatalf("no table holds keys of kind %c alone", kind)
	}
	closeEngine(t, e)
	for _, name := range names {
		path := filepath.Join(e.dir.file(databaseDir), name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(b) / 2 { // its data, not what says where that is
			b[i] ^= 0xff
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// wantIndexed holds what ReadKey finds, in both directions, against want.
func wantIndexed(t *testing.T, l *eventlog.Log, want map[string][]uint64) {
	t.Helper()
	for key, expected := range want {
		forwards, back := sequencesOf(t, l, key, false), sequencesOf(t, l, key, true)
		slices.Reverse(back)
		if !slices.Equal(forwards, expected) || !slices.Equal(back, expected) {
			t.Fatalf("ReadKey(%s) finds %d records, in reverse %d, want %d", key, len(forwards), len(back), len(expected))
		}
	}
}

// sequencesOf reads all records of a key, some at a time.
func sequencesOf(t *testing.T, l *eventlog.Log, key string, reverse bool) (found []uint64) {
	t.Helper()
	for from := uint64(0); ; {
		records, err := l.ReadKey(t.Context(), key, from, 100, reverse)
		if err != nil {
			t.Fatalf("ReadKey(%s, from %d, reverse %v) = %v", key, from, reverse, err)
		}
		for _, r := range records {
			found = append(found, r.Sequence)
		}
		if len(records) == 0 {
			return found
		}
		if from = found[len(found)-1] + 1; reverse {
			if from -= 2; from == 0 {
				return found
			}
		}
	}
}

// TestDamagedIndex has look-ups find all records of a key while the index is
// damaged, and the index whole again afterwards.
func TestDamagedIndex(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir(), tune: tiny})
	want := fillIndexed(t, e)
	damageTables(t, e, keyIndex)

	e = openAt(t, Config{Dir: e.cfg.Dir, tune: tiny})
	l := openLog(t, e, eventlog.LogConfig{Name: "A"})
	if problems, err := e.Audit(t.Context(), "A"); err != nil || len(problems) == 0 {
		t.Fatalf("Audit() of a damaged index = %q, %v, want a problem", problems, err)
	}
	wantIndexed(t, l, want)
	eventually(t, func() bool { return !e.known("A").rebuilding(0) })
	wantIndexed(t, l, want)
	q := search{hash: eventlog.HashKey("chat0"), low: 1, high: indexed, visit: func(uint64) (bool, error) { return true, nil }}
	if complete, err := e.known("A").findIndexed(&q); !complete || err != nil {
		t.Errorf("the index is complete: %v, %v", complete, err)
	}
	if problems, err := e.Audit(t.Context(), "A"); err != nil || len(problems) > 0 {
		t.Errorf("Audit() after the index was made anew = %q, %v", problems, err)
	}
}

// TestRebuildGoesOn opens a log whose index was being made anew, with what was
// appended meanwhile.
func TestRebuildGoesOn(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir(), tune: tiny})
	want := fillIndexed(t, e)
	number := e.known("A").entry.number
	b := e.db.NewBatch() // how rebuild begins
	must(b.Set(sequenceKey(keyRebuild, number, 0), nil, nil))
	must(b.DeleteRange(sequenceKey(keyIndex, number, 0), sequenceKey(keyIndex, number, 1), nil))
	must(e.db.Apply(b, pebble.Sync))

	e = openAt(t, Config{Dir: kill(t, e), tune: tiny})
	l := openLog(t, e, eventlog.LogConfig{Name: "A"})
	wantIndexed(t, l, want)
	eventually(t, func() bool { return !e.known("A").rebuilding(0) })
	wantIndexed(t, l, want)
	if problems, err := e.Audit(t.Context(), "A"); err != nil || len(problems) > 0 {
		t.Errorf("Audit() after the index was made anew = %q, %v", problems, err)
	}
	if _, found, err := e.get(sequenceKey(keyRebuild, number, 0)); found || err != nil {
		t.Errorf("the index still says that it is not complete: %v, %v", found, err)
	}
}
