package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/wal"
)

// damagedDir is where files are kept as they were before they were cut.
const damagedDir = "damaged"

// salvage cuts each file of the write-ahead log where it is damaged, so that the
// database opens with what is before. It is for who accepts the loss; the files
// stay as they were in a directory of their own.
func (e *Engine) salvage() error {
	dirs := []string{e.dir.file(databaseDir)}
	if e.cfg.WALFailoverDir != "" {
		dirs = append(dirs, e.cfg.WALFailoverDir)
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			number, _, ok := wal.ParseLogFilename(entry.Name())
			if !ok {
				continue
			}
			if err := e.cut(filepath.Join(dir, entry.Name()), number); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut cuts one file of the write-ahead log behind its last whole record.
func (e *Engine) cut(path string, number wal.NumWAL) error {
	end, err := wholeRecords(path, number)
	if err != nil || end < 0 {
		return err
	}
	kept, err := e.keep(path)
	if err != nil {
		return fmt.Errorf("keep a copy of %s: %w", path, err)
	}
	e.logger.Warn("a damaged file of the write-ahead log was cut", "file", path, "bytes", end, "copy", kept)
	return os.Truncate(path, end)
}

// keep copies a file, for good, beside the copies of earlier times.
func (e *Engine) keep(path string) (kept string, err error) {
	dir := e.dir.file(damagedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	kept = filepath.Join(dir, filepath.Base(path))
	for n := 1; ; n++ {
		if err = copyFile(kept, path); !errors.Is(err, fs.ErrExist) {
			break
		}
		kept = fmt.Sprintf("%s.%d", filepath.Join(dir, filepath.Base(path)), n)
	}
	if err != nil {
		return "", err
	}
	d, err := os.Open(dir) //nolint:gosec // our own directory
	if err != nil {
		return "", err
	}
	return kept, errors.Join(d.Sync(), d.Close(), e.dir.root.Sync())
}

// wholeRecords returns where the first damaged record of a file begins; -1 when
// there is none.
func wholeRecords(path string, number wal.NumWAL) (end int64, err error) {
	f, err := os.Open(path) //nolint:gosec // our own file
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := numbered(record.NewReader, f, uint64(number))
	for {
		end = r.Offset()
		rec, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, rec)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return -1, nil
		default: // whatever it is, what follows cannot be read
			return end, nil
		}
	}
}

// numbered calls a function that takes a number of a type that Pebble does not
// export.
func numbered[N ~uint64](newReader func(io.Reader, N) *record.Reader, from io.Reader, number uint64) *record.Reader {
	return newReader(from, N(number))
}

func copyFile(to, from string) error {
	in, err := os.Open(from) //nolint:gosec // our own file
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()                                     // nothing was written through it
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // our own file
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
