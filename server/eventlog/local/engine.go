// Package local keeps logs on one machine, in one Pebble database whose one
// write-ahead log is synced for all of them together.
//
// # Who does what
//
// One goroutine, writer, makes every change: it takes what waits, puts it into
// one batch and hands that to Pebble, waits until the batch is on stable storage,
// writes the marks, lets readers see the records, and answers those who wait.
// Meanwhile the next batch gathers. No caller holds a lock across I/O, so each can
// leave when its context ends.
//
// # When the disk fails
//
// A failed write or sync of the write-ahead log is final: what the system did
// with the pages is unknown, so a second sync that succeeds would prove nothing.
// Everybody who waits gets ErrUnavailable, Failed is closed, and the process is
// to end; the next start reads what is really on the disk.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice/server/eventlog"
)

// Config says how to open an Engine.
type Config struct {
	// Dir is the data directory. It is created when missing. Required.
	Dir string

	// WALFailoverDir is a directory on another disk, to which the write-ahead
	// log moves while the disk of Dir stalls. Unset means none.
	WALFailoverDir string

	// CommitTimeout bounds an Append. 0 means 3 s.
	CommitTimeout time.Duration

	// MaxRecord is the largest Record.Data, in bytes. 0 means 1 MiB.
	MaxRecord int

	// MinFree is how many bytes the disk must have left for Append to try. 0
	// means no bound.
	MinFree uint64

	// AcceptDataLoss opens logs that hold less than they once acknowledged, and
	// begins a new epoch for them.
	AcceptDataLoss bool

	// Whole names the logs that must be readable to their last record for the
	// start not to be refused. Accepting data loss goes on without what is not.
	Whole []string

	// Clock tells the time that records are stored at. nil means time.Now.
	Clock func() time.Time

	// Logger takes what an operator should know. nil means no logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer

	tune func(*pebble.Options) // by tests: another file system, smaller tables
}

const (
	defaultCommitTimeout = 3 * time.Second

	// maxWaiting bounds the changes that wait for the writer. It takes a
	// callback each, so what reaches it is no traffic of the vendor's.
	maxWaiting = 1 << 13

	// maxReads bounds the reads under way: on a disk that does not answer, they
	// stay after their callers have left.
	maxReads = 64

	watchInterval = 250 * time.Millisecond
	markInterval  = time.Second
)

// maxScans bounds the reads of more than one record that are under way: half of the
// processors, so that however many read the log, callbacks find the others.
func maxScans() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// An Engine is the logs in a data directory. It implements eventlog.Engine.
type Engine struct {
	cfg     Config
	logger  *slog.Logger
	options eventlog.Options
	db      *pebble.DB
	marks   *marks // nil when the engine is read-only
	dir     *directory
	metrics *metrics

	ops   chan *op      // to the writer
	reads chan struct{} // a place for each read under way
	scans chan struct{} // and one for each that is of more than one record
	sweep chan struct{} // size 1: a log is over its bounds

	crowd  int           // ops of the last batch; the writer's
	synced time.Duration // how long its sync took; the writer's

	started      time.Time
	writing      atomic.Int64          // since when, by uptime, the writer works on its batch; 0 when idle
	short        atomic.Bool           // the disk has less than MinFree left
	unfiltered   atomic.Bool           // a filter of the identities is damaged
	flushes      atomic.Pointer[error] // why they fail
	compacts     atomic.Pointer[error] // why compactions fail
	reported     atomic.Int64          // when, by uptime, damaged identities were last logged
	damagedFiles sync.Map              // paths that were logged
	trouble      chan error            // size 1: an error of the background work, for who opens

	closing    chan struct{} // closed when Close begins
	over       chan struct{} // closed when nothing waits for an outcome any more
	failed     chan struct{}
	background sync.WaitGroup
	workers    sync.WaitGroup // the writer

	opening sync.Mutex // held while a log is opened for reading only

	mu     sync.Mutex
	stores map[string]*store // all logs, by name
	next   uint32            // number of the next log; the writer's
	reason error             // why over is closed
	closed bool              // Close has begun
}

// Err implements eventlog.Engine.
func (e *Engine) Err() error {
	select {
	case <-e.over:
		return e.why()
	default:
	}
	if at := e.writing.Load(); at != 0 {
		if waited := time.Duration(e.uptime() - at); waited > e.cfg.CommitTimeout {
			return fmt.Errorf("%w: the disk has not answered for %v", eventlog.ErrUnavailable, waited.Round(time.Second))
		}
	}
	for _, failing := range []*atomic.Pointer[error]{&e.flushes, &e.compacts} {
		if err := failing.Load(); err != nil {
			return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, *err)
		}
	}
	if e.short.Load() {
		return fmt.Errorf("%w: the disk has less than min_free (%d bytes) left", eventlog.ErrFull, e.cfg.MinFree)
	}
	return nil
}

// uptime returns the nanoseconds since the engine was opened, from 1, by a clock
// that nobody sets.
func (e *Engine) uptime() int64 { return int64(time.Since(e.started)) + 1 }

// Failed implements eventlog.Engine.
func (e *Engine) Failed() <-chan struct{} { return e.failed }

// fail takes the engine out of service for good. It may be called more than
// once; the first reason counts.
func (e *Engine) fail(err error) {
	e.end(fmt.Errorf("%w: the storage has failed: %w", eventlog.ErrUnavailable, err), true)
}

// end gives everybody who waits for an outcome an error. The first reason counts.
func (e *Engine) end(reason error, failed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reason != nil {
		return
	}
	e.reason = reason
	close(e.over)
	if failed {
		close(e.failed)
	}
}

// why returns why nothing is taken any more.
func (e *Engine) why() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reason
}

// Close implements eventlog.Engine. After a failure it closes no file: Pebble
// cannot be used any more, and the process is to end.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	again := e.closed
	e.closed = true
	e.mu.Unlock()
	if again {
		return nil
	}
	close(e.closing)
	var err error
	select {
	case <-e.failed:
	case <-wait(&e.workers): // they finish what is under way
	case <-ctx.Done():
		err = fmt.Errorf("finish appends: %w", ctx.Err())
	}
	e.end(eventlog.ErrClosed, false)
	for _, s := range e.opened() {
		s.opened().Close()
	}
	select {
	case <-e.failed:
		return e.why()
	default:
	}
	if err != nil {
		return err
	}
	for range cap(e.reads) {
		select {
		case e.reads <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("finish reads: %w", ctx.Err())
		}
	}
	select {
	case <-wait(&e.background):
	case <-ctx.Done():
		return fmt.Errorf("end background work: %w", ctx.Err())
	}
	done := make(chan error, 1) // nobody may be there any more
	go func() { done <- e.closeFiles() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("close the database: %w", ctx.Err())
	}
}

func (e *Engine) closeFiles() error {
	var errs []error
	if e.db != nil {
		errs = append(errs, e.db.Close())
	}
	if e.marks != nil {
		errs = append(errs, e.marks.Close())
	}
	return errors.Join(append(errs, e.dir.close())...)
}

// wait returns a channel that is closed when all of wg have ended.
func wait(wg *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	return done
}

// read calls fn in a goroutine of its own, and returns what that returns or,
// when ctx ends first, the error of ctx: a disk that does not answer holds up
// nobody.
func read[T any](ctx context.Context, e *Engine, fn func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	select {
	case <-e.closing:
		return none, eventlog.ErrClosed
	default:
	}
	select {
	case e.reads <- struct{}{}:
	case <-e.closing:
		return none, eventlog.ErrClosed
	case <-ctx.Done():
		return none, ctx.Err()
	}
	done := make(chan result, 1) // nobody may be there any more
	go func() {
		defer func() { <-e.reads }()
		select {
		case <-e.closing: // the database may be closed
			done <- result{err: eventlog.ErrClosed}
		default:
			v, err := fn()
			done <- result{v, err}
		}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// closedErr returns why the engine takes nothing any more; nil while it does.
func (e *Engine) closedErr() error {
	select {
	case <-e.over:
		return e.why()
	default:
		return nil
	}
}
