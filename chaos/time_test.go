//go:build chaos

package chaos

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMaxAge changes max_age both ways between starts: none is refused, and
// what should stay stays.
func TestMaxAge(t *testing.T) {
	dir, l := t.TempDir(), newLedger(t)
	for i, age := range []string{"168h", "24h", "720h", "0", "168h"} {
		g := start(t, dir, options{args: []string{"--max-age", age}})
		l.run(g, load{chats: 4, each: 50, size: 512})
		if r := l.mustHold(g, nil); r.first != 1 || len(r.events) != 200*(i+1) {
			t.Fatalf("with max_age %s: %d events from %d on", age, len(r.events), r.first)
		}
		if i%2 == 0 {
			g.stop()
		} else {
			g.kill()
		}
	}
	t.Log(l)
}

// TestClockAhead starts with the clock 8 days ahead, where events are kept for
// 7: it warns, and does not remove all at once.
func TestClockAhead(t *testing.T) {
	dir, l := t.TempDir(), newLedger(t)
	ahead, err := withClock()
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, dir, options{binary: ahead, env: []string{"CHAOS_CLOCK_OFFSET=0s"}})
	l.run(g, load{chats: 4, each: 100, size: 512})
	g.stop()

	g = start(t, dir, options{binary: ahead, env: []string{"CHAOS_CLOCK_OFFSET=192h"}})
	if year := time.Now().Add(192 * time.Hour).Format(`"time":"2006-01-02`); !strings.Contains(g.logged(), year) {
		t.Fatalf("the clock is not ahead: no line of the log has %s", year)
	}
	l.mustHold(g, nil)
	warned := within(5*time.Second, func() bool {
		for line := range strings.Lines(g.logged()) {
			lower := strings.ToLower(line)
			if strings.Contains(lower, `"level":"warn"`) && strings.Contains(lower, "clock") {
				return true
			}
		}
		return false
	})
	if !warned {
		t.Error("no line of the log warns of the clock")
	}
	if r := l.mustHold(g, nil); r.first != 1 {
		t.Errorf("five seconds after a start 8 days ahead the oldest event is %d", r.first)
	}
	l.run(g, load{chats: 4, each: 20, size: 512})
	g.stop()

	g = start(t, dir, options{}) // the clock is right again
	l.mustHold(g, nil)
	l.run(g, load{chats: 4, each: 20, size: 512})
	g.stop()
	t.Log(l)
}

// withClock returns the gateway with a clock that can be put ahead. Everything
// is compiled anew for it, which takes minutes if Go's cache does not have it,
// so TestMain begins with it.
var withClock = sync.OnceValues(func() (string, error) {
	bin := binary + "-clock"
	overlay, err := clockOverlay()
	if err != nil {
		return "", err
	}
	return bin, build(bin, "-tags", "failpoints", "-overlay", overlay)
})

// clockOverlay writes a copy of the standard library's time.Now that adds an
// offset from the environment, and returns the file for go build -overlay. It is
// always in the same place, or Go would not find in its cache what it has built.
func clockOverlay() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOCACHE").Output()
	if err != nil {
		return "", err
	}
	root, cache, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	original, dir := filepath.Join(root, "src", "time", "time.go"), filepath.Join(cache, "sluice-chaos-clock")
	data, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(data), now) != 1 {
		return "", errors.New("time.Now does not look as expected: the overlay must follow it")
	}
	patched := strings.Replace(string(data), now, now+"\tsec += chaosOffset\n", 1)
	patched = strings.Replace(patched, "import (\n", "import (\n\t\"syscall\"\n", 1) + `
var chaosOffset = func() int64 {
	set, _ := syscall.Getenv("CHAOS_CLOCK_OFFSET")
	d, _ := ParseDuration(set)
	return int64(d / Second)
}()
`
	copied, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{original: copied}})
	return overlay, errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(copied, []byte(patched), 0o600), os.WriteFile(overlay, replace, 0o600))
}
