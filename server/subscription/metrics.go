package subscription

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a Service counts.
type metrics struct {
	streams      prometheus.Gauge
	events       prometheus.Counter
	filterErrors prometheus.Counter
	ended        *prometheus.CounterVec
}

// Why a stream ended: the values of a label.
const (
	endedClient    = "client"    // it went away
	endedStop      = "stop"      // the stream reached the stop it was given
	endedDraining  = "draining"  // the server stops
	endedTruncated = "truncated" // retention passed the reader
	endedDamaged   = "damaged"   // stored events cannot be read
	endedError     = "error"     // anything else
)

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_subscription_streams",
			Help: "Streams that are open.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_subscription_events_total",
			Help: "Events sent on streams.",
		}),
		filterErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_subscription_filter_errors_total",
			Help: "Events for which a filter's expression failed or cost too much; they did not match.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_subscription_ended_total",
			Help: "Streams that ended, by reason: client, stop, draining, truncated, damaged or error.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{endedClient, endedStop, endedDraining, endedTruncated, endedDamaged, endedError} {
		m.ended.WithLabelValues(reason)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.streams, m.events, m.filterErrors, m.ended} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
