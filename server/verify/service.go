package verify

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

// A Service implements LogService over the logs of a gateway that runs. It is
// safe for concurrent use.
type Service struct {
	sluicev1.UnimplementedLogServiceServer

	engine   eventlog.Engine
	draining <-chan struct{}
	turn     chan struct{} // holds one value while somebody verifies
}

// NewService returns a Service over engine. draining is closed when the server
// begins to stop: a call then ends with UNAVAILABLE (DRAINING).
func NewService(engine eventlog.Engine, draining <-chan struct{}) *Service {
	return &Service{engine: engine, draining: draining, turn: make(chan struct{}, 1)}
}

var errDraining = errors.New("verify: draining")

// VerifyLog implements LogService. One call at a time reads: others wait for
// their turn.
func (s *Service) VerifyLog(_ *sluicev1.VerifyLogRequest, out grpc.ServerStreamingServer[sluicev1.VerifyLogResponse]) error {
	ctx, cancel := context.WithCancelCause(out.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.draining:
			cancel(errDraining)
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)

	report, err := s.run(ctx, out)
	switch {
	case errors.Is(context.Cause(ctx), errDraining):
		return apierror.Draining()
	case err != nil:
		return err
	}
	return out.Send(&sluicev1.VerifyLogResponse{Frame: &sluicev1.VerifyLogResponse_Report{Report: report}})
}

func (s *Service) run(ctx context.Context, out grpc.ServerStreamingServer[sluicev1.VerifyLogResponse]) (*sluicev1.VerifyReport, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return Run(ctx, Config{Engine: s.engine, Progress: func(p *sluicev1.VerifyProgress) error {
		return out.Send(&sluicev1.VerifyLogResponse{Frame: &sluicev1.VerifyLogResponse_Progress{Progress: p}})
	}})
}
