package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/failpoint"
	"github.com/sluicegate/sluice/server/ingest"
)

// reloadInterval is how often the configuration is looked at for changes.
const reloadInterval = 2 * time.Second

// A reloader keeps the sources as the configuration says, while the server
// runs. It does not watch files: it reads the configuration again, secrets and
// all, and compares what that means, so that every file counts that is in use.
type reloader struct {
	inputs  *Inputs // nil when there is nothing to read
	running Config  // what cannot change without a restart
	apply   func([]ingest.Source) error
	logger  *slog.Logger
	total   *prometheus.CounterVec
	last    prometheus.Gauge

	mu      sync.Mutex // one at a time
	decided reading    // the latest that was applied, or refused
	seen    reading    // the latest look
}

// A reading is what the configuration said at some time.
type reading struct {
	config  Config
	sources []ingest.Source
	problem string // "" when it could be applied
}

func (r reading) same(as reading) bool { return reflect.DeepEqual(r, as) }

// newReloader returns the reloader of a server that runs with cfg, from which
// it has made sources.
func newReloader(
	cfg Config, sources []ingest.Source, apply func([]ingest.Source) error, logger *slog.Logger,
) (*reloader, error) {
	r := &reloader{
		inputs:  cfg.inputs,
		running: cfg,
		apply:   apply,
		logger:  logger,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_server_config_reloads_total",
			Help: "Reloads of the configuration, by outcome: success, or failure, after which the sources are what they were.",
		}, []string{"outcome"}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_server_config_last_reload_successful",
			Help: "1 when the sources are what the configuration says, 0 when its last reload failed.",
		}),
		decided: reading{config: cfg.asLoaded(), sources: sources},
	}
	r.seen = r.decided
	for _, outcome := range []string{"success", "failure"} {
		r.total.WithLabelValues(outcome) // there from the start
	}
	r.last.Set(1)
	return r, eventlog.Register(cfg.Registry, r.total, r.last)
}

// asLoaded returns c as LoadConfig returned it.
func (c Config) asLoaded() Config {
	c.Hangup, c.Registry, c.limits = nil, nil, limits{}
	return c
}

// watch reloads on each hangup, and after changes, until ctx ends.
func (r *reloader) watch(ctx context.Context, hangup <-chan os.Signal) {
	if r.inputs == nil {
		return
	}
	tick := time.NewTicker(reloadInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			r.reload()
		case <-tick.C:
			r.look()
		}
	}
}

// look reloads when the configuration has changed. It waits until two looks in
// a row have seen the same, so that a file is not taken while it is written: a
// half of it may be in order, and mean something else.
func (r *reloader) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.read()
	settled := now.same(r.seen)
	r.seen = now
	if settled && !now.same(r.decided) {
		r.decide(now)
	}
}

// reload reloads at once.
func (r *reloader) reload() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = r.read()
	r.decide(r.seen)
}

// read reads the configuration, and checks its sources against the listeners
// that there are, not those that a restart would open.
func (r *reloader) read() reading {
	cfg, _, err := LoadConfig(*r.inputs)
	now := reading{config: cfg}
	if err == nil {
		effective := r.running
		effective.Sources = cfg.Sources
		err = effective.Validate()
		if err == nil {
			var errs []error
			now.sources, errs = effective.ingestSources()
			err = errors.Join(errs...)
		}
	}
	if err != nil {
		now.problem = err.Error()
	}
	return now
}

// decide applies now, or says why not.
func (r *reloader) decide(now reading) {
	r.decided = now
	_ = failpoint.Hit("during-reload")
	if now.problem == "" {
		if err := r.apply(now.sources); err != nil {
			now.problem = fmt.Sprintf("sources: %v", err)
		}
	}
	if now.problem != "" {
		r.total.WithLabelValues("failure").Inc()
		r.last.Set(0)
		r.logger.Error("configuration not reloaded, the sources stay as they are", "err", now.problem)
		return
	}
	r.total.WithLabelValues("success").Inc()
	r.last.Set(1)
	names := make([]string, 0, len(now.sources))
	for _, source := range now.sources {
		names = append(names, source.Name)
	}
	r.logger.Info("configuration reloaded", "sources", names)
	if waiting := changed(r.running, now.config); len(waiting) > 0 {
		r.logger.Warn("settings have changed that need a restart", "settings", waiting)
	}
}

// changed returns the keys of the settings but the sources in which two
// configurations differ.
func changed(a, b Config) []string {
	var keys []string
	for _, s := range settings {
		if _, isSources := s.field(&a).(*[]Source); !isSources && !reflect.DeepEqual(s.field(&a), s.field(&b)) {
			keys = append(keys, s.Key)
		}
	}
	return keys
}
