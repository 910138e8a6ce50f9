//go:build chaos

package chaos

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSlowSync has the disk stop for 6 s.
func TestSlowSync(t *testing.T) { stall(t, 6*time.Second) }

// TestStall has the disk stop for 20 s: callbacks are refused in time, /readyz
// says so, reads go on; then all is well again, by itself or by a restart.
func TestStall(t *testing.T) { stall(t, 20*time.Second) }

func stall(t *testing.T, d time.Duration) {
	disk, l := newDisk(t, 512), newLedger(t)
	g := start(t, disk.dir, options{})
	t.Cleanup(func() { // before the disk goes away
		disk.resume()
		g.kill()
	})
	w := g.watch()
	l.run(g, load{chats: 8, each: 100, size: 1 << 10})
	p := g.probe()
	over := newMoment()
	wait := l.start(g, load{chats: 4, each: 20000, size: 512, pace: 5 * time.Millisecond, until: func() bool {
		return !g.alive() || over.since() > time.Second
	}})
	eventually(t, patience, "some load", func() bool { return l.acked() > 900 })
	stopped := time.Now()
	disk.stop()
	slowest, reads := g.readFor(d)
	stillUp := g.alive()
	disk.resume()
	over.set()
	wait()
	p.close()
	if l.count(http.StatusServiceUnavailable) == 0 {
		t.Error("no callback was refused: the disk did not stop")
	}
	if stillUp {
		if p.reds == 0 || p.firstAt.Sub(stopped) > commitTimeout+2*time.Second {
			t.Errorf("/readyz was red %d times, first %v after the disk stopped", p.reds, p.firstAt.Sub(stopped))
		}
		if reads == 0 || slowest > 2*time.Second {
			t.Errorf("%d reads of recent events while the disk stopped, the slowest took %v", reads, slowest)
		}
	}
	l.mustAnswerSoon(t)
	if !stillUp || !within(3*time.Second, func() bool { code, _ := g.ready(); return code == http.StatusOK }) {
		g.await()
		g.mustFailed()
		t.Logf("it stopped %v after the disk did", g.endedAt.Sub(stopped))
		g = start(t, disk.dir, options{})
	}
	delivered := w.close()
	l.mustHold(g, delivered)
	l.retry(t, g)
	l.mustHold(g, delivered)
	g.stop()
	t.Logf("%v; /readyz: slowest %v, red %d times, first after %v, %q; %d reads, slowest %v", l,
		p.slowest.Round(time.Millisecond), p.reds, p.firstAt.Sub(stopped).Round(time.Millisecond), strings.TrimSpace(p.cause), reads, slowest.Round(time.Millisecond))
}

// readFor reads the newest events again and again for d, and returns how long
// the slowest took of those that worked, and how many did.
func (g *gateway) readFor(d time.Duration) (slowest time.Duration, reads int) {
	end := time.After(d)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return slowest, reads
		case <-g.ended:
			<-end // the disk stops for as long all the same
			return slowest, reads
		case <-tick.C:
		}
		began := time.Now()
		if code, body := get(g.api+"/v1/events?newest_first=true&page_size=10", 5*time.Second); code == http.StatusOK && strings.Contains(body, "sequence") {
			reads++
		}
		slowest = max(slowest, time.Since(began))
	}
}

// TestWALFailover stops the disk of a gateway that has a second one: callbacks
// go on being answered 0.
func TestWALFailover(t *testing.T) {
	disk, l, second := newDisk(t, 512), newLedger(t), t.TempDir()
	args := []string{"--wal-failover-dir", second}
	g := start(t, disk.dir, options{args: args})
	t.Cleanup(func() {
		disk.resume()
		g.kill()
	})
	l.run(g, load{chats: 8, each: 100, size: 1 << 10})
	over := newMoment()
	wait := l.start(g, load{chats: 4, each: 20000, size: 512, pace: 5 * time.Millisecond, until: func() bool {
		return !g.alive() || over.since() > time.Second
	}})
	eventually(t, patience, "some load", func() bool { return l.acked() > 900 })
	disk.stop()
	<-time.After(10 * time.Second)
	during := l.acked()
	<-time.After(5 * time.Second)
	late := l.acked() - during
	disk.resume()
	over.set()
	wait()
	if late < 50 {
		t.Errorf("%d callbacks were answered 0 from the 10th to the 15th second of the stop", late)
	}
	g.kill() // what is on the second disk counts
	g = start(t, disk.dir, options{args: args})
	l.mustHold(g, nil)
	l.retry(t, g)
	l.mustHold(g, nil)
	l.mustAnswerSoon(t)
	g.stop()
	t.Logf("%d answered 0 late in the stop; %v", late, l)
}
