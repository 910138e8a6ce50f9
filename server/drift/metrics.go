package drift

import (
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// metrics are what a Service counts. Findings are not labelled with their
// names: whoever posts makes names up. That something new has come is what to
// alert on; what it is stands in the report.
type metrics struct {
	findings *prometheus.GaugeVec
	events   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		findings: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_drift_findings",
			Help: "Things in the log that the schema does not know, by kind.",
		}, []string{"kind"}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_drift_events_total",
			Help: "Events since the start that held something that the schema does not know.",
		}),
	}
	for n := range sluicev1.DriftFinding_Kind_name {
		if kind := sluicev1.DriftFinding_Kind(n); kind != sluicev1.DriftFinding_KIND_UNSPECIFIED {
			m.findings.WithLabelValues(label(kind)) // there from the start
		}
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.findings), r.Register(m.events))
}

// label returns the value of the label for a kind, for example "ENUM_VALUE".
func label(kind sluicev1.DriftFinding_Kind) string {
	return strings.TrimPrefix(kind.String(), "KIND_")
}
