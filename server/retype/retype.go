// Package retype reads the history again: it has today's decoder read the stored
// bodies of events that an earlier one typed, tells what becomes different, and
// has the different ones appended as revisions. It implements the one call of
// EventService that writes to the log; how events are found is the business of
// package subscription, and how they are stored that of package ingest.
package retype

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/ingest"
	"github.com/sluicegate/sluice/server/subscription"
)

// maxChanges is how many changes a frame tells of.
const maxChanges = 200

// A Retyper implements EventService.RetypeEvents. It is safe for concurrent use.
type Retyper struct {
	// Events finds the events. Required.
	Events *subscription.Service

	// Ingest types and stores them. Required.
	Ingest *ingest.Service

	// Draining is closed when the server begins to stop: a call then ends with
	// UNAVAILABLE (DRAINING). nil means never.
	Draining <-chan struct{}

	// Logger takes a line for each call that may have changed the log. nil means
	// no logging.
	Logger *slog.Logger
}

var errDraining = errors.New("retype: draining")

// RetypeEvents implements EventService.
func (r *Retyper) RetypeEvents(
	req *sluicev1.RetypeEventsRequest, out grpc.ServerStreamingServer[sluicev1.RetypeEventsResponse],
) error {
	if req.GetStart() == nil {
		return apierror.InvalidField("start", "must be set")
	}
	ctx, cancel := context.WithCancelCause(out.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-r.Draining:
			cancel(errDraining)
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)

	c := call{Retyper: r, out: out, dryRun: req.GetDryRun(), summary: &sluicev1.RetypeSummary{}}
	err := r.Events.Scan(ctx, req.GetStart(), req.GetStop(), req.GetFilter(), func(e *sluicev1.Event, superseded bool) error {
		return c.take(ctx, e, superseded)
	})
	if !c.dryRun && r.Logger != nil {
		r.Logger.InfoContext(ctx, "events retyped", "read", c.summary.GetRead(), "changed", c.summary.GetChanged(), "complete", err == nil)
	}
	switch {
	case errors.Is(context.Cause(ctx), errDraining):
		return apierror.Draining()
	case err != nil:
		return err
	}
	return out.Send(&sluicev1.RetypeEventsResponse{Frame: &sluicev1.RetypeEventsResponse_Summary{Summary: c.summary}})
}

// A call is one RetypeEvents.
type call struct {
	*Retyper
	out     grpc.ServerStreamingServer[sluicev1.RetypeEventsResponse]
	dryRun  bool
	summary *sluicev1.RetypeSummary
}

// take looks at an event, and sends a frame if it becomes another. An event that
// a later one supersedes stays as it is: a revision of it would come to stand
// behind what is newer.
func (c *call) take(ctx context.Context, was *sluicev1.Event, superseded bool) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c.summary.Read++
	switch {
	case superseded:
		c.summary.Superseded++
		return nil
	case was.GetDecoderVersion() >= callback.Version:
		c.summary.Current++
		return nil
	}
	now, err := c.Ingest.Retype(was)
	if err != nil {
		return err
	}
	if now == nil {
		c.summary.Undecodable++
		return nil
	}
	changes := Diff(was, now)
	if len(changes) == 0 {
		c.summary.Unchanged++
		return nil
	}
	frame := &sluicev1.RetypedEvent{Sequence: was.GetSequence(), DecoderVersion: was.GetDecoderVersion(), Changes: changes}
	if more := len(changes) - maxChanges; more > 0 {
		frame.Changes, frame.ChangesLeftOff = changes[:maxChanges], uint32(more) //nolint:gosec // as many as a body has values
	}
	if !c.dryRun {
		if frame.RevisionSequence, err = c.Ingest.AppendRetyped(ctx, was, now); err != nil {
			return err
		}
	}
	c.summary.Changed++
	return c.out.Send(&sluicev1.RetypeEventsResponse{Frame: &sluicev1.RetypeEventsResponse_Event{Event: frame}})
}
