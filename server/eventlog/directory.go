package eventlog

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// A directory is the data directory of an embedded server, locked against a
// second process. Its methods on nil do nothing: an external server has none.
type directory struct {
	path string
	root *os.File // the directory itself, for sync and free space
	lock *os.File

	blocks map[string]*block // by name of the log; commit's

	marking    sync.Mutex // guards what follows, and the file
	marks      map[string]highWater
	marksMoved bool // since the file was written
}

// openDirectory creates path where it is missing, locks it, and reads the
// high-water mark.
func openDirectory(path string) (*directory, error) {
	if path == "" {
		return nil, errors.New("no directory given")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	d := &directory{path: path, blocks: make(map[string]*block)}
	err := d.open()
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *directory) open() (err error) {
	if d.root, err = os.Open(d.path); err != nil {
		return err
	}
	if d.lock, err = os.OpenFile(d.path+"/LOCK", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := lockFile(d.lock); err != nil {
		return fmt.Errorf("another process uses it: %w", err)
	}
	d.marks, err = readMarks(d.path)
	return err
}

// mark returns the high-water mark of the log named name, and whether there is
// one.
func (d *directory) mark(name string) (highWater, bool) {
	if d == nil {
		return highWater{}, false
	}
	d.marking.Lock()
	defer d.marking.Unlock()
	m, ok := d.marks[name]
	return m, ok
}

// writeMarks writes the high-water marks if they have moved. They are a lower
// bound of what is there, so that none is written too early. d.marking is held.
func (d *directory) writeMarks() error {
	if d == nil || !d.marksMoved {
		return nil
	}
	if err := writeMarks(d.path, d.marks); err != nil {
		return err
	}
	d.marksMoved = false
	return nil
}

// forget removes the mark of the log named name.
func (d *directory) forget(name string) error {
	if d == nil {
		return nil
	}
	d.marking.Lock()
	defer d.marking.Unlock()
	delete(d.marks, name)
	d.marksMoved = true
	return d.writeMarks()
}

// sync makes all that was written to the directory's file system durable, with
// the metadata that leads to it. On nil it does nothing.
func (d *directory) sync() error {
	if d == nil {
		return nil
	}
	return syncFileSystem(d.root)
}

// forgetBlocks is called while no server runs: the next one may replace files.
func (d *directory) forgetBlocks() {
	for _, b := range d.blocks {
		b.close()
	}
	clear(d.blocks)
}

// free returns how many bytes the file system has left for us.
func (d *directory) free() (uint64, error) { return freeSpace(d.root) }

func (d *directory) close() error {
	if d == nil {
		return nil
	}
	var errs []error
	d.forgetBlocks()
	for _, f := range []*os.File{d.lock, d.root} { // closing the lock gives it up
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
