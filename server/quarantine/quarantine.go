// Package quarantine serves QuarantineService: it shows the callbacks that are
// no events, moves those that can be read by now into the log of events, and
// removes those that nobody wants. It never decodes a body and never writes an
// event: package ingest does, which also puts the entries there.
package quarantine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/ingest"
	"github.com/sluicegate/sluice/server/record"
)

// Config says what a Service works on.
type Config struct {
	// Log is the quarantine. Required.
	Log *eventlog.Log

	// Ingest reads entries again, and knows what was not accepted. Required.
	Ingest *ingest.Service

	// Logger takes a line for each call that changed something. nil means no
	// logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer
}

// A Service implements QuarantineService. It is safe for concurrent use.
type Service struct {
	sluicev1.UnimplementedQuarantineServiceServer

	log     *eventlog.Log
	ingest  *ingest.Service
	logger  *slog.Logger
	metrics *metrics
}

// New returns the Service that cfg describes.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil || cfg.Ingest == nil {
		return nil, errors.New("quarantine: Config.Log and Config.Ingest must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Registerer, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &Service{log: cfg.Log, ingest: cfg.Ingest, logger: cfg.Logger, metrics: m}, nil
}

const (
	defaultPageSize = 100
	maxPageSize     = 1000

	// maxScan is the most entries that a ListQuarantineEntries reads.
	maxScan = 10_000
)

// ListQuarantineEntries implements QuarantineService.
func (s *Service) ListQuarantineEntries(
	ctx context.Context, req *sluicev1.ListQuarantineEntriesRequest,
) (*sluicev1.ListQuarantineEntriesResponse, error) {
	size, after, err := s.page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	res := &sluicev1.ListQuarantineEntriesResponse{}
	scanned, last := 0, after
	err = s.scan(ctx, after, func(e *sluicev1.QuarantineEntry) (bool, error) {
		if len(res.GetEntries()) == size || scanned == maxScan {
			res.NextPageToken = s.pageToken(last)
			return false, nil
		}
		scanned++
		last = e.GetSequence()
		selected := oneOf(e.GetSource(), req.GetSources()) && oneOf(e.GetReason(), req.GetReasons())
		if selected || e.GetReason() == reasonDamaged { // which may be what is looked for
			e.Raw = nil
			res.Entries = append(res.Entries, e)
		}
		return true, nil
	})
	return res, err
}

// oneOf reports whether a filter's values select value.
func oneOf(value string, values []string) bool {
	return len(values) == 0 || slices.Contains(values, value)
}

// GetQuarantineEntry implements QuarantineService.
func (s *Service) GetQuarantineEntry(
	ctx context.Context, req *sluicev1.GetQuarantineEntryRequest,
) (*sluicev1.GetQuarantineEntryResponse, error) {
	sequence := req.GetSequence()
	if sequence == 0 {
		return nil, apierror.InvalidField("sequence", "must be 1 or more")
	}
	e, err := s.get(ctx, sequence)
	if errors.Is(err, eventlog.ErrNotFound) {
		text := strconv.FormatUint(sequence, 10)
		return nil, &apierror.Error{
			Code:     codes.NotFound,
			Reason:   sluicev1.ErrorReason_ERROR_REASON_QUARANTINE_ENTRY_NOT_FOUND,
			Message:  "the quarantine does not hold entry " + text,
			Metadata: map[string]string{"sequence": text},
			Err:      err,
		}
	}
	return &sluicev1.GetQuarantineEntryResponse{Entry: e}, err
}

// ListRejections implements QuarantineService.
func (s *Service) ListRejections(
	context.Context, *sluicev1.ListRejectionsRequest,
) (*sluicev1.ListRejectionsResponse, error) {
	res := &sluicev1.ListRejectionsResponse{}
	for _, r := range s.ingest.Rejected() {
		res.Rejections = append(res.Rejections, &sluicev1.Rejection{
			Time:      timestamppb.New(r.Time),
			Source:    r.Source,
			Reason:    r.Reason,
			BodyBytes: uint32(r.BodyBytes), //nolint:gosec // at most max_body
			Shape:     r.Shape,
		})
	}
	return res, nil
}

// reasonDamaged is the reason of an entry that is there and cannot be read: no
// more is known of it than its sequence.
const reasonDamaged = "DAMAGED"

// scan calls visit for each entry behind the one at sequence after, in order of
// receipt, until it returns false or an error. It stops at what is durable when
// it begins. Entries that cannot be read are among those, with reasonDamaged.
func (s *Service) scan(ctx context.Context, after uint64, visit func(*sluicev1.QuarantineEntry) (bool, error)) error {
	step := func(e *sluicev1.QuarantineEntry) error {
		if more, err := visit(e); err != nil || more {
			return err
		}
		return eventlog.ErrStop
	}
	end := s.log.Durable()
	for first := after + 1; first <= end; {
		err := s.log.Scan(ctx, first, end, func(rec eventlog.Record) error {
			e, err := s.decode(rec)
			if err != nil {
				e = damagedEntry(rec.Sequence)
			}
			return step(e)
		})
		var damaged *eventlog.DamagedError
		if !errors.As(err, &damaged) || damaged.Log != s.log.Name() {
			return err
		}
		for n := damaged.First; n <= min(damaged.Last, end); n++ {
			if err := step(damagedEntry(n)); errors.Is(err, eventlog.ErrStop) {
				return nil
			} else if err != nil {
				return err
			}
		}
		first = damaged.Last + 1
	}
	return nil
}

// get returns one entry, eventlog.ErrNotFound, or a *eventlog.DamagedError.
func (s *Service) get(ctx context.Context, sequence uint64) (*sluicev1.QuarantineEntry, error) {
	rec, err := s.log.Get(ctx, sequence)
	if err != nil {
		return nil, err
	}
	return s.decode(rec)
}

// decode returns the entry that rec holds, or a *eventlog.DamagedError.
func (s *Service) decode(rec eventlog.Record) (*sluicev1.QuarantineEntry, error) {
	e := &sluicev1.QuarantineEntry{}
	if err := proto.Unmarshal(rec.Data, e); err != nil {
		return nil, &eventlog.DamagedError{Log: s.log.Name(), First: rec.Sequence, Last: rec.Sequence, Err: err}
	}
	e.Sequence = rec.Sequence
	e.RawBytes = uint32(len(e.GetRaw())) //nolint:gosec // at most max_body
	return e, nil
}

func damagedEntry(sequence uint64) *sluicev1.QuarantineEntry {
	return &sluicev1.QuarantineEntry{Sequence: sequence, Reason: reasonDamaged}
}

// page returns how many entries a page has, and the sequence that it begins
// behind.
func (s *Service) page(size int32, token string) (entries int, after uint64, err error) {
	switch {
	case size < 0 || size > maxPageSize:
		return 0, 0, apierror.InvalidField("page_size", "must be from 0 to %d", maxPageSize)
	case size == 0:
		size = defaultPageSize
	}
	if token == "" {
		return int(size), 0, nil
	}
	c, err := record.ParseCursor(token)
	if err != nil || c.Epoch != s.log.Epoch() {
		return 0, 0, &apierror.Error{
			Code:    codes.InvalidArgument,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN,
			Message: "page_token: is not one of this quarantine's",
			Field:   "page_token",
			Err:     err,
		}
	}
	return int(size), c.Sequence, nil
}

// pageToken returns the token of the page behind the entry at sequence.
func (s *Service) pageToken(sequence uint64) string {
	return record.Cursor{Epoch: s.log.Epoch(), Sequence: sequence}.String()
}
