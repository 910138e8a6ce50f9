//go:build chaos

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// logDir is where the store is, below the data directory.
const logDir = "log"

// newestWAL returns the newest write-ahead log of a directory.
func newestWAL(t *testing.T, dir string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, logDir, "*.log"))
	if err != nil || len(all) == 0 {
		t.Fatalf("no write-ahead log in %s: the fault cannot happen (%v)", filepath.Join(dir, logDir), err)
	}
	slices.Sort(all)
	return all[len(all)-1]
}

// TestTornTail tears the end of the newest write-ahead log after kill -9: cut,
// or with zeros or garbage behind it. The start works with all that was
// answered, or is refused.
func TestTornTail(t *testing.T) {
	f := newFixture(t, true)
	newestWAL(t, f.dir)
	r := random(3)
	tears := map[string]func([]byte) []byte{
		"nothing":       func(b []byte) []byte { return b },
		"zeros behind":  func(b []byte) []byte { return append(b, make([]byte, 70000)...) },
		"garbage short": func(b []byte) []byte { return append(b, noise(r.IntN(2000)+1)...) },
		"garbage long":  func(b []byte) []byte { return append(b, noise(100000)...) },
		"half of it":    func(b []byte) []byte { return b[:len(b)/2] },
		"zeros over":    func(b []byte) []byte { clear(b[max(len(b)-500, 0):]); return b },
	}
	for _, n := range []int{1, 2, 3, 7, 8, 11, 100, r.IntN(1000) + 1, r.IntN(30000) + 1, r.IntN(100000) + 1} {
		tears[fmt.Sprintf("cut by %d", n)] = func(b []byte) []byte { return b[:max(len(b)-n, 0)] }
	}
	table := newTable()
	for name, tear := range tears {
		dir := f.copyTo(t, filepath.Join(t.TempDir(), "copy"))
		path := newestWAL(t, dir)
		// A file can have room behind what is written. The tear is at the end of
		// what is written.
		data := read(t, path)
		end := len(data)
		for end > 0 && data[end-1] == 0 {
			end--
		}
		overwrite(t, path, tear(data[:end:end]))
		result, why := f.judge(t, dir, path)
		table.add(name, result, name+": "+why)
	}
	t.Logf("the newest WAL torn, CHAOS_SEED=%d:\n%s", seed, table)
	for _, why := range table.why {
		t.Error(why)
	}
	if row := table.counts["nothing"]; row[complete] != 1 {
		t.Errorf("a directory that nothing was done to is %v", row)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := random(4)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestFiles removes, empties, or replaces by an older copy one file of each
// kind. All of it must be there or named, or the start is refused.
func TestFiles(t *testing.T) {
	f := newFixture(t, true)
	older := f.copyTo(t, filepath.Join(t.TempDir(), "older"))
	f.grow(t)
	table := newTable()
	seen := map[string]int{}
	for _, path := range files(t, f.dir) {
		name, _ := filepath.Rel(f.dir, path)
		k := kind(name)
		if seen[k]++; k == "ballast" || seen[k] > rounds(2, 20) {
			continue
		}
		for _, how := range []string{"missing", "empty", "older"} {
			f.lose(t, table, older, name, how)
		}
	}
	t.Logf("files lost:\n%s", table)
	for _, why := range table.why {
		t.Error(why)
	}
}

// grow adds events to a fixture, and kills it.
func (f *fixture) grow(t *testing.T) {
	t.Helper()
	g := start(t, f.dir, options{})
	f.ledger.run(g, load{chats: 8, each: 40, size: 400})
	<-time.After(1100 * time.Millisecond) // what is written once a second is, too
	for _, e := range f.ledger.mustHold(g, nil).events {
		f.want[e.seq] = e
	}
	g.kill()
}

// lose damages one file of a copy.
func (f *fixture) lose(t *testing.T, table *table, older, name, how string) {
	t.Helper()
	dir := f.copyTo(t, filepath.Join(t.TempDir(), "copy"))
	path := filepath.Join(dir, name)
	switch how {
	case "missing":
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	case "empty":
		overwrite(t, path, nil)
	case "older":
		data, err := os.ReadFile(filepath.Join(older, name))
		if err != nil { // it did not exist: the older one of its kind does
			if data = olderOfKind(t, older, name); data == nil {
				return
			}
		}
		overwrite(t, path, data)
	}
	result, why := f.judge(t, dir, path)
	table.add(fmt.Sprintf("%s %s", kind(name), how), result, fmt.Sprintf("%s %s: %s", name, how, why))
	_ = os.RemoveAll(dir)
}

// olderOfKind returns a file of the same kind from the older copy; nil when
// there is none.
func olderOfKind(t *testing.T, older, name string) []byte {
	t.Helper()
	for _, path := range files(t, older) {
		rel, _ := filepath.Rel(older, path)
		if kind(rel) == kind(name) && strings.HasPrefix(filepath.Dir(name), filepath.Dir(rel)) {
			return read(t, path)
		}
	}
	return nil
}
