//go:build chaos

package chaos

import (
	"fmt"
	"os/exec"
	"testing"
)

// problems are what the checker found; it shows the first few.
type problems struct {
	found []string
	count int
}

func (p *problems) add(format string, args ...any) {
	if p.count++; len(p.found) < 10 {
		p.found = append(p.found, fmt.Sprintf(format, args...))
	}
}

func (p *problems) report(t *testing.T, what string) {
	t.Helper()
	if p.count > 0 {
		t.Errorf("%s: %d violations of what is promised, among them:", what, p.count)
		for _, f := range p.found {
			t.Errorf("  %s", f)
		}
	}
}

// check holds what a reader got against what was posted and, for I10, what was
// delivered before the fault. The numbers are those of the invariants in
// README.md.
func (l *ledger) check(r reading, delivered []event) *problems {
	p := &problems{}
	byID := l.checkEvents(p, r)
	lastOfChat := map[string]uint64{}
	for _, post := range l.all() {
		e, stored := byID[post.ID]
		switch {
		case post.malformed || !post.Acked:
			continue
		case !stored && r.first <= 1 && len(r.gaps) == 0:
			p.add("I1: %s was answered 0 and is gone", post.ID)
		case !stored && len(r.gaps) == 0 && lastOfChat[post.Chat] > 0:
			p.add("I1: %s was answered 0 and is gone, and something older of %s is there", post.ID, post.Chat)
		case !stored: // removed by retention, or named: rows about damage look closer
		case e.hash != post.Hash:
			p.add("I1: %s is stored with other bytes", post.ID)
		case post.Tries == 1: // the order of what came again is not the first one's
			if last := lastOfChat[post.Chat]; e.seq < last {
				p.add("I4: %s of %s stands at %d, behind a later one at %d", post.ID, post.Chat, e.seq, last)
			}
			lastOfChat[post.Chat] = e.seq
		}
	}
	l.checkDelivered(p, r, delivered)
	return p
}

// checkEvents checks what can be said of the events alone, and returns them by
// the vendor's id.
func (l *ledger) checkEvents(p *problems, r reading) map[string]event {
	byID := make(map[string]event, len(r.events))
	before := uint64(0)
	for _, e := range r.events {
		post := l.posts[e.id]
		switch {
		case e.seq <= before:
			p.add("I4: %d comes after %d", e.seq, before)
		case post == nil || l.forged[e.id]:
			p.add("I2: %d has the id %q, which nobody posted", e.seq, e.id)
		case post.Hash != e.hash:
			p.add("I2: %d (%s) has bytes that nobody posted", e.seq, e.id)
		}
		if first, twice := byID[e.id]; twice {
			p.add("I3: %s stands at %d and at %d", e.id, first.seq, e.seq)
		}
		byID[e.id], before = e, e.seq
	}
	return byID
}

// checkDelivered checks that what was delivered is still there.
func (l *ledger) checkDelivered(p *problems, r reading, delivered []event) {
	bySeq := make(map[uint64]event, len(r.events))
	for _, e := range r.events {
		bySeq[e.seq] = e
	}
	for _, e := range delivered {
		if now, ok := bySeq[e.seq]; now != e && (ok || e.seq >= r.first && !r.damaged(e.seq)) {
			p.add("I10: %d was delivered as %s and is %q now", e.seq, e.id, now.id)
		}
	}
}

// mustVerify has the command check the directory of a gateway that has ended.
func (l *ledger) mustVerify(t *testing.T, dir string) {
	t.Helper()
	out, err := exec.Command(binary, "verify", "--data-dir", dir, "--ledger", l.sync(t)).CombinedOutput()
	if err != nil {
		t.Errorf("verify: %v\n%s", err, tail(string(out), 2000))
	}
}

// mustHold reads everything and checks it.
func (l *ledger) mustHold(g *gateway, delivered []event) reading {
	g.t.Helper()
	r := g.mustRead()
	l.check(r, delivered).report(g.t, l.String())
	return r
}
