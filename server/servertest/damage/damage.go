// Package damage breaks what a gateway has stored, for tests: it flips bytes in
// the files of a data directory that is closed, as a bad disk would.
package damage

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Table flips a byte in the middle of the largest table below dir. The write-
// ahead log becomes a table when the directory is opened again after a close.
func Table(t testing.TB, dir string) {
	t.Helper()
	var largest string
	var size int64
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".sst") {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil || largest == "" {
		t.Fatalf("no table to damage below %s: %v", dir, err)
	}
	data, err := os.ReadFile(largest) //nolint:gosec // a file of the test's own
	if err != nil {
		t.Fatal(err)
	}
	data[size/2] ^= 0x10
	if err := os.WriteFile(largest, data, 0o600); err != nil { //nolint:gosec // the same
		t.Fatal(err)
	}
}

// Lose removes the database below dir, so that only the high-water mark knows
// that there was something.
func Lose(t testing.TB, dir string) {
	t.Helper()
	database := filepath.Join(dir, "log")
	if _, err := os.Stat(database); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(database); err != nil {
		t.Fatal(err)
	}
}

// Replace puts another, empty directory in the place of dir, as somebody does
// who restores a copy under a gateway that runs. It returns where dir is now.
func Replace(t testing.TB, dir string) string {
	t.Helper()
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return away
}
