package local

import (
	"time"

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

// syncMarks makes the marks durable. That fails once only.
func (e *Engine) syncMarks() error {
	err := e.marks.sync()
	if err != nil {
		e.fail(err)
	}
	return err
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
	short := free < e.cfg.MinFree+e.dir.owed
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
