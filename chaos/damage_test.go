//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// An outcome is what becomes of a start on a damaged directory.
type outcome string

const (
	refused  outcome = "refused"        // exit 65, no byte changed
	refused1 outcome = "refused, named" // exit 1 that names what is damaged, no byte changed
	complete outcome = "complete"       // everything is there
	named    outcome = "named"          // what is not there is named damaged
	violated outcome = "VIOLATED"
)

// A fixture is a directory with data, to be damaged in copies.
type fixture struct {
	dir         string
	killed      bool // else stopped in order
	ledger      *ledger
	crew        *crew
	want        map[uint64]event // all that was acknowledged
	quarantined int
}

// newFixture fills a directory: some thousand events in several tables, a group
// with settled and pending events, entries in the quarantine. It ends by kill -9
// or in order.
func newFixture(t *testing.T, killed bool) *fixture {
	t.Helper()
	f := &fixture{dir: filepath.Join(t.TempDir(), "data"), killed: killed, ledger: newLedger(t), crew: newCrew()}
	const restarts = 4
	for i := range restarts {
		g := start(t, f.dir, options{})
		if i == 0 {
			g.createGroup(sluicev1.Order_ORDER_NONE)
		}
		f.ledger.run(g, load{chats: 8, each: 80, size: 400})
		for range 5 {
			f.ledger.malform(t, g)
			f.quarantined++
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := f.crew.work(ctx, g, "first", 0, 200); err != nil {
			t.Fatalf("work: %v", err)
		}
		cancel()
		if i < restarts-1 {
			g.stop()
			continue
		}
		r := f.ledger.mustHold(g, nil)
		f.want = map[uint64]event{}
		for _, e := range r.events {
			f.want[e.seq] = e
		}
		if killed {
			g.kill()
		} else {
			g.stop()
		}
	}
	t.Logf("%d events, %d settled, %d in quarantine; files: %s", len(f.want), len(f.crew.settled), f.quarantined, strings.Join(describe(t, f.dir), ", "))
	return f
}

// copyTo copies the directory.
func (f *fixture) copyTo(t *testing.T, to string) string {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// files returns the regular files below dir that are not empty, but for locks.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && e.Name() != "LOCK" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func describe(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	for _, path := range files(t, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(dir, path)
		all = append(all, fmt.Sprintf("%s %d", name, info.Size()))
	}
	return all
}

// fingerprint returns the hash of each file below dir, by path.
func fingerprint(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range files(t, dir) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = hash(data)
	}
	return all
}

// differences returns the files that are not what they were.
func differences(before, after map[string]string) []string {
	var changed []string
	for path, sum := range before {
		if after[path] != sum {
			changed = append(changed, filepath.Base(path))
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok {
			changed = append(changed, filepath.Base(path)+" (new)")
		}
	}
	slices.Sort(changed)
	return changed
}

// judge starts a gateway on dir, a damaged copy, and says what became of it. The
// second result explains.
func (f *fixture) judge(t *testing.T, dir, damaged string) (outcome, string) {
	t.Helper()
	before := fingerprint(t, dir)
	g := launch(t, dir, options{quiet: true})
	defer g.kill()
	if !g.serving {
		said := g.logged()
		switch changed := differences(before, fingerprint(t, dir)); {
		case len(changed) > 0:
			return violated, fmt.Sprintf("a refused start changed %v; it said %s", changed, tail(said, 400))
		case g.code() == exitRefused && strings.Contains(said, "accept-data-loss"):
			return refused, tail(said, 300)
		case g.code() == exitError && namesDamage(said, damaged):
			return refused1, tail(said, 300)
		}
		return violated, fmt.Sprintf("exit %d, which is no refusal: %s", g.code(), tail(said, 600))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	r, err := g.subscribe(ctx)
	if err != nil {
		return violated, fmt.Sprintf("serves, but a stream that goes on behind gaps ends with %v", err)
	}
	result, why := f.compare(r)
	if result == violated {
		return result, why
	}
	if problem := f.lists(ctx, g, result, r); problem != "" {
		return violated, problem
	}
	if problem := f.others(ctx, g); problem != "" {
		return violated, problem
	}
	return result, why
}

// namesDamage returns whether what the gateway said names the damaged file, or
// the damage.
func namesDamage(said, damaged string) bool {
	return strings.Contains(said, filepath.Base(damaged)) || strings.Contains(said, "corrupt") ||
		strings.Contains(said, "checksum") || strings.Contains(said, "damaged")
}

// compare holds what a stream gave against what was acknowledged.
func (f *fixture) compare(r reading) (outcome, string) {
	got := make(map[uint64]event, len(r.events))
	for _, e := range r.events {
		if f.want[e.seq] != e {
			return violated, fmt.Sprintf("%d is %q, and was %q", e.seq, e.id, f.want[e.seq].id)
		}
		got[e.seq] = e
	}
	missing, silent := 0, 0
	for seq := range f.want {
		if _, ok := got[seq]; ok {
			continue
		}
		if missing++; !r.damaged(seq) {
			silent++
		}
	}
	switch {
	case silent > 0:
		return violated, fmt.Sprintf("%d events are gone without a word, %d of %d are missing", silent, missing, len(f.want))
	case missing > 0:
		return named, fmt.Sprintf("%d of %d are named damaged", missing, len(f.want))
	}
	return complete, ""
}

// lists checks that a list is complete, or says that it cannot be.
func (f *fixture) lists(ctx context.Context, g *gateway, result outcome, r reading) string {
	listed, err := g.list(ctx)
	switch {
	case result == complete && err == nil && len(listed) == len(f.want):
	case result == named && isDamage(err):
		for seq := range f.want { // one of those that are damaged
			if r.damaged(seq) {
				code, body := get(fmt.Sprintf("%s/v1/events/%d", g.api, seq), patience)
				if err := (&apiError{code, body}); !isDamage(err) {
					return fmt.Sprintf("event %d is damaged, and getting it says %v", seq, err)
				}
				break
			}
		}
	default:
		return fmt.Sprintf("a stream is %s, but a list gives %d of %d events and error %v", result, len(listed), len(f.want), err)
	}
	return ""
}

// others checks the quarantine and the group: what was settled does not come
// again, what was not is delivered or a dead letter, unless an error says why
// not.
func (f *fixture) others(ctx context.Context, g *gateway) string {
	if n, err := g.quarantined(ctx); err == nil && n != f.quarantined {
		return fmt.Sprintf("the quarantine lists %d of %d entries without a word", n, f.quarantined)
	}
	c := newCrew()
	c.enough = len(f.want) - len(f.crew.settled)
	for id := range f.crew.settled {
		c.settled[id] = true
	}
	if err := c.work(ctx, g, "later", 1500*time.Millisecond, 0); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return "the group neither delivers nor says why"
		}
		return "" // it says that it cannot
	}
	if len(c.after) > 0 {
		return fmt.Sprintf("%d events that the group had settled come again", len(c.after))
	}
	letters, err := g.deadLetters(ctx)
	if err != nil {
		return ""
	}
	missing := 0
	for seq, e := range f.want {
		if c.seen[e.id] == 0 && !f.crew.settled[e.id] && !letters[seq] {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Sprintf("the group never delivers %d pending events, and keeps no dead letter of them", missing)
	}
	return ""
}

// overwrite replaces a file of a copy, in place.
func overwrite(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
