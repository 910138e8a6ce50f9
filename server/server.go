// Package server puts the gateway together: configuration, the log, the
// services around it, three listeners, and the order in which all of it starts
// and stops. It holds order, not work.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sluicegate/sluice/server/drift"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
	"github.com/sluicegate/sluice/server/group"
	"github.com/sluicegate/sluice/server/ingest"
	"github.com/sluicegate/sluice/server/quarantine"
	"github.com/sluicegate/sluice/server/retype"
	"github.com/sluicegate/sluice/server/subscription"
	"github.com/sluicegate/sluice/server/verify"
)

// A Server is the gateway. New makes it and Run serves; every other method is
// safe at any time.
type Server struct {
	cfg      Config
	logger   *slog.Logger
	engine   eventlog.Engine
	cluster  *cluster.Engine // engine, where it is that; else nil
	leases   *cluster.Leases // of groups; nil on one machine
	reloader *reloader
	health   *health.Server
	drift    *drift.Service
	groups   *group.Service
	draining chan struct{} // closed when the drain begins

	maxRecord int // largest record that engine takes, in bytes

	callbackListener, grpcListener, httpListener net.Listener

	callbackHTTP *http.Server
	apiHTTP      *http.Server
	publicGRPC   *grpc.Server

	// The HTTP API calls through gateway, which leads to memoryGRPC.
	gateway        *grpc.ClientConn
	memoryGRPC     *grpc.Server
	memoryListener *bufconn.Listener
}

// The two logs of the engine.
const (
	eventsLog     = verify.Events
	quarantineLog = verify.Quarantine
)

// New opens the log, binds the three listeners and returns a Server that is
// ready to Run; until then clients wait. When it fails, everything that it
// opened is closed again.
//
// A Server that New returned must be Run, if only with a context that has
// ended: that is what closes it.
func New(ctx context.Context, cfg Config, logger *slog.Logger) (_ *Server, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	if cfg.limits == (limits{}) {
		cfg.limits = defaultLimits()
	}
	s := &Server{cfg: cfg, logger: logger, health: health.NewServer(), draining: make(chan struct{})}
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, closeIt := range slices.Backward(undo) {
			err = errors.Join(err, closeIt())
		}
	}()

	if err := s.openEngine(ctx); err != nil {
		return nil, err
	}
	undo = append(undo, func() error { return s.closeLog(context.WithoutCancel(ctx)) })

	for _, l := range []struct {
		key, addr string
		to        *net.Listener
	}{
		{"callback_addr", cfg.CallbackAddr, &s.callbackListener},
		{"grpc_addr", cfg.GRPCAddr, &s.grpcListener},
		{"http_addr", cfg.HTTPAddr, &s.httpListener},
	} {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", l.addr)
		if err != nil {
			return nil, fmt.Errorf("--%s %s: %w", lookup(l.key).Flag(), l.addr, err)
		}
		*l.to = listener
		undo = append(undo, listener.Close)
	}

	undo = append(undo, func() error {
		if s.leases != nil {
			s.leases.Close()
		}
		return nil
	})
	if err := s.build(ctx); err != nil {
		return nil, err
	}
	s.logStart()
	return s, nil
}

// build makes the services and what serves them. It opens nothing that has to
// be closed if it fails.
func (s *Server) build(ctx context.Context) error {
	events, inQuarantine, err := s.openLogs(ctx)
	if err != nil {
		return err
	}
	callbacks, err := s.newIngest(events, inQuarantine)
	if err != nil {
		return err
	}
	all, err := s.newServices(ctx, callbacks, events, inQuarantine)
	if err != nil {
		return err
	}
	if err := s.registerMetrics(s.cfg.Registry, map[string]*eventlog.Log{"events": events, "quarantine": inQuarantine}); err != nil {
		return err
	}
	return s.newServers(ctx, callbacks, all)
}

// newIngest returns the service that takes callbacks, and has its sources
// follow the configuration.
func (s *Server) newIngest(events, inQuarantine *eventlog.Log) (*ingest.Service, error) {
	sources, errs := s.cfg.ingestSources()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("sources: %w", err)
	}
	maxBody, err := s.checkMaxBody()
	if err != nil {
		return nil, err
	}
	callbacks, err := ingest.New(ingest.Config{
		Sources:       sources,
		MaxBody:       int(maxBody),
		MaxRecord:     s.maxRecord,
		CommitTimeout: s.cfg.CommitTimeout,
		Logger:        s.logger,
		Registerer:    s.cfg.Registry,
	}, events, inQuarantine)
	if err != nil {
		return nil, err
	}
	s.reloader, err = newReloader(s.cfg, sources, callbacks.SetSources, s.logger)
	return callbacks, err
}

// newServices returns what both gRPC servers serve.
func (s *Server) newServices(ctx context.Context, callbacks *ingest.Service, events, inQuarantine *eventlog.Log) (services, error) {
	subscriptions, err := subscription.New(subscription.Config{
		Log:        events,
		Draining:   s.draining,
		Logger:     s.logger,
		Registerer: s.cfg.Registry,
	})
	if err != nil {
		return services{}, err
	}
	isolated, err := quarantine.New(quarantine.Config{
		Log:        inQuarantine,
		Ingest:     callbacks,
		Logger:     s.logger,
		Registerer: s.cfg.Registry,
	})
	if err != nil {
		return services{}, err
	}
	s.drift, err = drift.New(drift.Config{Log: events, Logger: s.logger, Registerer: s.cfg.Registry})
	if err != nil {
		return services{}, err
	}
	if err := s.openLeases(ctx); err != nil {
		return services{}, s.openError("open the consumer groups", err)
	}
	s.groups, err = group.New(ctx, group.Config{
		Engine:     s.engine,
		Leases:     s.leases,
		Events:     events,
		Positions:  subscriptions,
		Draining:   s.draining,
		Logger:     s.logger,
		Registerer: s.cfg.Registry,
	})
	if err != nil {
		return services{}, s.openError("open the consumer groups", err)
	}
	retyper := &retype.Retyper{Events: subscriptions, Ingest: callbacks, Draining: s.draining, Logger: s.logger}
	return services{
		callbacks:  callbacks,
		events:     eventService{subscriptions, retyper},
		quarantine: isolated,
		drift:      s.drift,
		groups:     s.groups,
		workers:    s.groups,
		logs:       verify.NewService(s.engine, s.draining),
	}, nil
}

// newServers makes what serves the listeners.
func (s *Server) newServers(ctx context.Context, callbacks *ingest.Service, all services) error {
	vendor, err := ingest.NewHandler(callbacks)
	if err != nil {
		return err
	}
	requests, err := newRequestMetrics(s.cfg.Registry)
	if err != nil {
		return err
	}
	ch := interceptors(s.logger, requests, s.draining)
	s.publicGRPC = s.newPublicGRPC(ch, all)
	s.memoryGRPC = newGRPC(s.cfg.MaxBody, ch, all, grpc.ChainUnaryInterceptor(s.groups.Forward))
	s.memoryListener = bufconn.Listen(memoryBuffer)
	if s.gateway, err = dialMemory(s.memoryListener); err != nil {
		return err
	}
	gateway, err := newGateway(ctx, s.gateway)
	if err != nil {
		return errors.Join(err, s.gateway.Close())
	}
	s.callbackHTTP = newCallbackHTTP(s.cfg.limits, s.logger, vendor)
	s.apiHTTP = newAPIHTTP(s.cfg.limits, s.logger, s.apiHandler(gateway, s.cfg.Registry))
	return nil
}

// advertised returns the address under which other gateways of the same cluster
// reach this one; "" when the log is on this machine, and there are none.
func (s *Server) advertised() (string, error) {
	if s.cfg.NATSURL == "" || s.cfg.AdvertiseAddr != "" {
		return s.cfg.AdvertiseAddr, nil
	}
	host, port, err := net.SplitHostPort(s.GRPCAddr())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("find a value for --advertise-addr: %w", err)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// logStart logs what differs from the defaults, and what an operator should
// know about it.
func (s *Server) logStart() {
	defaults := DefaultConfig()
	var attrs []any
	for _, setting := range settings {
		now := fmt.Sprint(setting.show(&s.cfg))
		if now != fmt.Sprint(setting.show(&defaults)) {
			attrs = append(attrs, slog.String(setting.Key, now))
		}
	}
	s.logger.Info("configuration, apart from defaults", attrs...)
	if address, err := s.advertised(); err == nil && address != "" && loopback(address) {
		s.logger.Warn("other gateways of the cluster reach this one only from this machine: set advertise_addr when there are some elsewhere",
			"address", address)
	}
	for key, addr := range map[string]string{"grpc_addr": s.cfg.GRPCAddr, "http_addr": s.cfg.HTTPAddr} {
		if !loopback(addr) {
			s.logger.Warn("the API can be reached from other machines and has no authentication yet: let only trusted ones through",
				"setting", key, "address", addr)
		}
	}
}

// CallbackAddr returns the address that callbacks are posted to, as host:port.
func (s *Server) CallbackAddr() string { return s.callbackListener.Addr().String() }

// GRPCAddr returns the address of the gRPC API, as host:port.
func (s *Server) GRPCAddr() string { return s.grpcListener.Addr().String() }

// HTTPAddr returns the address of the HTTP API, as host:port.
func (s *Server) HTTPAddr() string { return s.httpListener.Addr().String() }
