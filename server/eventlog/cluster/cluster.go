// Package cluster keeps logs in NATS JetStream: each is a stream with several
// replicas, which any number of gateways may share. It knows nothing of what is
// in a record, and does not link the NATS server.
//
// An acknowledgement means that a majority of a stream's replicas has the record
// on its disks, provided that each node runs with "sync_interval: always".
//
// Any replica may answer a read. What it sends is right; that it does not send
// something says nothing, and is held against what the stream's leader says.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	defaultCommitTimeout = 3 * time.Second
	defaultMaxRecord     = 1 << 20
	defaultReplicas      = 3

	// refreshInterval is how often the leaders are asked for the extent of the
	// logs, refreshTimeout how long they may take.
	refreshInterval = time.Second
	refreshTimeout  = 3 * time.Second

	// maxRefreshes bounds the requests for that at one time.
	maxRefreshes = 16

	// openTimeout bounds the opening or removing of a log.
	openTimeout = 10 * time.Second
)

// Config says how to open an Engine.
type Config struct {
	// URL names the servers ("nats://…", several separated by commas).
	URL string

	// Credentials is the path of a NATS credentials file. "" means none.
	Credentials string

	// Replicas is the number of copies of each stream. 0 means 3.
	Replicas int

	// CommitTimeout bounds an Append. 0 means 3 s.
	CommitTimeout time.Duration

	// MaxRecord is the largest Record.Data, in bytes. 0 means 1 MiB at most. The
	// servers may take less: see Engine.MaxRecord.
	MaxRecord int

	// AcceptUnsynced opens a cluster in which a node is seen not to sync each
	// record before it acknowledges it.
	AcceptUnsynced bool

	// Logger takes what is noteworthy. nil means no logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer
}

// An Engine is a connection to a cluster. It implements eventlog.Engine.
type Engine struct {
	cfg     Config
	logger  *slog.Logger
	metrics *eventlog.Metrics
	misses  prometheus.Counter
	write   *link
	read    *link // its own, since a server serves a connection's reads and writes in turn
	js      jetstream.JetStream
	commits *committer
	failed  chan struct{} // never closed: a connection heals by itself
	stop    context.CancelFunc
	runs    sync.WaitGroup
	closed  atomic.Bool

	open atomic.Pointer[[]*store] // those in stores

	mu      sync.Mutex
	stores  map[string]*store
	appends sync.WaitGroup // Add with mu held, while not closed
}

// Open connects to the cluster that cfg names, and checks what can be checked of
// it.
func Open(ctx context.Context, cfg Config) (_ *Engine, err error) {
	cfg.CommitTimeout = cmp.Or(cfg.CommitTimeout, defaultCommitTimeout)
	cfg.Replicas = cmp.Or(cfg.Replicas, defaultReplicas)
	e := &Engine{
		cfg: cfg, logger: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		failed: make(chan struct{}), stores: make(map[string]*store),
		misses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_eventlog_replica_misses_total",
			Help: "Records that were read from a stream's leader because a replica lacked them: its store is damaged.",
		}),
	}
	e.list()
	if e.metrics, err = eventlog.NewMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	if err := eventlog.Register(cfg.Registerer, e.misses); err != nil {
		return nil, err
	}
	if e.write, err = dial(ctx, cfg, e.logger); err != nil {
		return nil, err
	}
	if e.read, err = dial(ctx, cfg, e.logger); err != nil {
		e.write.close()
		return nil, err
	}
	if e.js, err = jetstream.New(e.read.nc); err == nil {
		err = e.check(ctx)
	}
	if err != nil {
		e.read.close()
		e.write.close()
		return nil, err
	}
	e.commits = newCommitter(e.write, e.metrics)
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	e.runs.Go(func() { e.watch(background) })
	return e, nil
}

// MaxRecord returns the largest Record.Data, in bytes: that of the Config, or
// what the servers take.
func (e *Engine) MaxRecord() int { return e.cfg.MaxRecord }

// Failed implements eventlog.Engine. Nothing is final here.
func (e *Engine) Failed() <-chan struct{} { return e.failed }

// Err implements eventlog.Engine.
func (e *Engine) Err() error {
	switch {
	case e.closed.Load():
		return eventlog.ErrClosed
	case !e.write.up.Load() || !e.read.up.Load():
		return fmt.Errorf("%w: not connected to the NATS cluster", eventlog.ErrUnavailable)
	}
	for _, s := range *e.open.Load() {
		// One that only one gateway uses may have been removed by another.
		if silence := s.health.silence(); silence > e.cfg.CommitTimeout && !s.cfg.Exclusive {
			return fmt.Errorf("%w: the NATS cluster has acknowledged nothing of log %s for %v",
				eventlog.ErrUnavailable, s.cfg.Name, silence.Round(time.Second))
		}
	}
	return nil
}

// usable returns ErrClosed after Close.
func (e *Engine) usable() error {
	if e.closed.Load() {
		return eventlog.ErrClosed
	}
	return nil
}

// cause returns why something failed with err: ErrClosed, when that is why.
func (e *Engine) cause(err error) error {
	if err != nil && e.closed.Load() {
		return eventlog.ErrClosed
	}
	return err
}

// enter lets an append in, for which Close waits until appends.Done.
func (e *Engine) enter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed.Load() {
		return eventlog.ErrClosed
	}
	e.appends.Add(1)
	return nil
}

// Close implements eventlog.Engine.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	if e.closed.Load() {
		e.mu.Unlock()
		return nil
	}
	e.closed.Store(true)
	e.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		e.appends.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = fmt.Errorf("finish appends: %w", ctx.Err())
	}
	e.stop()
	e.commits.close()
	for _, s := range *e.open.Load() {
		s.close()
	}
	e.read.close()
	e.write.close()
	e.runs.Wait()
	return err
}

// list renews what open holds. e.mu is held.
func (e *Engine) list() {
	stores := slices.Collect(maps.Values(e.stores))
	e.open.Store(&stores)
}

// watch keeps the extents of the logs up to date, and finds what other gateways
// appended where what tells of it got lost, until ctx ends.
func (e *Engine) watch(ctx context.Context) {
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		bounded, cancel := context.WithTimeout(ctx, refreshTimeout)
		var asking errgroup.Group
		asking.SetLimit(maxRefreshes)
		for _, s := range *e.open.Load() {
			asking.Go(func() error {
				if !s.stale() {
					return nil
				}
				if _, err := s.refresh(bounded); err == nil {
					s.health.idle()
				} else {
					s.health.fail()
				}
				return nil
			})
		}
		_ = asking.Wait() // the next time may do better
		cancel()
	}
}

// Logs implements eventlog.Engine. Streams that are not logs are left out.
func (e *Engine) Logs(ctx context.Context) ([]string, error) {
	if err := e.usable(); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var names []string
	streams := e.js.ListStreams(bounded)
	for info := range streams.Info() {
		if info.Config.Metadata[epochKey] != "" {
			names = append(names, info.Config.Name)
		}
	}
	if err := streams.Err(); err != nil {
		return nil, e.cause(fmt.Errorf("%w: list the logs: %w", eventlog.ErrUnavailable, err))
	}
	slices.Sort(names)
	return names, nil
}

// Remove implements eventlog.Engine.
func (e *Engine) Remove(ctx context.Context, name string) error {
	if err := e.usable(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	e.mu.Lock()
	s := e.stores[name]
	delete(e.stores, name)
	e.list()
	e.mu.Unlock()
	if s != nil {
		s.close()
	}
	err := e.js.DeleteStream(bounded, name)
	switch {
	case err == nil, errors.Is(err, jetstream.ErrStreamNotFound):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return e.cause(fmt.Errorf("%w: delete log %s: %w", eventlog.ErrUnavailable, name, err))
}
