//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A moment is when something happened first.
type moment struct{ nanos atomic.Int64 }

func newMoment() *moment { return &moment{} }

func (m *moment) set()          { m.nanos.CompareAndSwap(0, time.Now().UnixNano()) }
func (m *moment) at() time.Time { return time.Unix(0, m.nanos.Load()) }

// since returns how long ago that was; 0 when it has not happened.
func (m *moment) since() time.Duration {
	if m.nanos.Load() == 0 {
		return 0
	}
	return time.Since(m.at())
}

// TestSyncError fails one sync: all that wait are refused, the process ends by
// itself, nothing is answered 0 after that, and the next start has all that was.
func TestSyncError(t *testing.T) {
	dir, l := t.TempDir(), newLedger(t)
	g := start(t, dir, options{})
	w := g.watch()
	refusal := newMoment()
	wait := l.start(g, load{chats: 8, each: 20000, size: 512, limit: 20 * time.Second, after: func(status int) {
		if status != http.StatusOK {
			refusal.set()
		}
	}, until: func() bool { return !g.alive() || refusal.since() > 3*time.Second }})
	eventually(t, patience, "some load", func() bool { return l.acked() > 200 })
	in := g.inject("fsync,fdatasync,syncfs,sync_file_range,msync", "error=EIO:when=1")
	wait()
	in.mustHappen()
	g.await()
	in.end()
	g.mustFailed()
	if refusal.since() == 0 {
		t.Error("no callback was refused")
	} else if took := g.endedAt.Sub(refusal.at()); took > time.Second {
		t.Errorf("it ended %v after the first refusal, want at most 1s", took)
	}
	g = start(t, dir, options{})
	l.mustHold(g, w.close())
	l.retry(t, g)
	l.mustHold(g, nil)
	l.mustAnswerSoon(t)
	g.stop()
	t.Log(l)
}

// TestWriteError fails all writes of the disk from one time on.
func TestWriteError(t *testing.T) {
	l := newLedger(t)
	broken := filepath.Join(t.TempDir(), "broken") // the disk fails while this file is there
	d := newDisk(t, 256, "--filter=error", "error-pwrite=EIO", "error-pwrite-rate=100%", "error-pwrite-file="+broken)
	g := start(t, d.dir, options{})
	w := g.watch()
	refusal := newMoment()
	wait := l.start(g, load{chats: 8, each: 20000, size: 512, limit: 20 * time.Second, after: func(status int) {
		if status != http.StatusOK {
			refusal.set()
		}
	}, until: func() bool { return !g.alive() || refusal.since() > 5*time.Second }})
	eventually(t, patience, "some load", func() bool { return l.acked() > 500 })
	overwrite(t, broken, nil)
	wait()
	if refusal.since() == 0 {
		t.Fatal("every callback was answered 0: the writes did not fail")
	}
	if !g.ends(2 * time.Second) {
		t.Log("the gateway goes on, and refuses")
		g.kill()
	} else {
		g.mustFailed()
	}
	delivered := w.close()
	g = start(t, d.again(), options{})
	l.mustHold(g, delivered)
	l.retry(t, g)
	l.mustHold(g, nil)
	l.mustAnswerSoon(t)
	g.stop()
	t.Log(l)
}

// TestReadError fails reads of files for a while: whoever reads gets an error or
// waits, and nobody skips anything. All is there when it is over.
func TestReadError(t *testing.T) {
	dir, l, c := t.TempDir(), newLedger(t), newCrew()
	for i := range 3 { // so that it is in files, and in no cache
		g := start(t, dir, options{})
		if i == 0 {
			g.createGroup(0)
		}
		l.run(g, load{chats: 8, each: 150, size: 1 << 10})
		g.stop()
	}
	g := start(t, dir, options{})
	in := g.inject("pread64,preadv", "error=EIO:when=1+")
	readWhileBroken(t, g, l, c)
	in.mustHappen()
	in.end()
	eventually(t, patience, "ready", func() bool { code, _ := g.ready(); return code == http.StatusOK })
	l.mustHold(g, nil)
	l.retry(t, g)
	r := l.mustHold(g, nil)
	c.finish(g, r.last)
	c.check(t, l)
	g.stop()
	t.Log(l)
}

// readWhileBroken reads in every way while files cannot be read, and has the
// vendor repeat itself.
func readWhileBroken(t *testing.T, g *gateway, l *ledger, c *crew) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	acked := l.acked()
	if r, err := g.subscribe(ctx); err == nil && len(r.events) < acked {
		t.Errorf("a stream ends in order after %d of %d events, gaps %v", len(r.events), acked, r.gaps)
	} else {
		p := &problems{}
		l.checkEvents(p, r)
		p.report(t, "a stream during the fault")
		for i, e := range r.events {
			if e.seq != uint64(i)+1 {
				t.Errorf("a stream goes on at %d behind %d", e.seq, i)
				break
			}
		}
	}
	if listed, err := g.list(ctx); err == nil && len(listed) < acked {
		t.Errorf("a list ends in order after %d of %d events", len(listed), acked)
	} else {
		t.Logf("a list during the fault: %d of %d events, %v", len(listed), acked, err)
	}
	again := l.all()[:10]
	for _, p := range again {
		if status := l.post(g, p); status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Errorf("a retry during the fault is answered %d", status)
		}
	}
	_ = c.work(ctx, g, "during", time.Second, 100) // an error is right
}

// TestDescriptors leaves the running process no file descriptor.
func TestDescriptors(t *testing.T) {
	needs(t, "prlimit")
	dir, l := t.TempDir(), newLedger(t)
	for range 3 {
		g := start(t, dir, options{})
		l.run(g, load{chats: 8, each: 100, size: 1 << 10})
		g.stop()
	}
	g := start(t, dir, options{})
	ctx := context.Background()
	l.post(g, l.all()[0]) // so that there is a connection: none can be accepted later
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.pid()))
	if err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		command(t, "prlimit", "--pid", strconv.Itoa(g.pid()), "--nofile="+strconv.Itoa(n)+":") // the soft limit
	}
	limit(len(open) - 1)
	acked := l.acked()
	if listed, err := g.list(ctx); err == nil && len(listed) < acked {
		t.Errorf("a list ends in order after %d of %d events", len(listed), acked)
	} else {
		t.Logf("a list without descriptors: %d of %d events, %v", len(listed), acked, err)
	}
	for _, p := range l.all()[:5] {
		_ = l.post(g, p) // whatever it says must be true
	}
	limit(1024)
	l.mustAnswerSoon(t)
	eventually(t, patience, "ready", func() bool { code, _ := g.ready(); return code == http.StatusOK })
	l.run(g, load{chats: 8, each: 20, size: 1 << 10})
	l.retry(t, g)
	l.mustHold(g, nil)
	g.stop()
	t.Log(l)
}

// TestReadOnly has the file system become read-only under load, as ext4 does
// after an error of its own.
func TestReadOnly(t *testing.T) {
	needs(t, "mkfs.ext4")
	image, l := filepath.Join(t.TempDir(), "disk.img"), newLedger(t)
	format(t, image, 256)
	mnt := mountImage(t, image, "")
	data := filepath.Join(mnt, "data")
	g := start(t, data, options{})
	w := g.watch()
	refusal := newMoment()
	wait := l.start(g, load{chats: 8, each: 20000, size: 512, limit: 20 * time.Second, after: func(status int) {
		if status != http.StatusOK {
			refusal.set()
		}
	}, until: func() bool { return !g.alive() || refusal.since() > 5*time.Second }})
	eventually(t, patience, "some load", func() bool { return l.acked() > 500 })
	command(t, "mount", "-o", "remount,abort", mnt)
	wait()
	if refusal.since() == 0 {
		t.Fatal("every callback was answered 0: the file system was not read-only")
	}
	if !g.ends(2 * time.Second) {
		t.Log("the gateway goes on, and refuses")
		l.mustHold(g, nil)
		g.kill()
	} else {
		g.mustFailed()
	}
	delivered := w.close()
	command(t, "umount", "-l", mnt)
	mnt = mountImage(t, image, "")
	g = start(t, filepath.Join(mnt, "data"), options{})
	l.mustHold(g, delivered)
	l.retry(t, g)
	l.mustHold(g, nil)
	l.mustAnswerSoon(t)
	g.stop()
	startReadOnly(t, image, mnt)
	t.Log(l)
}

// startReadOnly starts on a directory that cannot be written.
func startReadOnly(t *testing.T, image, mnt string) {
	t.Helper()
	command(t, "umount", mnt)
	mnt = mountImage(t, image, ",ro")
	for _, dir := range []string{"data", "new"} {
		g := launch(t, filepath.Join(mnt, dir), options{})
		switch {
		case g.serving:
			t.Errorf("it serves on a read-only file system (%s)", dir)
		case g.code() <= 0 || !strings.Contains(g.logged(), "read-only"):
			t.Errorf("a start on a read-only file system (%s) ends with %d and %s", dir, g.code(), g.logged())
		}
		g.kill()
	}
}

// TestReplaced puts another directory in the place of the data directory.
func TestReplaced(t *testing.T) {
	dir, l := filepath.Join(t.TempDir(), "data"), newLedger(t)
	g := start(t, dir, options{})
	refusal := newMoment()
	wait := l.start(g, load{chats: 4, each: 20000, size: 512, pace: 2 * time.Millisecond, limit: 20 * time.Second, after: func(status int) {
		if status != http.StatusOK {
			refusal.set()
		}
	}, until: func() bool { return !g.alive() || refusal.since() > 5*time.Second }})
	eventually(t, patience, "some load", func() bool { return l.acked() > 200 })
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	replaced := time.Now()
	select {
	case <-g.ended:
	case <-time.After(10 * time.Second):
		t.Errorf("10 s after its directory was replaced it still answers; the last answer 0 was %v ago", time.Since(l.lastAck))
		g.kill()
		wait()
		return
	}
	wait()
	g.mustFailed()
	t.Logf("ended %v after, the last answer 0 was %v after; %v", g.endedAt.Sub(replaced), l.lastAck.Sub(replaced), l)
	g = start(t, dir+".old", options{}) // what was answered until then is in the old one
	l.mustHold(g, nil)
	g.stop()
}
