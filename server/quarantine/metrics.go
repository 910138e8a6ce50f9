package quarantine

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice/server/eventlog"
)

// metrics are what the package counts.
type metrics struct {
	reparsed  *prometheus.CounterVec
	discarded prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, log *eventlog.Log) (*metrics, error) {
	m := &metrics{
		reparsed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_quarantine_reparsed_total",
			Help: "Entries read again, by what became of them: moved to the log of events, or kept.",
		}, []string{"outcome"}),
		discarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_quarantine_discarded_total",
			Help: "Entries that were discarded.",
		}),
	}
	for _, outcome := range []string{"moved", "kept"} {
		m.reparsed.WithLabelValues(outcome) // there from the start
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.reparsed), reg.Register(m.discarded), reg.Register(extent{log}))
}

// extent reads on each scrape how much is in quarantine.
type extent struct{ log *eventlog.Log }

var (
	entriesDesc = prometheus.NewDesc("sluice_quarantine_entries", "Entries in quarantine.", nil, nil)
	bytesDesc   = prometheus.NewDesc("sluice_quarantine_bytes", "Bytes that they take.", nil, nil)
)

// Describe implements prometheus.Collector.
func (extent) Describe(to chan<- *prometheus.Desc) {
	to <- entriesDesc
	to <- bytesDesc
}

// Collect implements prometheus.Collector.
func (x extent) Collect(to chan<- prometheus.Metric) {
	state := x.log.State()
	to <- prometheus.MustNewConstMetric(entriesDesc, prometheus.GaugeValue, float64(state.Count))
	to <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(state.Bytes))
}
