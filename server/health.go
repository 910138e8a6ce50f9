package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// errDraining is why a server that stops is not ready.
var errDraining = errors.New("the server is stopping")

// healthInterval is how soon the gRPC health service follows the log. /readyz
// does not wait: it asks.
const healthInterval = 250 * time.Millisecond

// ready returns why no callbacks should be sent here now; nil when they should.
func (s *Server) ready() error {
	select {
	case <-s.draining:
		return errDraining
	default:
		return s.engine.Err()
	}
}

// watchHealth keeps the gRPC health service up to date until ctx ends.
func (s *Server) watchHealth(ctx context.Context) {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	var was error
	for {
		now := s.ready()
		switch {
		case s.failed(): // Run says so
		case now != nil && was == nil:
			s.logger.Error("not ready: callbacks are answered 503", "err", now)
		case now == nil && was != nil:
			s.logger.Info("ready again")
		}
		was = now
		s.reportHealth(now)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reportHealth tells the gRPC health service, for the server as a whole and for
// the services that a client may ask for by name.
func (s *Server) reportHealth(notReady error) {
	serving := healthv1.HealthCheckResponse_SERVING
	if notReady != nil {
		serving = healthv1.HealthCheckResponse_NOT_SERVING
	}
	for _, service := range []string{
		"",
		sluicev1.CallbackService_ServiceDesc.ServiceName,
		sluicev1.EventService_ServiceDesc.ServiceName,
		sluicev1.QuarantineService_ServiceDesc.ServiceName,
		sluicev1.DriftService_ServiceDesc.ServiceName,
		sluicev1.LogService_ServiceDesc.ServiceName,
	} {
		s.health.SetServingStatus(service, serving)
	}
}

// healthz answers 200 while the process can answer at all.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	answerText(w, http.StatusOK, "ok")
}

// readyz answers 200 while callbacks can be taken, else 503 and why not.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.ready(); err != nil {
		answerText(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		return
	}
	answerText(w, http.StatusOK, "ready")
}

func answerText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}
