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
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sluicegate/sluice/server/drift"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/failpoint"
	"github.com/sluicegate/sluice/server/group"
	"github.com/sluicegate/sluice/server/ingest"
	"github.com/sluicegate/sluice/server/quarantine"
	"github.com/sluicegate/sluice/server/retype"
	"github.com/sluicegate/sluice/server/subscription"
)

// A Server is the gateway. New makes it and Run serves; every other method is
// safe at any time.
type Server struct {
	cfg      Config
	logger   *slog.Logger
	engine   *eventlog.Engine
	reloader *reloader
	health   *health.Server
	drift    *drift.Service
	groups   *group.Service
	draining chan struct{} // closed when the drain begins

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
	eventsLog     = "EVENTS"
	quarantineLog = "QUARANTINE"
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
	if cfg.timeouts == (timeouts{}) {
		cfg.timeouts = defaultTimeouts()
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

	s.engine, err = eventlog.Open(ctx, cfg.engine(logger))
	if err != nil {
		return nil, openError("open the log", err)
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

	if err := s.build(ctx); err != nil {
		return nil, err
	}
	s.logStart()
	return s, nil
}

// engine returns the configuration of the log's engine.
func (c Config) engine(logger *slog.Logger) eventlog.Config {
	return eventlog.Config{
		Dir:            c.DataDir,
		URL:            string(c.NATSURL),
		Credentials:    c.NATSCredentials,
		Sync:           c.Sync,
		CommitTimeout:  c.CommitTimeout,
		MaxRecord:      ingest.MaxRecord(int(c.MaxBody)),
		MinFree:        uint64(c.MinFree), //nolint:gosec // Validate refuses a negative one
		AcceptDataLoss: c.AcceptDataLoss,
		Logger:         logger,
		Registerer:     c.Registry,
	}
}

// openError returns err as something to act on.
func openError(doing string, err error) error {
	var lost *eventlog.DataLossError
	if errors.As(err, &lost) {
		return fmt.Errorf("%s: %w; put the data back from a copy, or go on with what is left with --accept-data-loss", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// build makes the services and what serves them. It opens nothing that has to
// be closed if it fails.
func (s *Server) build(ctx context.Context) error {
	events, err := s.engine.Log(ctx, eventlog.LogConfig{
		Name:         eventsLog,
		DedupeWindow: s.cfg.DedupeWindow,
		MaxAge:       s.cfg.MaxAge,
		MaxBytes:     int64(s.cfg.MaxBytes),
		DropOldest:   s.cfg.OnFull == OnFullDropOldest,
	})
	if err != nil {
		return openError("open the log", err)
	}
	inQuarantine, err := s.engine.Log(ctx, eventlog.LogConfig{
		Name:         quarantineLog,
		DedupeWindow: s.cfg.DedupeWindow,
		MaxAge:       s.cfg.QuarantineMaxAge,
		MaxBytes:     int64(s.cfg.QuarantineMaxBytes),
		DropOldest:   true, // what nobody can read must not stop what everybody can
	})
	if err != nil {
		return openError("open the quarantine", err)
	}

	sources, errs := s.cfg.ingestSources()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sources: %w", err)
	}
	callbacks, err := ingest.New(ingest.Config{
		Sources:       sources,
		MaxBody:       int(s.cfg.MaxBody),
		CommitTimeout: s.cfg.CommitTimeout,
		Logger:        s.logger,
		Registerer:    s.cfg.Registry,
	}, events, inQuarantine)
	if err != nil {
		return err
	}
	if s.reloader, err = newReloader(s.cfg, sources, callbacks.SetSources, s.logger); err != nil {
		return err
	}
	subscriptions, err := subscription.New(subscription.Config{
		Log:        events,
		Draining:   s.draining,
		Logger:     s.logger,
		Registerer: s.cfg.Registry,
	})
	if err != nil {
		return err
	}
	isolated, err := quarantine.New(quarantine.Config{
		Log:        inQuarantine,
		Ingest:     callbacks,
		Logger:     s.logger,
		Registerer: s.cfg.Registry,
	})
	if err != nil {
		return err
	}
	retyper := &retype.Retyper{Events: subscriptions, Ingest: callbacks, Draining: s.draining, Logger: s.logger}
	s.drift, err = drift.New(drift.Config{Log: events, Logger: s.logger, Registerer: s.cfg.Registry})
	if err != nil {
		return err
	}
	address, err := s.advertised()
	if err != nil {
		return err
	}
	s.groups, err = group.New(ctx, group.Config{
		Engine:     s.engine,
		Address:    address,
		LeaseTTL:   s.cfg.leaseTTL,
		Events:     events,
		Positions:  subscriptions,
		Draining:   s.draining,
		Logger:     s.logger,
		Registerer: s.cfg.Registry,
	})
	if err != nil {
		return openError("open the consumer groups", err)
	}
	vendor, err := ingest.NewHandler(callbacks)
	if err != nil {
		return err
	}
	requests, err := newRequestMetrics(s.cfg.Registry)
	if err != nil {
		return err
	}
	if err := s.registerMetrics(s.cfg.Registry, map[string]*eventlog.Log{"events": events, "quarantine": inQuarantine}); err != nil {
		return err
	}

	ch := interceptors(s.logger, requests, s.draining)
	all := services{
		callbacks:  callbacks,
		events:     eventService{subscriptions, retyper},
		quarantine: isolated,
		drift:      s.drift,
		groups:     s.groups,
		workers:    s.groups,
	}
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
	s.callbackHTTP = newCallbackHTTP(s.cfg.timeouts, s.logger, vendor)
	s.apiHTTP = newAPIHTTP(s.cfg.timeouts, s.logger, s.apiHandler(gateway, s.cfg.Registry))
	return nil
}

// advertised returns the address under which other gateways of the same cluster
// reach this one; "" when the log is embedded, and there are none.
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

// Run serves until ctx ends or a part fails, then drains. It returns nil after
// a clean stop, and it is called once.
func (s *Server) Run(ctx context.Context) error {
	s.logger.Info("serving", "callbacks", s.CallbackAddr(), "grpc", s.GRPCAddr(), "http", s.HTTPAddr())
	s.groups.Start()
	g, ctx := errgroup.WithContext(ctx) // one part failing stops the rest
	g.Go(func() error { return named("callbacks", serveHTTP(s.callbackHTTP, s.callbackListener)) })
	g.Go(func() error { return named("http", serveHTTP(s.apiHTTP, s.httpListener)) })
	g.Go(func() error { return named("grpc", serveGRPC(s.publicGRPC, s.grpcListener)) })
	g.Go(func() error { return named("gateway", serveGRPC(s.memoryGRPC, s.memoryListener)) })
	g.Go(func() error {
		s.reloader.watch(ctx, s.cfg.Hangup)
		return nil
	})
	g.Go(func() error {
		s.drift.Run(ctx) // until ctx ends
		return nil
	})
	g.Go(func() error {
		s.watchHealth(ctx) // until ctx ends
		return s.drain()
	})
	return g.Wait()
}

// drain stops the server from the outside in, so that nothing accepted is lost
// and nothing waits for ever.
func (s *Server) drain() error {
	s.logger.Info("draining", "timeout", s.cfg.DrainTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout)
	defer cancel()
	// Clients get four fifths of the time, so that the log has the rest.
	clients, cancelClients := context.WithTimeout(ctx, s.cfg.DrainTimeout*4/5)
	defer cancelClients()

	close(s.draining) // 1. not ready, and subscriptions end with a cursor to resume from
	s.health.Shutdown()
	_ = failpoint.Hit("during-drain")
	err := errors.Join( // 2. from the outside in; /readyz answers while callbacks finish
		named("callbacks", stopHTTP(clients, s.callbackHTTP)),
		named("http", stopHTTP(clients, s.apiHTTP)),
		s.gateway.Close(),
		named("gateway", stopGRPC(clients, s.memoryGRPC)),
		named("grpc", stopGRPC(clients, s.publicGRPC)),
	)
	s.groups.Close()                        // 3. nobody calls them any more
	err = errors.Join(err, s.closeLog(ctx)) // 4. the log last: everything above writes to it
	if err == nil {
		s.logger.Info("stopped")
	}
	return err
}

// closeLog makes durable what was accepted, and closes the log.
func (s *Server) closeLog(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DrainTimeout)
	defer cancel()
	return named("log", s.engine.Close(ctx))
}

// serveHTTP serves until srv is stopped.
func serveHTTP(srv *http.Server, listener net.Listener) error {
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// stopHTTP waits for the requests under way until ctx ends, and then cuts them.
func stopHTTP(ctx context.Context, srv *http.Server) error {
	if srv.Shutdown(ctx) == nil {
		return nil
	}
	return errors.Join(errors.New("requests were cut at the drain timeout"), srv.Close())
}

// named says which part an error is of.
func named(part string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}
