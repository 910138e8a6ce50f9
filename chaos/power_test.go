//go:build chaos

package chaos

import (
	"testing"
	"time"
)

// TestPowerCut cuts the power of the disk under load: what was answered or delivered must be there when it comes back.
func TestPowerCut(t *testing.T) {
	needs(t, "nbdkit", "nbdfuse", "fusermount3")
	r := random(5)
	for range rounds(5, 50) {
		powerCut(t, r.IntN(500))
		if t.Failed() {
			return
		}
	}
}

// TestPowerCutEarly cuts the power in the first second of a new directory.
func TestPowerCutEarly(t *testing.T) {
	for range rounds(2, 20) {
		d, l := newDisk(t, 128), newLedger(t)
		g := start(t, d.dir, options{})
		w := g.watch()
		l.run(g, load{chats: 4, each: 10, size: 512})
		d.cut()
		g.kill()
		delivered := w.close()
		dir := d.again()
		g = start(t, dir, options{})
		l.mustHold(g, delivered)
		g.stop()
		l.mustVerify(t, dir)
	}
}

func powerCut(t *testing.T, more int) {
	d, l := newDisk(t, 512), newLedger(t)
	g := start(t, d.dir, options{})
	w := g.watch()
	// The power goes after at least 20 MB, in the middle of some commit.
	const size = 8 << 10
	least := 20<<20/size + more
	wait := l.start(g, load{chats: 16, each: 1000, size: size, until: func() bool { return !g.alive() }})
	eventually(t, 3*patience, "20 MB are answered", func() bool { return l.acked() >= least })
	before := l.acked()
	d.cut()
	<-time.After(time.Second) // for answers that it must not give any more
	g.kill()
	wait()
	delivered := w.close()
	if l.count(200) < least {
		t.Fatalf("only %d callbacks were answered before the cut", before)
	}

	dir := d.again()
	g = start(t, dir, options{})
	l.mustHold(g, delivered)
	l.retry(t, g)
	l.mustHold(g, delivered)
	g.stop()
	l.mustVerify(t, dir)
	t.Logf("power cut: %v; %d delivered before", l, len(delivered))
}
