package eventlog

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestBlockIsTrustedOnlyWhileNothingElseCanHoldTheRecords goes through what can
// happen between two commits.
func TestBlockIsTrustedOnlyWhileNothingElseCanHoldTheRecords(t *testing.T) {
	past := time.Now().Add(-time.Minute)
	tests := map[string]struct {
		before func(t *testing.T, dir string) // the block is looked for
		after  func(t *testing.T, dir string) // records are written
		want   bool
	}{
		"grown":               {after: appendTo("2.blk", 100), want: true},
		"grown by more":       {after: appendTo("2.blk", 101), want: true},
		"grown by less":       {after: appendTo("2.blk", 99)},
		"an older file grew":  {after: appendTo("1.blk", 100)},
		"a new file":          {after: appendTo("3.blk", 100)},
		"both":                {after: both(appendTo("2.blk", 100), appendTo("3.blk", 100))},
		"replaced":            {after: both(appendTo("2.blk", 100), rename("2.blk", "x"), rename("x", "2.blk"))},
		"removed":             {after: rename("2.blk", "x")},
		"directory just made": {before: touch(time.Now().Add(time.Hour)), after: appendTo("2.blk", 100)}, // never settled
		"no blocks":           {before: both(rename("1.blk", "x"), rename("2.blk", "y"), touch(past)), after: appendTo("2.blk", 100)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"1.blk", "2.blk", "index.db"} {
				appendTo(name, 10)(t, dir)
			}
			touch(past)(t, dir)
			if tt.before != nil {
				tt.before(t, dir)
			}
			b := &block{dir: dir}
			defer b.close()
			b.find()
			tt.after(t, dir)
			if got := b.grown(100); got != tt.want {
				t.Errorf("grown = %v, want %v", got, tt.want)
			}
			if tt.want && b.grown(1) {
				t.Error("the same growth counted twice")
			}
		})
	}
}

type step = func(t *testing.T, dir string)

func both(steps ...step) step {
	return func(t *testing.T, dir string) {
		t.Helper()
		for _, s := range steps {
			s(t, dir)
		}
	}
}

func appendTo(name string, n int) step {
	return func(t *testing.T, dir string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func rename(from, to string) step {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
}

func touch(at time.Time) step {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBlockIsTheOneThatTheServerWrites holds what we think of the server's
// files against the server: past the first roll, the block in use must be the
// newest file, and must have been found again.
func TestBlockIsTheOneThatTheServerWrites(t *testing.T) {
	if !canSyncGroup {
		t.Skip("no group commit here")
	}
	e := openEngine(t, Config{Dir: t.TempDir()})
	l := openLog(t, e, LogConfig{})
	big := string(bytes.Repeat([]byte("x"), 512<<10))
	newest := func() string {
		names, err := filepath.Glob(filepath.Join(e.dir.path, "jetstream", "$G", "streams", "EVENTS", "msgs", "*.blk"))
		if err != nil || len(names) == 0 {
			t.Fatalf("blocks = %v, %v: the server's layout has changed", names, err)
		}
		slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
		return names[len(names)-1]
	}
	for range 3 {
		// Small records leave the directory alone for long enough.
		deadline := time.Now().Add(10 * time.Second)
		for !syncsAlone(e, newest()) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is never synced alone: group commit does not take its short way", newest())
			}
			mustAppend(t, l, "", "x")
		}
		for before := newest(); newest() == before; {
			mustAppend(t, l, "", big)
		}
	}
}

// syncsAlone reports whether the next commit to EVENTS would sync just file.
// The appends before it are answered: nothing else uses the block meanwhile.
func syncsAlone(e *Engine, file string) bool {
	b := e.dir.blocks["EVENTS"]
	return b != nil && b.file != nil && b.file.Name() == file
}
