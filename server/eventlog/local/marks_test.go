package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/server/eventlog"
)

// missed is what one of two disks may miss.
var missed = map[string]func(t *testing.T, e *Engine){
	"made": func(t *testing.T, e *Engine) { grow(t, e, "NEW") },
	"grew": func(t *testing.T, e *Engine) { grow(t, e, "EVENTS") },
	"removed": func(t *testing.T, e *Engine) {
		if err := e.Remove(t.Context(), "OLD"); err != nil {
			t.Fatal(err)
		}
	},
	"removed, and another made in its place": func(t *testing.T, e *Engine) {
		if err := e.Remove(t.Context(), "OLD"); err != nil {
			t.Fatal(err)
		}
		grow(t, e, "NEW")
	},
}

// grow opens a log and appends to it.
func grow(t *testing.T, e *Engine, name string) {
	t.Helper()
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 3)
}

// TestMarksOfTwoDisks starts after one of two disks has missed that a log was
// made, grew, or was removed: no start is refused, and no place is given twice.
func TestMarksOfTwoDisks(t *testing.T) {
	for name, happens := range missed {
		for _, stale := range []bool{true, false} { // the mark in the data directory, or the other one
			t.Run(name, func(t *testing.T) {
				cfg := Config{Dir: t.TempDir(), WALFailoverDir: t.TempDir()}
				file := filepath.Join(cfg.WALFailoverDir, markName)
				if stale {
					file = filepath.Join(cfg.Dir, markName)
				}
				during(t, cfg, func(e *Engine) {
					grow(t, e, "OLD")
					grow(t, e, "EVENTS")
				})
				before, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				during(t, cfg, func(e *Engine) { happens(t, e) })
				if err := os.WriteFile(file, before, 0o600); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					during(t, cfg, func(e *Engine) { grow(t, e, "LATER") })
				}
			})
		}
	}
}

// during opens an engine for as long as use takes.
func during(t *testing.T, cfg Config, use func(*Engine)) {
	t.Helper()
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("the start is refused: %v", err)
	}
	use(e)
	closeEngine(t, e)
}

// TestSharedFailoverDirectory refuses a second gateway on one wal_failover_dir,
// and a directory that was another's.
func TestSharedFailoverDirectory(t *testing.T) {
	other := t.TempDir()
	e := openAt(t, Config{Dir: t.TempDir(), WALFailoverDir: other})
	second := t.TempDir()
	if _, err := Open(t.Context(), Config{Dir: second, WALFailoverDir: other}); err == nil || !strings.Contains(err.Error(), "another data_dir") {
		t.Errorf("Open() with another's wal_failover_dir = %v", err)
	}
	copied := t.TempDir()
	copyDir(t, copied, e.cfg.Dir)
	if _, err := Open(t.Context(), Config{Dir: copied, WALFailoverDir: other}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("Open() of a copy with the same wal_failover_dir = %v", err)
	}
	closeEngine(t, e)
	if _, err := Open(t.Context(), Config{Dir: second, WALFailoverDir: other}); err == nil || !strings.Contains(err.Error(), "another data_dir") {
		t.Errorf("Open() with a wal_failover_dir that was another's = %v", err)
	}
	openAt(t, Config{Dir: e.cfg.Dir, WALFailoverDir: other})
}
