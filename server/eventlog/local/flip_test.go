package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
)

// small makes tables of some kilobytes, so that a few thousand records lie in
// many files and levels.
func small(o *pebble.Options) {
	o.MemTableSize = 256 << 10
	o.LBaseMaxBytes = 256 << 10
	o.FlushSplitBytes = 64 << 10
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = 64 << 10
	}
}

// acknowledged is what an engine has answered for, by log.
type acknowledged map[string]map[uint64][]byte

// populate appends some thousands of records to several logs of e, and removes
// some, and returns what must be there afterwards.
func populate(t testing.TB, e *Engine) acknowledged {
	t.Helper()
	ctx := t.Context()
	acked := acknowledged{}
	random := rand.New(rand.NewPCG(1, 2))
	for _, spec := range []struct {
		cfg     eventlog.LogConfig
		records int
	}{
		{eventlog.LogConfig{Name: "EVENTS", DedupeWindow: 24 * time.Hour}, 3000},
		{eventlog.LogConfig{Name: "QUARANTINE", DedupeWindow: 24 * time.Hour, Deletes: true}, 200},
		{eventlog.LogConfig{Name: "GROUP_1", Deletes: true}, 300},
	} {
		l, err := e.Log(ctx, spec.cfg)
		if err != nil {
			t.Fatal(err)
		}
		held := map[uint64][]byte{}
		acked[spec.cfg.Name] = held
		for i := range spec.records {
			data := make([]byte, 200+random.IntN(600))
			for j := range data {
				data[j] = byte(random.Uint32()) // does not compress
			}
			a, err := l.Append(ctx, eventlog.Record{
				Subject: "s", ID: fmt.Sprint(spec.cfg.Name, i), Key: fmt.Sprint("chat", i%50), Data: data,
			})
			if err != nil {
				t.Fatal(err)
			}
			held[a.Sequence] = data
		}
		if !spec.cfg.Deletes {
			continue
		}
		for sequence := uint64(20); sequence < 40; sequence += 3 {
			if err := l.Delete(ctx, sequence); err != nil {
				t.Fatal(err)
			}
			delete(held, sequence)
		}
		if err := l.Trim(ctx, 11); err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(held, func(sequence uint64, _ []byte) bool { return sequence < 11 })
	}
	return acked
}

// check reads all that e holds: each record that was acknowledged must be as it
// was, or be named as damaged. It returns how many were named.
func check(t testing.TB, e *Engine, acked acknowledged) (damaged int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for name, want := range acked {
		l, err := e.Log(ctx, eventlog.LogConfig{Name: name, DedupeWindow: 24 * time.Hour, Deletes: true})
		if err != nil {
			t.Errorf("Log(%s) = %v", name, err)
			continue
		}
		want = maps.Clone(want)
		for from := uint64(1); from <= l.Durable(); {
			err := l.Scan(ctx, from, l.Durable(), func(r eventlog.Record) error {
				if data, ok := want[r.Sequence]; ok && !bytes.Equal(data, r.Data) {
					t.Errorf("record %d of %s is altered", r.Sequence, name)
				}
				delete(want, r.Sequence)
				return nil
			})
			var d *eventlog.DamagedError
			if !errors.As(err, &d) {
				if err != nil {
					t.Errorf("Scan(%s) = %v", name, err)
				}
				break
			}
			for sequence := d.First; sequence <= d.Last; sequence++ {
				delete(want, sequence)
			}
			damaged += int(d.Last - d.First + 1)
			from = d.Last + 1
		}
		if len(want) > 0 {
			t.Errorf("%d acknowledged records of %s are gone without a word, the first is %d",
				len(want), name, slices.Min(slices.Collect(maps.Keys(want))))
		}
	}
	return damaged
}

// digest returns the hash of each file in dir but Pebble's lock.
func digest(t testing.TB, dir string) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		data, err := os.ReadFile(path)
		sums[strings.TrimPrefix(path, dir)] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// closedAndKilled returns a directory that was closed, and one that was killed.
func closedAndKilled(t testing.TB) (closed, killed string, acked [2]acknowledged) {
	t.Helper()
	e, err := Open(t.Context(), Config{Dir: t.TempDir(), tune: small})
	if err != nil {
		t.Fatal(err)
	}
	acked[0] = populate(t, e)
	closeEngine(t, e)
	closed = e.cfg.Dir
	e, err = Open(t.Context(), Config{Dir: t.TempDir(), tune: small})
	if err != nil {
		t.Fatal(err)
	}
	acked[1] = populate(t, e)
	return closed, kill(t, e), acked
}

// TestFlippedBits flips one bit at a time anywhere in a data directory: nothing
// that was acknowledged is lost or altered unless the start is refused, which
// changes no file, or the record is named.
func TestFlippedBits(t *testing.T) {
	flips := 16 // each that hits a table costs Pebble up to a second: it looks for the bit; chaos/ flips 200
	if n := os.Getenv("FLIPS"); n != "" {
		fmt.Sscan(n, &flips)
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		fmt.Sscan(s, &seed)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	closed, killed, acked := closedAndKilled(t)
	outcomes := map[string]int{}
	for i := range flips {
		from := []string{closed, killed}[i%2]
		dir := t.TempDir()
		copyDir(t, dir, from)
		file, bit := flip(t, random, dir)
		outcome := openFlipped(t, dir, acked[i%2])
		kind := filepath.Ext(file)
		if name := filepath.Base(file); kind == "" || strings.HasPrefix(name, "marker") {
			kind, _, _ = strings.Cut(name, "-")
		}
		outcomes[kind+" "+outcome]++
		if t.Failed() {
			t.Fatalf("bit %d of %s, directory %d: %s", bit, file, i%2, outcome)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%4d %s", outcomes[outcome], outcome)
	}
}

// flip flips a random bit of a random file: half of the time all bytes of all
// files are as likely, half of the time all files are.
func flip(t testing.TB, random *rand.Rand, dir string) (file string, bit int64) {
	t.Helper()
	var files []string
	var sizes []int64
	total := int64(0)
	for name := range digest(t, dir) {
		files = append(files, name)
	}
	slices.Sort(files)
	contents := map[string][]byte{}
	for _, name := range files {
		data, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		contents[name] = data
		sizes = append(sizes, int64(len(bytes.TrimRight(data, "\x00"))))
		total += sizes[len(sizes)-1]
	}
	n := random.IntN(len(files))
	for sizes[n] == 0 {
		n = random.IntN(len(files))
	}
	if random.IntN(2) == 0 {
		at := random.Int64N(total)
		for n = 0; at >= sizes[n]; n++ {
			at -= sizes[n]
		}
	}
	bit = random.Int64N(8 * sizes[n])
	data := contents[files[n]]
	data[bit/8] ^= 1 << (bit % 8)
	if err := os.WriteFile(dir+files[n], data, 0o600); err != nil {
		t.Fatal(err)
	}
	return files[n], bit
}

// openFlipped opens a damaged directory, and says what came of it.
func openFlipped(t testing.TB, dir string, acked acknowledged) string {
	t.Helper()
	before := digest(t, dir)
	e, err := Open(t.Context(), Config{Dir: dir, tune: small})
	if err != nil {
		if after := digest(t, dir); !maps.Equal(before, after) {
			t.Errorf("a refused start has changed files: %v", err)
		}
		var lost *eventlog.DataLossError
		if !errors.As(err, &lost) {
			t.Fatalf("refused with %v, want a DataLossError", err)
		}
		return "refused: " + lost.Reason[:min(len(lost.Reason), 50)]
	}
	defer closeEngine(t, e)
	if n := check(t, e, acked); n > 0 {
		return "named"
	}
	return "harmless"
}

func equalDigests(a, b map[string][32]byte) bool { return maps.Equal(a, b) }
