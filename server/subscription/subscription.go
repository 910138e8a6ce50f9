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

	log        *eventlog.Log
	draining   <-chan struct{}
	logger     *slog.Logger
	metrics    *metrics
	places     chan struct{} // one for each stream there may be
	maxScan    int           // the most records that a ListEvents reads
	minIndexed uint64        // the fewest records among which chats are found by the index
	callTime   time.Duration // callTime, but in tests
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
	return &Service{
		log: cfg.Log, draining: cfg.Draining, logger: cfg.Logger, metrics: m,
		places: make(chan struct{}, maxStreams), maxScan: maxScan, minIndexed: minIndexed, callTime: callTime,
	}, nil
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

// cursor returns the cursor of a record.
func (s *Service) cursor(sequence uint64) record.Cursor {
	return record.Cursor{Epoch: s.log.Epoch(), Sequence: sequence}
}

// decode returns the event that rec holds. Bytes that are none are damaged as
// much as those that the storage cannot read: *eventlog.DamagedError.
func (s *Service) decode(rec eventlog.Record, raw bool) (*sluicev1.Event, error) {
	e, err := record.Decode(rec.Data, rec.Sequence, s.log.Epoch(), raw)
	if err != nil {
		return nil, s.damaged(rec, err)
	}
	return e, nil
}

// received returns when the event that rec holds was received. The error is that
// of decode.
func (s *Service) received(rec eventlog.Record) (time.Time, error) {
	o, err := record.ParseOutline(rec.Data)
	if err != nil {
		return time.Time{}, s.damaged(rec, err)
	}
	return o.Received, nil
}

// damaged returns the error of a record that the storage can read and that is no
// event.
func (s *Service) damaged(rec eventlog.Record, err error) error {
	return &eventlog.DamagedError{Log: s.log.Name(), First: rec.Sequence, Last: rec.Sequence, Err: err}
}

// A selector finds among records the events that a request asks for.
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

// selects returns whether the filter selects the event that rec holds. It decodes
// it only when the filter asks for more than the record's subject says. The error
// is a *eventlog.DamagedError or that of ctx.
func (s *selector) selects(ctx context.Context, rec eventlog.Record) (bool, error) {
	if match, decided := s.filter.ByRecord(rec); decided {
		return match, nil
	}
	e, err := s.service.decode(rec, false) // an expression does not see raw
	if err != nil {
		return false, err
	}
	return s.accepts(ctx, e)
}

// undecoded returns the event that rec holds in the form of record.Undecoded, or
// nil when the filter does not select it. The error is that of selects.
func (s *selector) undecoded(ctx context.Context, rec eventlog.Record) (*sluicev1.Event, error) {
	if ok, err := s.selects(ctx, rec); !ok {
		return nil, err
	}
	e, err := record.Undecoded(rec.Data, s.service.cursor(rec.Sequence), s.raw)
	if err != nil {
		return nil, s.service.damaged(rec, err)
	}
	return e, nil
}

// pick returns the event that rec holds, decoded, or nil when the filter does not
// select it. The error is that of selects.
func (s *selector) pick(ctx context.Context, rec eventlog.Record) (*sluicev1.Event, error) {
	if match, decided := s.filter.ByRecord(rec); decided && !match {
		return nil, nil
	}
	e, err := s.service.decode(rec, s.raw)
	if err != nil {
		return nil, err
	}
	raw := e.GetRaw()
	e.Raw = nil // an expression does not see it
	ok, err := s.accepts(ctx, e)
	e.Raw = raw
	if !ok {
		return nil, err
	}
	return e, nil
}

// accepts returns whether the filter selects e, which has no raw. The error is
// that of ctx.
func (s *selector) accepts(ctx context.Context, e *sluicev1.Event) (bool, error) {
	ok, err := s.filter.matchInTurn(ctx, e)
	if errors.Is(err, ErrEvaluation) {
		s.failures.Inc()
		return false, nil
	}
	return ok, err
}
