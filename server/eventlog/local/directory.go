package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The names of what is in a data directory.
const (
	databaseDir = "log"     // Pebble's
	markName    = "mark"    // see mark
	ballastName = "ballast" // room for a start on a full disk
)

// A directory is the data directory while it is in use.
type directory struct {
	path string
	root *os.File // for its free space, and to notice that it was replaced
	log  *os.File // the directory of the database, for the same; nil until that is open

	other *os.File // the lock of wal_failover_dir; nil without one
	owed  uint64   // bytes of the ballast that was dropped, until it is made again
}

// errOldLayout reports a directory of the first version, which nobody released.
var errOldLayout = errors.New("it holds a log of Sluice's first storage engine, which this version does not read: " +
	"choose another data_dir, or move this one away")

// openDirectory opens the data directory, and makes it when it is missing and
// may be made.
func openDirectory(path string, create bool) (*directory, error) {
	if path == "" {
		return nil, errors.New("no directory given")
	}
	if create {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"jetstream", "highwater.json"} {
		if _, err := os.Lstat(filepath.Join(path, name)); err == nil {
			return nil, errOldLayout
		}
	}
	root, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	return &directory{path: path, root: root}, nil
}

func (d *directory) file(name string) string { return filepath.Join(d.path, name) }

// hasDatabase reports whether there is a database, or what is left of one. What a
// first start leaves that was cut short is none: there is no mark yet, and
// nothing that names a manifest, holds changes or is a table.
func (d *directory) hasDatabase() (bool, error) {
	entries, err := os.ReadDir(d.file(databaseDir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = os.Lstat(d.file(markName))
	marked := !errors.Is(err, fs.ErrNotExist)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		name := e.Name()
		return name != "LOCK" && marked || strings.HasPrefix(name, "marker.manifest.") ||
			strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".sst")
	}), nil
}

// replaced reports an error when the path, or the mark in it, leads to another
// place than when it was opened: what is written goes into files that nobody
// will find again.
func (d *directory) replaced(marks *marks) error {
	for _, f := range []*os.File{d.root, d.log, marks.file} {
		if f == nil {
			continue
		}
		was, werr := f.Stat()
		now, err := os.Stat(f.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("the data directory has gone away: %w", err)
		case werr == nil && err == nil && !os.SameFile(was, now): // other errors the next write meets
			return fmt.Errorf("the data directory was replaced: %s is not the file that was opened", f.Name())
		}
	}
	return nil
}

// Ballast is a file that is deleted when a start finds the disk full, so that
// there is room to replay the write-ahead log and to serve what is held.
const (
	maxBallast = 64 << 20
	ballastOf  = 4 // the part of MinFree, at most
)

// dropBallast makes room.
func (d *directory) dropBallast() error {
	info, err := os.Lstat(d.file(ballastName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		d.owed, err = uint64(info.Size()), os.Remove(d.file(ballastName)) //nolint:gosec // not negative
	}
	return err
}

// fillBallast makes the ballast where there is none, if that leaves minFree.
func (d *directory) fillBallast(minFree uint64) error {
	size := min(minFree/ballastOf, maxBallast)
	if _, err := os.Lstat(d.file(ballastName)); err == nil || size == 0 {
		return err
	}
	if free, err := freeSpace(d.root); err != nil || free < minFree+2*size {
		return err
	}
	f, err := os.OpenFile(d.file(ballastName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err = errors.Join(allocate(f, int64(size)), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d.owed = 0
	return nil
}

// owner names, in the data directory and in wal_failover_dir, whose the latter is:
// two gateways that shared one would overwrite each other's write-ahead log.
const owner = "owner"

// claim makes sure that nobody else uses other, a directory on another disk. It
// only looks, unless take is set: then other is this directory's from now on.
func (d *directory) claim(other string, take bool) error {
	own, err := os.ReadFile(d.file(owner))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	theirs, err := os.ReadFile(filepath.Join(other, owner)) //nolint:gosec // the operator names it
	switch {
	case err == nil && string(own) != string(theirs):
		return fmt.Errorf("wal_failover_dir %s is the one of another data_dir: each needs its own", other)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case !take:
		return nil
	}
	if len(own) == 0 {
		own = []byte(epochText(newEpoch()) + "\n")
		if err := os.WriteFile(d.file(owner), own, 0o600); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(other, 0o700); err != nil {
		return err
	}
	if d.other, err = os.OpenFile(filepath.Join(other, owner), os.O_CREATE|os.O_RDWR, 0o600); err != nil { //nolint:gosec // the operator names it
		return err
	}
	if err := lockFile(d.other); err != nil {
		return fmt.Errorf("wal_failover_dir %s: another process uses it: %w", other, err)
	}
	_, err = d.other.WriteAt(own, 0)
	return err
}

func (d *directory) close() error {
	err := d.root.Close()
	if d.other != nil {
		err = errors.Join(err, d.other.Close())
	}
	if d.log != nil {
		err = errors.Join(err, d.log.Close())
	}
	return err
}
