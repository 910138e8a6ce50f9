package eventlog

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A block is the file that a stream appends to, when it is known for certain
// which one that is. Syncing it costs less than syncing the whole file system,
// and waits for nobody else's writes.
//
// How JetStream lays its files out is its own business and may change. So a
// block is only trusted while its directory has not changed since it was found
// to be the newest file there, and while it grows by at least what was
// appended; otherwise the file system is synced and the block is looked for
// again.
type block struct {
	dir     string
	file    *os.File  // nil when not known
	changed time.Time // the directory's modification time when file was found
	size    int64     // of file at the last commit
}

// settled is how old a directory's last change must be for the next one to show
// in its modification time, which moves in steps of some milliseconds.
const settled = 50 * time.Millisecond

// grown reports whether everything that was appended since the last commit, at
// least size bytes of data, is in b's file.
func (b *block) grown(size int64) bool {
	if b.file == nil {
		return false
	}
	dir, err := os.Stat(b.dir)
	if err != nil || !dir.ModTime().Equal(b.changed) {
		return false
	}
	file, err := b.file.Stat()
	if err != nil || file.Size()-b.size < size {
		return false
	}
	b.size = file.Size()
	return true
}

// find looks for the stream's newest block. It is called before the sync that
// makes durable what is in it already.
func (b *block) find() {
	b.close()
	dir, err := os.Stat(b.dir)
	if err != nil || time.Since(dir.ModTime()) < settled {
		return
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return
	}
	newest := 0
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), ".blk")
		if n, err := strconv.Atoi(digits); ok && err == nil {
			newest = max(newest, n)
		}
	}
	f, err := os.Open(filepath.Join(b.dir, strconv.Itoa(newest)+".blk"))
	if err != nil {
		return
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // nothing was written through it
		return
	}
	b.file, b.changed, b.size = f, dir.ModTime(), info.Size()
}

func (b *block) close() {
	if b.file != nil {
		_ = b.file.Close() // nothing was written through it
		b.file = nil
	}
}

// A write is what was appended to one log since the last commit.
type write struct {
	log  string
	size int64 // of the records' data, in bytes
}

// commit makes writes durable. It is called from one goroutine at a time.
func (d *directory) commit(writes []write) error {
	known := true
	for _, w := range writes {
		b := d.blocks[w.log]
		if b == nil {
			b = &block{dir: filepath.Join(d.path, "jetstream", "$G", "streams", w.log, "msgs")}
			d.blocks[w.log] = b
		}
		known = b.grown(w.size) && known
	}
	if !known {
		for _, w := range writes {
			d.blocks[w.log].find()
		}
		return d.sync()
	}
	for _, w := range writes {
		if err := syncFile(d.blocks[w.log].file); err != nil {
			return err
		}
	}
	return nil
}
