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
	"time"

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
		if oneOf(e.GetSource(), req.GetSources()) && oneOf(e.GetReason(), req.GetReasons()) {
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

// scan calls visit for each entry behind the one at sequence after, in order of
// receipt, until it returns false or an error. It stops at what is durable when
// it begins.
func (s *Service) scan(ctx context.Context, after uint64, visit func(*sluicev1.QuarantineEntry) (bool, error)) error {
	r, end := s.log.Read(after+1), s.log.Durable()
	for r.Position() < end {
		records, err := next(ctx, r)
		var gone *eventlog.TruncatedError
		switch {
		case errors.As(err, &gone):
			r.Seek(gone.First)
			continue
		case err != nil:
			return err
		}
		for _, rec := range records {
			if rec.Sequence > end {
				return nil
			}
			e, err := decode(rec)
			if err != nil {
				return err
			}
			if more, err := visit(e); err != nil || !more {
				return err
			}
		}
	}
	return nil
}

// patience bounds one look at the log, and one change: a storage that is down
// may come back, but a client rather tries again than waits for it.
const patience = 5 * time.Second

// next returns some of the records that r is behind.
func next(ctx context.Context, r *eventlog.Reader) ([]eventlog.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return r.Next(ctx, maxPageSize)
}

// get returns one entry, or eventlog.ErrNotFound.
func (s *Service) get(ctx context.Context, sequence uint64) (*sluicev1.QuarantineEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rec, err := s.log.Get(ctx, sequence)
	if err != nil {
		return nil, err
	}
	return decode(rec)
}

// remove removes one entry. It returns eventlog.ErrNotFound when somebody else
// was faster.
func (s *Service) remove(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.log.Delete(ctx, sequence)
}

// decode returns the entry that rec holds.
func decode(rec eventlog.Record) (*sluicev1.QuarantineEntry, error) {
	e := &sluicev1.QuarantineEntry{}
	if err := proto.Unmarshal(rec.Data, e); err != nil {
		return nil, fmt.Errorf("quarantine entry %d: %w", rec.Sequence, err)
	}
	e.Sequence = rec.Sequence
	e.RawBytes = uint32(len(e.GetRaw())) //nolint:gosec // at most max_body
	return e, nil
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
