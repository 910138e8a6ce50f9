package ingest

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// An outcome is what became of an event: a metric label.
type outcome string

const (
	stored      outcome = "stored"
	revised     outcome = "revision"    // stored as a revision of an earlier event
	duplicate   outcome = "duplicate"   // stored before
	quarantined outcome = "quarantined" // kept, but not as an event
	failed      outcome = "failed"      // the log did not take it, or the outcome is unknown
)

// noKind is the label of a callback that is no event.
const noKind = "none"

// metrics are what the package counts. Every label is from a closed set: no
// value of a request is ever one.
type metrics struct {
	callbacks    *prometheus.CounterVec
	revisions    *prometheus.CounterVec
	duplicates   *prometheus.CounterVec
	quarantined  *prometheus.CounterVec
	rejected     *prometheus.CounterVec
	signatures   *prometheus.CounterVec
	commit       prometheus.Histogram
	lastCallback *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		callbacks: counter("sluice_ingest_callbacks_total",
			"Events in accepted callbacks, by source, kind of event and outcome.", "source", "kind", "outcome"),
		revisions: counter("sluice_ingest_revisions_total",
			"Events stored as revisions of an earlier one, by source.", "source"),
		duplicates: counter("sluice_ingest_duplicates_total",
			"Events that were stored already, by source.", "source"),
		quarantined: counter("sluice_ingest_quarantined_total",
			"Accepted callbacks stored in quarantine, by source and reason.", "source", "reason"),
		rejected: counter("sluice_ingest_rejected_total",
			"Requests turned away, by reason.", "reason"),
		signatures: counter("sluice_ingest_signatures_total",
			"Signatures, by which reading of the vendor's page they follow; those out_of_date or of none prove nothing.", "reading"),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_ingest_commit_duration_seconds",
			Help:    "Time from an accepted callback to its being on stable storage.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 15), // 0.25 ms to 4.1 s
		}),
		lastCallback: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_ingest_last_callback_timestamp_seconds",
			Help: "When the last accepted callback came, by source. Silence may mean that the vendor has switched the URL off.",
		}, []string{"source"}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.callbacks, m.revisions, m.duplicates, m.quarantined, m.rejected, m.signatures, m.commit, m.lastCallback,
	} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// count counts an event.
func (m *metrics) count(source, kind string, o outcome) {
	m.callbacks.WithLabelValues(source, kind, string(o)).Inc()
	if o == revised {
		m.revisions.WithLabelValues(source).Inc()
	}
	if o == duplicate {
		m.duplicates.WithLabelValues(source).Inc()
	}
}
