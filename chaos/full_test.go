//go:build chaos

package chaos

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fill takes all but free bytes of the file system of dir, and returns what
// gives them back.
func fill(t *testing.T, dir string, free int64) (giveBack func()) {
	t.Helper()
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	if take := int64(s.Bavail)*s.Bsize - free; take > 0 {
		if err := syscall.Fallocate(int(filler.Fd()), 0, 0, take); err != nil {
			t.Fatalf("fill the disk: %v", err)
		}
	}
	return func() { _ = os.Remove(filler.Name()) }
}

// TestDiskBelowMinFree fills the disk up to min_free: callbacks are refused,
// reads go on, and all is well again when there is room.
func TestDiskBelowMinFree(t *testing.T) {
	dir, l := mountTmpfs(t, 600), newLedger(t)
	g := start(t, filepath.Join(dir, "data"), options{args: []string{"--min-free", "64MiB"}})
	l.run(g, load{chats: 4, each: 100, size: 512})
	giveBack := fill(t, dir, 20<<20)
	eventually(t, patience, "callbacks are refused", func() bool {
		return l.post(g, l.add(callback("full-"+time.Now().String(), "full", 64))) == http.StatusServiceUnavailable
	})
	if code, text := g.ready(); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d %s on a full disk", code, text)
	}
	l.mustHold(g, nil)
	giveBack()
	eventually(t, patience, "ready again", func() bool { code, _ := g.ready(); return code == http.StatusOK })
	l.run(g, load{chats: 4, each: 50, size: 512})
	l.retry(t, g)
	l.mustHold(g, nil)
	l.mustAnswerSoon(t)
	g.stop()
	t.Log(l)
}

// TestDiskFull has the log itself run into the end of the disk: it recovers, or
// stops within a second and starts again once there is room.
func TestDiskFull(t *testing.T) {
	dir, l := mountTmpfs(t, 400), newLedger(t)
	data := filepath.Join(dir, "data")
	g := start(t, data, options{})
	w := g.watch()
	l.run(g, load{chats: 4, each: 100, size: 512})
	giveBack := fill(t, dir, 3<<20)
	failed := newMoment()
	l.run(g, load{chats: 8, each: 2000, size: 8 << 10, limit: 30 * time.Second, after: func(status int) {
		if status != http.StatusOK {
			failed.set()
		}
	}, until: func() bool { return !g.alive() || failed.since() > 5*time.Second }})
	if failed.since() == 0 {
		t.Fatal("every callback was answered 0: the disk was not full")
	}
	if !g.ends(2 * time.Second) {
		t.Log("the gateway goes on")
		l.mustHold(g, nil)
		giveBack()
		eventually(t, patience, "ready again", func() bool { code, _ := g.ready(); return code == http.StatusOK })
	} else {
		g.mustFailed()
		if took := g.endedAt.Sub(failed.at()); took > time.Second {
			t.Errorf("it ended %v after the first failure, want at most 1s", took)
		}
		full := launch(t, data, options{mayWait: true})
		t.Logf("a start while the disk is full: serves %v, waits %v, %s", full.serving, !full.serving && full.alive(), tail(full.logged(), 300))
		giveBack()
		if full.alive() && !full.serving && !within(patience, func() bool { return strings.Contains(full.logged(), `"msg":"serving"`) }) {
			t.Error("the start that waited for room on the disk does not go on when there is")
		}
		full.kill()
		g = start(t, data, options{})
	}
	l.mustHold(g, w.close())
	l.retry(t, g)
	l.mustHold(g, nil)
	l.mustAnswerSoon(t)
	g.stop()
	t.Log(l)
}
