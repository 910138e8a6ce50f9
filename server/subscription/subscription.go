// Package subscription is the log door: it serves EventService, but for the call
// that writes, which package retype adds; it reads the log of events by
// position. It owns cursors as clients see them, filters and
// the frames of a stream. It keeps nothing of a reader but the stream itself,
// and never writes to the log.
package subscription

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// Config says what a Service works on.
type Config struct {
	// Log holds the events. Required.
	Log *eventlog.Log

	// Draining is closed when the server begins to stop: every stream then ends
	// with a going_away frame. nil means never.
	Draining <-chan struct{}

	// Logger takes one line for each stream that ends. nil means no logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer
}

// A Service implements EventService, but for RetypeEvents. It is safe for concurrent use.
type Service struct {
	sluicev1.UnimplementedEventServiceServer

	log      *eventlog.Log
	draining <-chan struct{}
	logger   *slog.Logger
	metrics  *metrics
	maxScan  int           // the most records that a ListEvents reads
	callTime time.Duration // callTime, but in tests
}

// maxScan bounds a ListEvents: reading that many records takes some tenths of a
// second.
const maxScan = 50_000

// New returns the Service that cfg describes.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil {
		return nil, errors.New("subscription: Config.Log must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Service{log: cfg.Log, draining: cfg.Draining, logger: cfg.Logger, metrics: m, maxScan: maxScan, callTime: callTime}, nil
}

// GetEvent implements EventService.
func (s *Service) GetEvent(ctx context.Context, req *sluicev1.GetEventRequest) (*sluicev1.GetEventResponse, error) {
	sequence := req.GetSequence()
	if sequence == 0 {
		return nil, apierror.InvalidField("sequence", "must be 1 or more")
	}
	rec, err := s.log.Get(ctx, sequence)
	if errors.Is(err, eventlog.ErrNotFound) {
		return nil, &apierror.Error{
			Code:     codes.NotFound,
			Reason:   sluicev1.ErrorReason_ERROR_REASON_EVENT_NOT_FOUND,
			Message:  "the log does not hold event " + strconv.FormatUint(sequence, 10),
			Metadata: map[string]string{"sequence": strconv.FormatUint(sequence, 10)},
			Err:      err,
		}
	}
	if err != nil {
		return nil, err
	}
	e, err := s.decode(rec, req.GetIncludeRaw())
	if err != nil {
		return nil, err
	}
	return &sluicev1.GetEventResponse{Event: e}, nil
}

// decode returns the event that rec holds. Bytes that are none are damaged as
// much as those that the storage cannot read: *eventlog.DamagedError.
func (s *Service) decode(rec eventlog.Record, raw bool) (*sluicev1.Event, error) {
	e, err := record.Decode(rec.Data, rec.Sequence, s.log.Epoch(), raw)
	if err != nil {
		return nil, &eventlog.DamagedError{Log: s.log.Name(), First: rec.Sequence, Last: rec.Sequence, Err: err}
	}
	return e, nil
}

// A selector turns records into the events that a request asks for.
type selector struct {
	service  *Service
	filter   *Filter
	raw      bool // whether events have raw
	failures prometheus.Counter
}

func (s *Service) selector(filter *sluicev1.EventFilter, raw bool) (*selector, error) {
	compiled, err := Compile(filter)
	if err != nil {
		return nil, err
	}
	return &selector{service: s, filter: compiled, raw: raw, failures: s.metrics.filterErrors}, nil
}

// pick returns the event that rec holds, or nil when the filter does not select
// it. The error is a *eventlog.DamagedError or that of ctx.
func (s *selector) pick(ctx context.Context, rec eventlog.Record) (*sluicev1.Event, error) {
	if labels, ok := record.ParseSubject(rec.Subject); ok && !s.filter.MatchLabels(labels) {
		return nil, nil
	}
	e, err := s.decode(rec)
	if err != nil {
		return nil, err
	}
	return s.accept(ctx, e)
}

func (s *selector) decode(rec eventlog.Record) (*sluicev1.Event, error) {
	return s.service.decode(rec, s.raw)
}

// accept returns e, or nil when the filter does not select it. The error is
// that of ctx.
func (s *selector) accept(ctx context.Context, e *sluicev1.Event) (*sluicev1.Event, error) {
	raw := e.GetRaw()
	e.Raw = nil // an expression does not see it
	ok, err := s.filter.matchInTurn(ctx, e)
	e.Raw = raw
	switch failed := (*evaluationError)(nil); {
	case ok:
		return e, nil
	case errors.As(err, &failed):
		s.failures.Inc()
		return nil, nil
	}
	return nil, err
}
