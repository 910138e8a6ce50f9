package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultCommitTimeout = 3 * time.Second
	defaultMaxRecord     = 1 << 20
	defaultReplicas      = 3

	// watchInterval is how often the disk and the embedded server are looked
	// at.
	watchInterval = 250 * time.Millisecond

	// markInterval is how often the high-water mark is written.
	markInterval = time.Second

	// maxRestartDelay bounds the wait between attempts to restart.
	maxRestartDelay = 2 * time.Second
)

// An Engine is the storage that logs live in: an embedded NATS server or a
// connection to a cluster. It is safe for concurrent use.
//
// When the storage fails, because a sync failed or the embedded server can no
// longer write, the engine takes nothing more, starts the storage anew, drops
// what was not durable, and goes on. Appends wait for that, as long as
// Config.CommitTimeout allows.
type Engine struct {
	cfg     Config
	logger  *slog.Logger
	metrics *metrics
	dir     *directory // nil when external
	stop    context.CancelFunc
	stopped sync.WaitGroup // supervise
	full    atomic.Bool    // the disk has less than MinFree left

	mu      sync.Mutex
	logs    map[string]*Log
	node    *node         // what runs; nil while down
	changed chan struct{} // closed, and replaced, when node or closed changes
	reason  error         // why node is nil
	closed  bool
}

// Open starts the embedded server, or connects to the external one, and
// returns once appends can be taken. Logs are opened one by one with Log.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	if cfg.CommitTimeout == 0 {
		cfg.CommitTimeout = defaultCommitTimeout
	}
	if cfg.MaxRecord == 0 {
		cfg.MaxRecord = defaultMaxRecord
	}
	if cfg.Replicas == 0 {
		cfg.Replicas = defaultReplicas
	}
	if cfg.Sync == "" {
		cfg.Sync = defaultSync
	}
	if cfg.Sync == SyncGroup && !canSyncGroup {
		return nil, errors.New("sync mode \"group\" needs syncfs, which only Linux has: use \"always\"")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg:     cfg,
		logger:  cfg.Logger,
		logs:    make(map[string]*Log),
		changed: make(chan struct{}),
	}
	if cfg.URL == "" {
		dir, err := openDirectory(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("open data directory %s: %w", cfg.Dir, err)
		}
		e.dir = dir
	}
	var err error
	if e.metrics, err = newMetrics(cfg.Registerer); err == nil {
		e.node, err = e.start()
	}
	if err != nil {
		return nil, errors.Join(err, e.dir.close())
	}
	e.checkDisk()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	e.stopped.Go(func() { e.supervise(background) })
	return e, nil
}

// Err returns nil while appends can be taken, and else why not: ErrFull,
// ErrUnavailable or ErrClosed, wrapped.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case e.node == nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, e.reason)
	case !e.node.connected():
		return fmt.Errorf("%w: not connected to %s", ErrUnavailable, "the NATS cluster")
	case e.full.Load():
		return fmt.Errorf("%w: the disk has less than %d bytes left", ErrFull, e.cfg.MinFree)
	}
	return nil
}

// Close makes what was appended durable, writes the high-water mark and stops
// the storage. Appends and reads return ErrClosed from then on; those under way
// may finish, as long as ctx lasts.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	n := e.node
	e.node = nil
	e.announce()
	e.mu.Unlock()

	e.stop()
	e.stopped.Wait()
	var err error
	if n != nil {
		if derr := n.commits.drain(ctx); derr != nil {
			err = fmt.Errorf("finish appends: %w", derr)
		}
		e.closeLogs()
		err = errors.Join(err, e.mark())
		n.shutdown(ErrClosed)
	} else {
		e.closeLogs()
	}
	return errors.Join(err, e.dir.close())
}

// closeLogs wakes the readers for the last time.
func (e *Engine) closeLogs() {
	for _, l := range e.openLogs() {
		l.close()
	}
}

func (e *Engine) openLogs() []*Log {
	e.mu.Lock()
	defer e.mu.Unlock()
	logs := make([]*Log, 0, len(e.logs))
	for _, l := range e.logs {
		logs = append(logs, l)
	}
	return logs
}

// running returns the storage, waiting for it while it is down. It returns
// ErrClosed, or ErrUnavailable when ctx ends first.
func (e *Engine) running(ctx context.Context) (*node, error) {
	for {
		e.mu.Lock()
		n, closed, changed := e.node, e.closed, e.changed
		e.mu.Unlock()
		if closed {
			return nil, ErrClosed
		}
		if n != nil {
			return n, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
}

// announce tells those who wait in running. e.mu is held.
func (e *Engine) announce() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// supervise restarts the storage when it fails, watches the disk and writes the
// high-water mark.
func (e *Engine) supervise(ctx context.Context) {
	watch := time.NewTicker(watchInterval)
	defer watch.Stop()
	mark := time.NewTicker(markInterval)
	defer mark.Stop()
	for {
		e.mu.Lock()
		n := e.node
		e.mu.Unlock()
		if n == nil { // closed
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-n.failed:
			e.restart(ctx, n)
		case <-watch.C:
			e.checkDisk()
			n.check()
		case <-mark.C:
			if err := e.mark(); err != nil {
				n.fail(fmt.Errorf("write the high-water mark: %w", err))
			}
		}
	}
}

// checkDisk looks whether the disk has MinFree left.
func (e *Engine) checkDisk() {
	if e.dir == nil {
		return
	}
	free, err := e.dir.free()
	if err != nil {
		return // the next write will say what is wrong
	}
	e.metrics.free.Set(float64(free))
	full := free < e.cfg.MinFree
	if e.full.Swap(full) != full {
		if full {
			e.logger.Error("the disk is short of space, refusing events", "free_bytes", free, "min_free_bytes", e.cfg.MinFree)
		} else {
			e.logger.Info("the disk has space again", "free_bytes", free)
		}
	}
}

// restart takes n out of service and starts the storage anew, as often as it
// takes.
func (e *Engine) restart(ctx context.Context, n *node) {
	reason := n.reason()
	e.logger.Error("the log cannot be written, restarting it", "err", reason)
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.node, e.reason = nil, reason
	e.mu.Unlock()
	n.shutdown(reason)

	for delay := 50 * time.Millisecond; ; delay = min(2*delay, maxRestartDelay) {
		fresh, err := e.recover(ctx)
		if err == nil {
			e.metrics.restarts.Inc()
			e.logger.Info("the log is writable again")
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.closed {
				fresh.shutdown(ErrClosed)
				return
			}
			e.node, e.reason = fresh, nil
			e.announce()
			return
		}
		e.logger.Warn("the log could not be restarted, trying again", "err", err)
		e.mu.Lock()
		e.reason = err
		e.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay/2 + rand.N(delay/2)): //nolint:gosec // jitter needs no secret
		}
	}
}

// recover starts the storage and brings every log back to what was durable.
// Records beyond that were answered with an error, if at all, and may or may
// not be on the disk: they are removed, and the server is started once more so
// that it forgets their IDs, too.
func (e *Engine) recover(ctx context.Context) (*node, error) {
	for {
		n, err := e.start()
		if err != nil {
			return nil, err
		}
		removed := 0
		for _, l := range e.openLogs() {
			k, err := l.rollback(ctx, n)
			if err != nil {
				n.shutdown(err)
				return nil, fmt.Errorf("log %s: %w", l.cfg.Name, err)
			}
			removed += k
		}
		if err := e.dir.sync(); err != nil {
			n.shutdown(err)
			return nil, fmt.Errorf("sync: %w", err)
		}
		if removed == 0 {
			return n, nil
		}
		n.shutdown(ErrUnavailable)
	}
}

// mark writes the high-water mark if it has moved.
func (e *Engine) mark() error {
	if e.dir == nil {
		return nil
	}
	logs := e.openLogs()
	e.dir.marking.Lock()
	defer e.dir.marking.Unlock()
	for _, l := range logs {
		if m, moved := l.mark(); moved {
			e.dir.marks[l.cfg.Name] = m
			e.dir.marksMoved = true
		}
	}
	return e.dir.writeMarks()
}
