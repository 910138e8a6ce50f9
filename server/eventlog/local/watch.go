package local

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice/server/eventlog"
)

// metrics are what only this engine counts.
type metrics struct {
	free       prometheus.Gauge
	background prometheus.Counter
	corrupted  prometheus.Counter
	identities prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		free: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_eventlog_disk_free_bytes",
			Help: "Space left on the disk of the data directory.",
		}),
		background: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_eventlog_background_errors_total",
			Help: "Flushes and compactions of the database that failed. They are tried again.",
		}),
		corrupted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_eventlog_corruptions_total",
			Help: "Times that the database met a file whose checksum is wrong.",
		}),
		identities: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_eventlog_damaged_identities_total",
			Help: "Look-ups of an identity that met damage: the record was stored, perhaps for a second time.",
		}),
	}
	return m, eventlog.Register(r, m.free, m.background, m.corrupted, m.identities)
}

// every calls fn each interval until the engine closes or fails. Each fn that
// does I/O has a goroutine of its own, so that one that hangs holds up no other.
func (e *Engine) every(interval time.Duration, fn func()) {
	e.background.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-e.over:
				return
			case <-tick.C:
				fn()
			}
		}
	})
}

// syncMarks makes the marks durable.
func (e *Engine) syncMarks() {
	if err := e.marks.sync(); err != nil {
		e.fail(err)
	}
}

// watch looks at the disk and the directory.
func (e *Engine) watch() {
	if err := e.dir.replaced(e.marks); err != nil {
		e.fail(err)
		return
	}
	free, err := freeSpace(e.dir.root)
	if err != nil {
		return // the next write will say what is wrong
	}
	e.metrics.free.Set(float64(free))
	short := free < e.cfg.MinFree
	switch {
	case e.short.Swap(short) == short:
	case short:
		e.logger.Error("the disk is short of space, refusing events", "free_bytes", free, "min_free_bytes", e.cfg.MinFree)
	default:
		e.logger.Info("the disk has space again", "free_bytes", free)
	}
	if !short {
		if err := e.dir.fillBallast(e.cfg.MinFree); err != nil {
			e.logger.Debug("the ballast file could not be made", "err", err)
		}
	}
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
	l.engine.fail(fmt.Errorf(format, args...))
	select {}
}
