package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/server/failpoint"
)

const (
	// failedGrace is how long clients have once the storage has failed: enough
	// for those that wait to be answered 503.
	failedGrace = 500 * time.Millisecond

	// failedStop is how long the process then goes on at most. Whatever still
	// hangs, on a disk that does not answer for example, is left to its end.
	failedStop = time.Second
)

// Run serves until ctx ends or a part fails, then drains. It returns nil after
// a clean stop, and a *StorageError when the storage has failed for good: then
// it has not waited for what hangs, nor closed the storage, and the process must
// end. It is called once.
func (s *Server) Run(ctx context.Context) error {
	s.logger.Info("serving", "callbacks", s.CallbackAddr(), "grpc", s.GRPCAddr(), "http", s.HTTPAddr())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx) }()
	select {
	case err := <-ended:
		if s.failed() { // at the last moment, in the drain
			return &StorageError{s.engine.Err()}
		}
		return err
	case <-s.engine.Failed():
	}
	s.logger.Error("the storage has failed: the process ends, the next start reads what is on the disk", "err", s.engine.Err().Error())
	stop()
	late := time.NewTimer(failedStop)
	defer late.Stop()
	select {
	case err := <-ended:
		s.logger.Info("clients were let go", "err", err)
	case <-late.C:
		s.logger.Warn("something still hangs, and is left behind")
	}
	return &StorageError{s.engine.Err()}
}

// failed reports whether the storage has failed for good.
func (s *Server) failed() bool {
	select {
	case <-s.engine.Failed():
		return true
	default:
		return false
	}
}

// serve runs all parts until ctx ends or one fails, and drains.
func (s *Server) serve(ctx context.Context) error {
	s.groups.Start()
	g, ctx := errgroup.WithContext(ctx) // one part failing stops the rest
	callbacks := netutil.LimitListener(s.callbackListener, s.cfg.limits.callbackConns)
	g.Go(func() error { return named("callbacks", serveHTTP(s.callbackHTTP, callbacks)) })
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
	go func() { // nothing can be finished any more: be quick
		select {
		case <-s.engine.Failed():
			time.AfterFunc(failedGrace, cancelClients)
		case <-clients.Done():
		}
	}()

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
	err = errors.Join(err, named("groups", s.closeGroups(ctx))) // 3. nobody calls them any more
	if s.failed() {
		return err // closing what has failed could hang, and saves nothing
	}
	err = errors.Join(err, s.closeLog(ctx)) // 4. the log last: everything above writes to it
	if err == nil {
		s.logger.Info("stopped")
	}
	return err
}

// closeGroups ends the consumer groups, as long as ctx lasts.
func (s *Server) closeGroups(ctx context.Context) error {
	closed := make(chan struct{})
	go func() {
		s.groups.Close()
		if s.leases != nil {
			s.leases.Close()
		}
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return errors.New("did not end within the drain timeout")
	}
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
