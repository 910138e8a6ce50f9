package server

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/retype"
	"github.com/sluicegate/sluice/server/subscription"
)

const (
	// maxStreams bounds the calls at one time on a connection; the default is
	// without bound.
	maxStreams = 1000

	// minPing is how often a client may ping, with or without calls.
	minPing = 10 * time.Second

	// pingAfter and pingTimeout find a peer that is gone within half a minute.
	pingAfter   = 20 * time.Second
	pingTimeout = 10 * time.Second

	// connectionAge moves clients on, so that those behind a load balancer
	// spread over servers that came later. A subscription that has not ended
	// connectionGrace after that is cut, and resumes elsewhere.
	connectionAge   = 30 * time.Minute
	connectionGrace = time.Minute
)

// services are what both gRPC servers serve.
type services struct {
	callbacks  sluicev1.CallbackServiceServer
	events     sluicev1.EventServiceServer
	quarantine sluicev1.QuarantineServiceServer
	drift      sluicev1.DriftServiceServer
	groups     sluicev1.ConsumerGroupServiceServer
	workers    sluicev1.ConsumerServiceServer
	logs       sluicev1.LogServiceServer
}

// eventService is EventService, of which one call is not only a reader's.
type eventService struct {
	*subscription.Service
	*retype.Retyper
}

// newGRPC returns a gRPC server with the services behind the interceptors.
func newGRPC(maxBody Size, ch chain, all services, extra ...grpc.ServerOption) *grpc.Server {
	srv := grpc.NewServer(append(extra,
		grpc.UnaryInterceptor(ch.unary),
		grpc.StreamInterceptor(ch.stream),
		grpc.MaxRecvMsgSize(max(maxAPIRequest, 2*int(maxBody))),
		grpc.MaxHeaderListSize(maxMetadata),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(subscription.Codec()),
	)...)
	sluicev1.RegisterCallbackServiceServer(srv, all.callbacks)
	sluicev1.RegisterEventServiceServer(srv, all.events)
	sluicev1.RegisterQuarantineServiceServer(srv, all.quarantine)
	sluicev1.RegisterDriftServiceServer(srv, all.drift)
	sluicev1.RegisterConsumerServiceServer(srv, all.workers)
	sluicev1.RegisterConsumerGroupServiceServer(srv, all.groups)
	sluicev1.RegisterLogServiceServer(srv, all.logs)
	return srv
}

// newPublicGRPC returns the server of the gRPC listener.
func (s *Server) newPublicGRPC(ch chain, all services) *grpc.Server {
	srv := newGRPC(s.cfg.MaxBody, ch, all,
		grpc.ChainUnaryInterceptor(s.groups.Forward),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      connectionAge,
			MaxConnectionAgeGrace: connectionGrace,
			Time:                  pingAfter,
			Timeout:               pingTimeout,
		}),
	)
	healthv1.RegisterHealthServer(srv, s.health)
	if s.cfg.Reflection {
		reflection.Register(srv)
	}
	return srv
}

// serveGRPC serves until srv is stopped.
func serveGRPC(srv *grpc.Server, listener net.Listener) error {
	if err := srv.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// stopGRPC waits for the calls under way until ctx ends, and then cuts them.
// Waiting needs that bound: a client that does not read keeps its stream for
// ever.
func stopGRPC(ctx context.Context, srv *grpc.Server) error {
	stopped := make(chan struct{})
	go func() {
		srv.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		srv.Stop()
		<-stopped
		return errors.New("calls were cut at the drain timeout")
	}
}
