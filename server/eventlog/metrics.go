package eventlog

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what an engine and its logs count. The extent of a log is not
// among them: State has it.
type Metrics struct {
	stored, duplicate, full, conflict, unknown prometheus.Counter

	readErrors prometheus.Counter
	damaged    prometheus.Counter
	sync       prometheus.Histogram
	group      prometheus.Histogram
}

// NewMetrics registers the metrics with r, which may be nil.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	appends := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_eventlog_appends_total",
		Help: "Appends by outcome: stored, duplicate, full, conflict (another gateway was faster), or unknown (the record may or may not be stored).",
	}, []string{"outcome"})
	m := &Metrics{
		stored:    appends.WithLabelValues("stored"),
		duplicate: appends.WithLabelValues("duplicate"),
		full:      appends.WithLabelValues("full"),
		conflict:  appends.WithLabelValues("conflict"),
		unknown:   appends.WithLabelValues("unknown"),
		readErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_eventlog_read_errors_total",
			Help: "Reads of a log that failed, and may succeed when they are tried again.",
		}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_eventlog_damaged_records_total",
			Help: "Stored records that a read found damaged or missing. Reads by several readers count once each.",
		}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_eventlog_sync_duration_seconds",
			Help:    "Time that making one group of records durable took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_eventlog_group_records",
			Help:    "Records that became durable together.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		}),
	}
	return m, Register(r, appends, m.readErrors, m.damaged, m.sync, m.group)
}

// Register registers collectors with r, which may be nil.
func Register(r prometheus.Registerer, collectors ...prometheus.Collector) error {
	if r == nil {
		return nil
	}
	var errs []error
	for _, c := range collectors {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}

// Committed counts a group of records that became durable together.
func (m *Metrics) Committed(records int, took time.Duration) {
	m.sync.Observe(took.Seconds())
	m.group.Observe(float64(records))
}
