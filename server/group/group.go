// Package group is the door of consumer groups: it serves ConsumerService and
// ConsumerGroupService. It owns the logs in which groups live, and for each
// group the goroutine that drives its schedule.Scheduler: it feeds it events,
// members and time, writes its journal, and lets out what follows.
//
// The rules of who works on what are in package schedule. What is here is when:
// nothing that a scheduler decided is let out before it is on stable storage.
package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
	"github.com/sluicegate/sluice/server/subscription"
)

// Config says what a Service works on.
type Config struct {
	// Engine is where the groups' own logs live. Required.
	Engine eventlog.Engine

	// Leases say which gateway of a cluster leads each group; the others forward
	// to where its value says that it reaches the holder's gRPC API. Close closes
	// them. nil is that there are no others: this one leads all.
	Leases *cluster.Leases

	// Events is the log of events, to which nothing was appended since the engine
	// was opened. Required.
	Events *eventlog.Log

	// Positions resolves positions in Events. Required.
	Positions *subscription.Service

	// Draining is closed when the server begins to stop: streams then end with
	// a going_away frame. nil means never.
	Draining <-chan struct{}

	// Logger is for what an operator should know. nil means no logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer
}

// maxGroups is how many groups a server takes.
const maxGroups = 1000

// A Service implements ConsumerService and ConsumerGroupService. It is safe for
// concurrent use.
type Service struct {
	sluicev1.UnimplementedConsumerServiceServer
	sluicev1.UnimplementedConsumerGroupServiceServer

	engine    eventlog.Engine
	leases    *cluster.Leases // who leads which group; nil: this gateway does
	peers     peers
	events    *eventlog.Log
	opened    uint64 // where events ended when it was opened
	positions *subscription.Service
	draining  <-chan struct{}
	logger    *slog.Logger
	metrics   *metrics
	shelf     *shelf
	maxExcess time.Duration // maxExcess, but in tests

	changes sync.Mutex // held while the catalog changes, before mu
	catalog *catalog
	running sync.WaitGroup // the runners, and what follows the catalog

	mu      sync.Mutex
	started bool
	ctx     context.Context //nolint:containedctx // of the runners; ends with Close
	cancel  context.CancelFunc
	groups  map[string]*runner // by name
}

// New returns the Service that cfg describes, with the groups that there are.
// They stand still until Start.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Engine == nil || cfg.Events == nil || cfg.Positions == nil {
		return nil, errors.New("group: Config.Engine, Config.Events and Config.Positions must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		engine: cfg.Engine, leases: cfg.Leases, events: cfg.Events, opened: cfg.Events.Durable(), positions: cfg.Positions,
		draining: cfg.Draining, logger: cfg.Logger, groups: map[string]*runner{},
		shelf: newShelf(cfg.Events), maxExcess: maxExcess,
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer, s); err != nil {
		return nil, err
	}
	if s.catalog, err = openCatalog(ctx, s.engine); err != nil {
		return nil, fmt.Errorf("open the catalog of consumer groups: %w", err)
	}
	s.apply(ctx)
	return s, nil
}

// Start starts the groups.
func (s *Service) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = true
	for _, r := range s.groups {
		s.running.Go(func() { r.run() })
	}
	s.running.Go(s.follow)
}

// Close stops the groups and waits for them. It comes after the last call has
// ended, and before the engine is closed.
func (s *Service) Close() {
	s.mu.Lock()
	s.started = false
	s.cancel()
	s.mu.Unlock()
	s.running.Wait()
	if s.leases != nil {
		s.leases.Close()
	}
	s.peers.close()
}

// add makes a group known and starts it, unless it is known.
func (s *Service) add(e entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups[e.group.GetName()] != nil {
		return
	}
	r := newRunner(s, e)
	s.groups[e.group.GetName()] = r
	if s.started {
		s.running.Go(func() { r.run() })
	}
}

// remove makes a group unknown, and waits until it has stopped.
func (s *Service) remove(name string) {
	s.mu.Lock()
	r := s.groups[name]
	delete(s.groups, name)
	started := s.started
	s.mu.Unlock()
	r.cancel()
	if started {
		<-r.stopped
	}
	s.metrics.forget(name)
}

// group returns the group of that name.
func (s *Service) group(ctx context.Context, name string) (*runner, error) {
	if r := s.known(name); r != nil {
		return r, nil
	}
	if validName(name) {
		if err := s.refresh(ctx); err != nil {
			return nil, err
		}
		if r := s.known(name); r != nil {
			return r, nil
		}
	}
	return nil, notFound(name)
}

func (s *Service) known(name string) *runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups[name]
}

// all returns the groups, in no order.
func (s *Service) all() []*runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*runner, 0, len(s.groups))
	for _, r := range s.groups {
		all = append(all, r)
	}
	return all
}

// isDraining says whether the server stops.
func (s *Service) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// notFound reports that there is no group of that name.
func notFound(name string) error {
	e := &apierror.Error{
		Code:    codes.NotFound,
		Reason:  sluicev1.ErrorReason_ERROR_REASON_GROUP_NOT_FOUND,
		Message: "there is no such consumer group",
	}
	if validName(name) {
		e.Metadata = map[string]string{"group": name}
	}
	return e
}
