package group

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a Service counts. Each has the label group, of which there
// are as many values as there are groups.
type metrics struct {
	ended    *prometheus.CounterVec
	attempts *prometheus.HistogramVec
	sizes    *prometheus.HistogramVec
	removed  *prometheus.CounterVec
	damaged  *prometheus.CounterVec

	forwarded    prometheus.Counter // of no group
	filterErrors prometheus.Counter // of no group
}

// How a delivery ended: the values of a label.
const (
	endedAck     = "ack"
	endedNack    = "nack"
	endedRelease = "release"
	endedPark    = "park"
	endedLost    = "lost" // the lease ran out or was taken back
)

func newMetrics(r prometheus.Registerer, s *Service) (*metrics, error) {
	m := &metrics{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_group_deliveries_total",
			Help: "Deliveries that ended, by group and outcome: ack, nack, release, park or lost.",
		}, []string{"group", "outcome"}),
		attempts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sluice_group_delivery_attempts",
			Help:    "The attempts of the deliveries that were handed out.",
			Buckets: []float64{1, 2, 3, 5, 10, 100},
		}, []string{"group"}),
		sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sluice_group_delivery_events",
			Help:    "How many events the deliveries held that were handed out: the size of a turn.",
			Buckets: []float64{1, 2, 3, 5, 10, 100, 1000},
		}, []string{"group"}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_group_removed_events_total",
			Help: "Events that retention removed before a group had settled them.",
		}, []string{"group"}),
		damaged: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_group_damaged_events_total",
			Help: "Events that a group could not read, and that became its dead letters.",
		}, []string{"group"}),
		filterErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_group_filter_errors_total",
			Help: "Events for which the expression of a group's filter failed or cost too much; they did not match.",
		}),
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_group_forwarded_calls_total",
			Help: "Calls and streams that went on to another gateway, which leads their group.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.ended, m.attempts, m.sizes, m.removed, m.damaged, m.forwarded, m.filterErrors, standings{s}} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// forget removes what was counted of a group.
func (m *metrics) forget(group string) {
	labels := prometheus.Labels{"group": group}
	for _, v := range []interface {
		DeletePartialMatch(labels prometheus.Labels) int
	}{m.ended, m.attempts, m.sizes, m.removed, m.damaged} {
		v.DeletePartialMatch(labels)
	}
}

// counts are the metrics of one group.
type counts struct {
	ended           map[string]prometheus.Counter // by how
	attempts, sizes prometheus.Observer
}

// of returns the metrics of a group.
func (m *metrics) of(group string) *counts {
	c := &counts{
		ended:    make(map[string]prometheus.Counter),
		attempts: m.attempts.WithLabelValues(group),
		sizes:    m.sizes.WithLabelValues(group),
	}
	for _, how := range []string{endedAck, endedNack, endedRelease, endedPark, endedLost} {
		c.ended[how] = m.ended.WithLabelValues(group, how)
	}
	return c
}

// standings is how the groups stand at the time of a scrape.
type standings struct{ service *Service }

// collectTimeout bounds how long a scrape waits for a group.
const collectTimeout = time.Second

var (
	leading      = standingDesc("leading", "1 where this gateway leads the group, else 0; the rest is known only there.")
	lagEvents    = standingDesc("lag_events", "Events that the group has not settled, those that it has not read included.")
	lagAge       = standingDesc("lag_age_seconds", "How long ago the oldest event that the group has not settled was received.")
	blockedChats = standingDesc("blocked_chats", "Chats that wait for a retry or are stopped.")
	deadLetters  = standingDesc("dead_letters", "Events that the group has given up for the time being.")
	tooExpensive = standingDesc("expression_too_expensive", "1 while the server has paused the group because its filter's expression is too expensive, else 0.")
	journalBad   = standingDesc("journal_damaged", "1 while the group stands still because its journal is damaged, else 0.")
)

func standingDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_group_"+name, help, []string{"group"}, nil)
}

// Describe implements prometheus.Collector.
func (standings) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{leading, lagEvents, lagAge, blockedChats, deadLetters, tooExpensive, journalBad} {
		out <- d
	}
}

// Collect implements prometheus.Collector. A group that does not answer is left
// out.
func (c standings) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(c.service.ctx, collectTimeout)
	defer cancel()
	for _, r := range c.service.all() {
		leads := 0.0
		if r.leads() {
			leads = 1
		}
		out <- prometheus.MustNewConstMetric(leading, prometheus.GaugeValue, leads, r.name)
		if leads == 0 {
			continue
		}
		expensive := 0.0
		if held(r.configuration()) {
			expensive = 1
		}
		out <- prometheus.MustNewConstMetric(tooExpensive, prometheus.GaugeValue, expensive, r.name)
		bad := 0.0
		if r.broken.Load() {
			bad = 1
		}
		out <- prometheus.MustNewConstMetric(journalBad, prometheus.GaugeValue, bad, r.name)
		st, err := r.standing(ctx, false)
		if err != nil {
			continue
		}
		for d, v := range map[*prometheus.Desc]float64{
			lagEvents: float64(st.lag()), lagAge: st.age().Seconds(),
			blockedChats: float64(st.Troubled), deadLetters: float64(st.DeadLetters),
		} {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, r.name)
		}
	}
}
