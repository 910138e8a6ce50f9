//go:build chaos

package chaos

import (
	"cmp"
	"fmt"
	"strings"
	"syscall"
	"testing"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A killPoint is a place at which the gateway is killed, and what leads there.
type killPoint struct {
	name  string
	at    int // the hit that kills
	size  int // of a text; 0 is 512
	args  []string
	drive func(*gateway) // what beside the load leads there; may be nil
}

var killPoints = []killPoint{
	{name: "after-read", at: 300},
	{name: "after-auth", at: 300},
	{name: "before-apply", at: 30},
	{name: "after-apply-before-sync", at: 30},
	{name: "after-sync-before-respond", at: 30},
	{name: "mid-response", at: 300},
	{name: "before-deliver", at: 5},
	{name: "after-deliver-before-ack", at: 3},
	{name: "during-trim", at: 1},
	{name: "during-retention", at: 1, size: 8 << 10, args: []string{"--max-bytes", "6MiB", "--on-full", "drop_oldest"}},
	{name: "during-mark-write", at: 3},
	{name: "during-reload", at: 1, drive: func(g *gateway) { _ = g.cmd.Process.Signal(syscall.SIGHUP) }},
	{name: "during-drain", at: 1, drive: func(g *gateway) { _ = g.cmd.Process.Signal(syscall.SIGTERM) }},
}

// TestKill kills the gateway at each point while it takes callbacks, streams
// and serves a group; then nothing answered may be missing, and what was not
// answered can come again.
func TestKill(t *testing.T) {
	for _, point := range killPoints {
		t.Run(point.name, func(t *testing.T) {
			for range rounds(1, 10) {
				killAt(t, point)
			}
		})
	}
}

func killAt(t *testing.T, point killPoint) {
	dir, l, c := t.TempDir(), newLedger(t), newCrew()
	g := start(t, dir, options{args: point.args})
	g.createGroup(sluicev1.Order_ORDER_UNSPECIFIED)
	l.run(g, load{chats: 4, each: 50, size: 512})
	g.stop()

	g = launch(t, dir, options{args: point.args, failpoints: fmt.Sprintf("%s=kill@%d", point.name, point.at)})
	w := &watcher{cancel: func() {}, done: make(chan struct{})}
	if g.serving {
		w = g.watch()
		quit := c.hire(g, "first")
		l.forge(t, g)
		wait := l.start(g, load{chats: 8, each: 1000, size: cmp.Or(point.size, 512), until: func() bool { return !g.alive() }})
		if point.drive != nil {
			eventually(t, patience, "some load", func() bool { return l.acked() > 400 })
			point.drive(g)
		}
		wait()
		g.await()
		quit()
	} else {
		close(w.done)
	}
	if said := "failpoint " + point.name + " kill"; !strings.Contains(g.logged(), said) || g.code() != -1 {
		t.Fatalf("the gateway ended with code %d and was not killed at %s", g.code(), point.name)
	}
	delivered := w.close()

	g = start(t, dir, options{args: point.args})
	l.mustHold(g, delivered)
	l.retry(t, g)
	r := l.mustHold(g, delivered)
	if r.first <= 1 {
		c.finish(g, r.last)
		c.check(t, l)
	}
	g.stop()
	if r.first <= 1 {
		l.mustVerify(t, dir)
	}
	t.Logf("%s: %v; %d delivered before", point.name, l, len(delivered))
}
