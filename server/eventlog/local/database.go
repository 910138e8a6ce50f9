package local

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/sluicegate/sluice/server/eventlog"
)

// openPatience is how long a start goes on after the first error of its
// background work.
const openPatience = 2 * time.Second

// memTable is how many bytes gather in memory before they are written to a table.
const memTable = 32 << 20

// openDatabase opens the database. Who only reads finds the rest of the
// write-ahead log where the database says. Where Pebble stops for good, the error
// says why. A start for writing writes what it has replayed to tables first, and
// tries for ever where it cannot, as on a full disk: that ends after openPatience.
func (e *Engine) openDatabase(readOnly, exists bool) (db *pebble.DB, err error) {
	o := e.pebbleOptions(readOnly)
	o.ErrorIfNotExists = exists // never a new database over what is left of one
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { err = recovered(recover(), err) }()
		db, err = pebble.Open(e.dir.file(databaseDir), o)
		if readOnly && errors.Is(err, syscall.EROFS) {
			o.FS = unlocked{vfs.Default}
			db, err = pebble.Open(e.dir.file(databaseDir), o)
		}
		if elsewhere := new(pebble.ErrMissingWALRecoveryDir); readOnly && errors.As(err, elsewhere) {
			o.WALRecoveryDirs = append(o.WALRecoveryDirs, wal.Dir{FS: vfs.Default, Dirname: elsewhere.Dir})
			db, err = pebble.Open(e.dir.file(databaseDir), o)
		}
	}()
	var trouble error
	var late <-chan time.Time // never, while all goes well
	for {
		select {
		case <-done:
			return db, openError(err)
		case <-e.failed:
			return nil, e.why()
		case cause := <-e.trouble:
			if trouble == nil {
				trouble, late = cause, time.After(openPatience)
			}
		case <-late:
			if errors.Is(trouble, syscall.ENOSPC) {
				trouble = fmt.Errorf("it needs room for about %d MiB: make some, or move the directory to a larger disk: %w", 2*memTable>>20, trouble)
			}
			return nil, fmt.Errorf("replay the write-ahead log: %w", trouble)
		}
	}
}

// An unlocked is a file system that takes no write: no gateway can use what is
// there, so the lock, which is a write, is not needed.
type unlocked struct{ vfs.FS }

// Lock implements vfs.FS.
func (unlocked) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// ErrInUse reports that another process, most likely a gateway, uses a data
// directory.
var ErrInUse = errors.New("another process uses it")

// openError returns err of opening the database as something to act on: another
// process, a disk that fails, or damage.
func openError(err error) error {
	var lost *eventlog.DataLossError
	var errno syscall.Errno
	var elsewhere pebble.ErrMissingWALRecoveryDir
	switch {
	case err == nil, errors.As(err, &lost), errors.Is(err, eventlog.ErrUnavailable):
		return err
	case errors.As(err, &elsewhere):
		return fmt.Errorf("part of its write-ahead log may be in %s: set wal_failover_dir to that directory", elsewhere.Dir)
	case strings.Contains(err.Error(), "lock held"), errors.As(err, &errno) && errno == syscall.EAGAIN:
		return fmt.Errorf("%w: %w", ErrInUse, err)
	case errors.As(err, &errno) && errno != syscall.ENOENT:
		return err
	}
	return &eventlog.DataLossError{Reason: "the database is damaged and cannot be opened: " + firstLine(err)}
}

// firstLine returns what err says, without what Pebble adds.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// pebbleOptions returns how the database is opened.
func (e *Engine) pebbleOptions(readOnly bool) *pebble.Options {
	o := &pebble.Options{
		// Only from some format on can a torn end of the write-ahead log be told
		// from damage before what was synced.
		FormatMajorVersion:    pebble.FormatNewest,
		Merger:                merger,
		ReadOnly:              readOnly,
		Logger:                pebbleLog{e},
		EventListener:         e.listener(),
		CacheSize:             32 << 20,
		MemTableSize:          memTable,
		MaxOpenFiles:          1024,
		BytesPerSync:          1 << 20,
		WALBytesPerSync:       0,
		L0CompactionThreshold: 4,
		// Damage in one table can keep its part of the tree from being compacted
		// for good. Appends go on all the same.
		L0StopWritesThreshold:       1 << 20,
		MemTableStopWritesThreshold: 8,
		LBaseMaxBytes:               256 << 20,
	}
	for i := range o.Levels {
		o.Levels[i].BlockSize = 8 << 10                   // what one damaged bit costs
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // an identity that is new is looked up in no table
	}
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	if e.cfg.WALFailoverDir != "" {
		o.WALFailover = &pebble.WALFailoverOptions{Secondary: wal.Dir{FS: vfs.Default, Dirname: e.cfg.WALFailoverDir}}
	}
	if e.cfg.tune != nil {
		e.cfg.tune(o)
	}
	return o
}

// emptyFlush is Pebble's error of a flush that leaves nothing to be written,
// which is none.
const emptyFlush = "pebble: empty table"

// listener returns what Pebble tells of its background work.
func (e *Engine) listener() *pebble.EventListener {
	ended := func(work string, failing *atomic.Pointer[error], err error) {
		switch {
		case errors.Is(err, pebble.ErrCancelledCompaction), pebble.IsCorruptionError(err):
			// It is no failure; or readers meet it, and say which records are concerned.
		case err != nil:
			err = fmt.Errorf("%s of the log fail: %w", work, err)
			select {
			case e.trouble <- err:
			default: // nobody opens
			}
			if failing.Swap(&err) == nil {
				e.logger.Error("background work of the log fails, and is tried again", "err", err)
			}
		case failing.Swap(nil) != nil:
			e.logger.Info(work + " of the log succeed again")
		}
	}
	return &pebble.EventListener{
		BackgroundError: func(error) { e.metrics.background.Inc() },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			e.metrics.corrupted.Inc()
			if _, again := e.damagedFiles.LoadOrStore(info.Path, true); again {
				return
			}
			e.logger.Error("a file of the log is damaged", "file", info.Path, "err", firstLine(info.Details))
		},
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err != nil && info.Err.Error() == emptyFlush {
				info.Err = nil
			}
			ended("flushes", &e.flushes, info.Err)
		},
		CompactionEnd: func(info pebble.CompactionInfo) { ended("compactions", &e.compacts, info.Err) },
		DiskSlow: func(info pebble.DiskSlowInfo) {
			e.logger.Warn("the disk is slow", "operation", info.OpType.String(), "took", info.Duration)
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			e.logger.Warn("the log waits for its background work", "reason", info.Reason)
		},
	}
}

// A pebbleLog is what Pebble says on its own.
type pebbleLog struct{ engine *Engine }

// Infof implements pebble.Logger.
func (pebbleLog) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (l pebbleLog) Errorf(format string, args ...any) {
	l.engine.logger.Warn("database", "text", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. It must not return: Pebble has found that it
// cannot go on. So the engine fails, and the goroutine that was about to go on
// stands still until the process ends.
func (l pebbleLog) Fatalf(format string, args ...any) {
	l.engine.fail(errors.New(firstLine(fmt.Errorf(format, args...))))
	select {}
}
