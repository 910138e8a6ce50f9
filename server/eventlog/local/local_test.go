package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/eventlogtest"
)

// A clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// openAt opens an engine that the test closes.
func openAt(t testing.TB, cfg Config) *Engine {
	t.Helper()
	e, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() = %v", err)
	}
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

// closeEngine closes e, unless that was done.
func closeEngine(t testing.TB, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil && !errors.Is(err, errKilled) {
		t.Errorf("Close() = %v", err)
	}
}

var errKilled = errors.New("the test kills the engine")

// kill ends e as a crash would, and returns a copy of what it leaves behind.
func kill(t testing.TB, e *Engine) string {
	t.Helper()
	e.fail(errKilled)
	e.background.Wait()
	e.workers.Wait()
	dir := ""
	for before := ""; before == "" || before != listing(t, e.cfg.Dir); { // compactions go on meanwhile
		before = listing(t, e.cfg.Dir)
		dir = t.TempDir()
		copyDir(t, dir, e.cfg.Dir)
	}
	_ = e.Close(t.Context()) // it closes no file
	for range cap(e.reads) {
		e.reads <- struct{}{}
	}
	_ = errors.Join(e.closeFiles(), os.RemoveAll(e.cfg.Dir)) // nobody looks at it again
	return dir
}

// listing returns the names and sizes of all files.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		fmt.Fprintln(&b, path, info.Size())
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return b.String()
}

// copyDir copies a data directory. What is only room in a file stays room.
func copyDir(t testing.TB, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(from, path)
		if err = errors.Join(err, rerr); err != nil || d.Name() == "LOCK" {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was on its way out
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(target, bytes.TrimRight(data, "\x00"), 0o600); err != nil {
			return err
		}
		return os.Truncate(target, int64(len(data)))
	})
	if err != nil {
		t.Fatalf("copy %s: %v", from, err)
	}
}

func TestConformance(t *testing.T) {
	eventlogtest.Run(t, func(t testing.TB) eventlogtest.Harness {
		c := newClock()
		cfg := Config{Dir: t.TempDir(), Clock: c.Now}
		e := openAt(t, cfg)
		return eventlogtest.Harness{
			Engine: e,
			Reopen: func() eventlog.Engine {
				closeEngine(t, e)
				e = openAt(t, cfg)
				return e
			},
			Crash: func() eventlog.Engine {
				cfg.Dir = kill(t, e)
				e = openAt(t, cfg)
				return e
			},
			Advance: c.Advance,
		}
	})
}
