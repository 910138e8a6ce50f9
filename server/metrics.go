package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/sluicegate/sluice/server/eventlog"
)

// registerMetrics registers what the server itself measures.
func (s *Server) registerMetrics(r prometheus.Registerer, logs map[string]*eventlog.Log) error {
	return eventlog.Register(r,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
		logCollector{logs},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_server_ready",
			Help: "1 while callbacks can be taken, else 0.",
		}, func() float64 {
			if s.ready() != nil {
				return 0
			}
			return 1
		}),
	)
}

// logCollector reads the extent of the logs on each scrape.
type logCollector struct {
	logs map[string]*eventlog.Log // by the value of the label
}

var (
	logLabel     = []string{"log"}
	logFirstDesc = prometheus.NewDesc("sluice_server_log_first_sequence",
		"Oldest sequence that the log holds; the last sequence plus 1 when it holds none.", logLabel, nil)
	logLastDesc = prometheus.NewDesc("sluice_server_log_last_sequence",
		"Newest sequence that is on stable storage.", logLabel, nil)
	logRecordsDesc = prometheus.NewDesc("sluice_server_log_records",
		"Records that the log holds.", logLabel, nil)
	logBytesDesc = prometheus.NewDesc("sluice_server_log_bytes",
		"Bytes that the log holds.", logLabel, nil)
	logAgeDesc = prometheus.NewDesc("sluice_server_log_age_seconds",
		"Age of the oldest record that the log holds; 0 when it holds none.", logLabel, nil)
)

// Describe implements prometheus.Collector.
func (c logCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{logFirstDesc, logLastDesc, logRecordsDesc, logBytesDesc, logAgeDesc} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c logCollector) Collect(to chan<- prometheus.Metric) {
	for name, l := range c.logs {
		state := l.State()
		age := 0.0
		if !state.Since.IsZero() {
			age = max(0, time.Since(state.Since).Seconds())
		}
		for desc, value := range map[*prometheus.Desc]float64{
			logFirstDesc:   float64(state.First),
			logLastDesc:    float64(state.Last),
			logRecordsDesc: float64(state.Count),
			logBytesDesc:   float64(state.Bytes),
			logAgeDesc:     age,
		} {
			to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, name)
		}
	}
}
