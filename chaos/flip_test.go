//go:build chaos

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestFlip flips one bit at random places of all files of a directory, after a
// stop in order and after kill -9: the start is refused and changes nothing, or
// what is damaged is named, or nothing is missing.
func TestFlip(t *testing.T) {
	for _, killed := range []bool{false, true} {
		name, row := "closed", uint64(1)
		if killed {
			name, row = "killed", 2
		}
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, killed)
			flips := pickFlips(t, f.dir, rounds(100, 500), random(row))
			table := newTable()
			f.eachFlip(t, flips, table)
			t.Logf("bits flipped, CHAOS_SEED=%d:\n%s", seed, table)
			if n := table.total(violated); n > 0 {
				t.Errorf("%d of %d flips broke a promise:\n%s", n, len(flips), strings.Join(table.why[:min(len(table.why), 12)], "\n"))
			}
		})
	}
}

// A flip is a bit of a file.
type flip struct {
	file string // relative to the directory
	byte int64
	bit  uint
}

// pickFlips picks two places in each file, and the rest in proportion to size.
func pickFlips(t *testing.T, dir string, n int, r *rand.Rand) []flip {
	t.Helper()
	var flips []flip
	var sizes []int64
	var names []string
	total := int64(0)
	for _, path := range files(t, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(dir, path)
		if info.Size() == 0 || kind(name) == "ballast" {
			continue // a ballast is large and holds nothing
		}
		names, sizes = append(names, name), append(sizes, info.Size())
		total += info.Size()
		for range 2 {
			flips = append(flips, flip{name, r.Int64N(info.Size()), uint(r.IntN(8))})
		}
	}
	for len(flips) < n {
		at := r.Int64N(total)
		for i, size := range sizes {
			if at < size {
				flips = append(flips, flip{names[i], at, uint(r.IntN(8))})
				break
			}
			at -= size
		}
	}
	return flips
}

// eachFlip judges all flips, two at a time.
func (f *fixture) eachFlip(t *testing.T, flips []flip, table *table) {
	next := make(chan flip)
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for one := range next {
				dir := f.copyTo(t, filepath.Join(t.TempDir(), "copy"))
				path := filepath.Join(dir, one.file)
				data := read(t, path)
				data[one.byte] ^= 1 << one.bit
				overwrite(t, path, data)
				result, why := f.judge(t, dir, path)
				table.add(kind(one.file), result, fmt.Sprintf("%s, byte %d of %d, bit %d: %s", one.file, one.byte, len(data), one.bit, why))
				_ = os.RemoveAll(dir)
			}
		})
	}
	for _, one := range flips {
		next <- one
	}
	close(next)
	workers.Wait()
}

// kind returns what a file is, as rows of a table are named: its name without
// numbers.
func kind(name string) string {
	base := strings.TrimRight(filepath.Base(name), "0123456789")
	switch ext := filepath.Ext(name); {
	case ext == ".log" && strings.Trim(strings.TrimSuffix(filepath.Base(name), ext), "0123456789") == "":
		return "WAL"
	case ext == ".sst" || ext == ".blob" || ext == ".blk":
		return ext[1:]
	case strings.HasPrefix(base, "marker."):
		return strings.Join(strings.SplitN(base, ".", 3)[:2], ".")
	}
	return strings.TrimRight(base, "-.")
}

// A table counts outcomes by kind of file.
type table struct {
	mu     sync.Mutex
	counts map[string]map[outcome]int
	why    []string // of the violations
}

func newTable() *table { return &table{counts: map[string]map[outcome]int{}} }

func (t *table) add(row string, o outcome, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[row] == nil {
		t.counts[row] = map[outcome]int{}
	}
	t.counts[row][o]++
	if o == violated {
		t.why = append(t.why, why)
	}
}

func (t *table) total(o outcome) int {
	n := 0
	for _, row := range t.counts {
		n += row[o]
	}
	return n
}

// String is the table.
func (t *table) String() string {
	columns := []outcome{refused, refused1, named, complete, violated}
	var b strings.Builder
	fmt.Fprintf(&b, "%-16s", "file")
	for _, c := range columns {
		fmt.Fprintf(&b, "%16s", c)
	}
	var rows []string
	for row := range t.counts {
		rows = append(rows, row)
	}
	slices.Sort(rows)
	for _, row := range rows {
		fmt.Fprintf(&b, "\n%-16s", row)
		for _, c := range columns {
			fmt.Fprintf(&b, "%16d", t.counts[row][c])
		}
	}
	return b.String()
}
