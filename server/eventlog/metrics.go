package eventlog

import "github.com/prometheus/client_golang/prometheus"

// metrics are what an engine counts. The extent of a log is not among them:
// State has it.
type metrics struct {
	appends  *prometheus.CounterVec
	sync     prometheus.Histogram
	group    prometheus.Histogram
	restarts prometheus.Counter
	free     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		appends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_eventlog_appends_total",
			Help: "Appends by outcome: stored, duplicate, full, conflict (another gateway was faster), or unknown (the record may or may not be stored).",
		}, []string{"outcome"}),
		sync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_eventlog_sync_duration_seconds",
			Help:    "Time that one sync of the data directory took.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_eventlog_group_records",
			Help:    "Records that one sync made durable.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_eventlog_restarts_total",
			Help: "Times that the storage failed and was started anew.",
		}),
		free: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_eventlog_disk_free_bytes",
			Help: "Space left on the disk of the data directory.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.appends, m.sync, m.group, m.restarts, m.free} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
