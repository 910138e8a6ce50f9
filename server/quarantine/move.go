package quarantine

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/peer"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

// maxReason is the longest reason for a discard, in bytes.
const maxReason = 256

// ReparseQuarantine implements QuarantineService.
func (s *Service) ReparseQuarantine(
	ctx context.Context, req *sluicev1.ReparseQuarantineRequest,
) (*sluicev1.ReparseQuarantineResponse, error) {
	if req.GetAll() == (len(req.GetSequences()) > 0) {
		return nil, apierror.InvalidField("sequences", "either name entries or set all")
	}
	size, after, err := s.page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	res, moved := &sluicev1.ReparseQuarantineResponse{}, []uint64(nil)
	defer func() { s.audit(ctx, "quarantine entries moved to the log", moved) }() // some, even after an error
	last := after
	visit := func(e *sluicev1.QuarantineEntry) (bool, error) {
		if len(res.GetEntries()) == size {
			res.NextPageToken = s.pageToken(last)
			return false, nil
		}
		last = e.GetSequence()
		again, err := s.move(ctx, e, req.GetDryRun())
		if err != nil {
			return false, err
		}
		if again.GetReason() == "" && !req.GetDryRun() {
			moved = append(moved, e.GetSequence())
		}
		res.Entries = append(res.Entries, again)
		return true, nil
	}
	if req.GetAll() {
		return res, s.scan(ctx, after, visit)
	}
	size = maxPageSize
	return res, each(req.GetSequences(), func(sequence uint64) error {
		e, err := s.get(ctx, sequence)
		var damaged *eventlog.DamagedError
		switch {
		case errors.Is(err, eventlog.ErrNotFound):
			return nil
		case errors.As(err, &damaged):
			e = damagedEntry(sequence)
		case err != nil:
			return err
		}
		_, err = visit(e)
		return err
	})
}

// move has an entry read again, and removes it once its events are durable. A
// crash in between leaves it in both places, until it is moved again: see
// ingest.Service.Restore.
func (s *Service) move(ctx context.Context, e *sluicev1.QuarantineEntry, dryRun bool) (*sluicev1.ReparsedEntry, error) {
	if e.GetReason() == reasonDamaged {
		return &sluicev1.ReparsedEntry{Sequence: e.GetSequence(), Reason: reasonDamaged}, nil
	}
	again, err := s.ingest.Restore(ctx, e, dryRun)
	switch {
	case err != nil:
		return nil, err
	case dryRun:
		return again, nil
	case again.GetReason() != "":
		s.metrics.reparsed.WithLabelValues("kept").Inc()
		return again, nil
	}
	if err := s.log.Delete(ctx, e.GetSequence()); err != nil && !errors.Is(err, eventlog.ErrNotFound) {
		return nil, err
	}
	s.metrics.reparsed.WithLabelValues("moved").Inc()
	return again, nil
}

// DiscardQuarantineEntries implements QuarantineService.
func (s *Service) DiscardQuarantineEntries(
	ctx context.Context, req *sluicev1.DiscardQuarantineEntriesRequest,
) (*sluicev1.DiscardQuarantineEntriesResponse, error) {
	reason := strings.TrimSpace(req.GetReason())
	if reason == "" || len(reason) > maxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		return nil, apierror.InvalidField("reason", "must say why in one line of 1 to %d bytes", maxReason)
	}
	res := &sluicev1.DiscardQuarantineEntriesResponse{}
	defer func() {
		s.audit(ctx, "quarantine entries discarded", res.GetDiscarded(), slog.String("reason", reason))
	}()
	return res, each(req.GetSequences(), func(sequence uint64) error {
		err := s.log.Delete(ctx, sequence)
		switch {
		case errors.Is(err, eventlog.ErrNotFound):
		case err != nil:
			return err
		default:
			res.Discarded = append(res.Discarded, sequence)
			s.metrics.discarded.Inc()
		}
		return nil
	})
}

// each calls visit for the sequences that a request names, each once and in
// order, until it returns an error.
func each(sequences []uint64, visit func(sequence uint64) error) error {
	sequences = slices.Clone(sequences)
	slices.Sort(sequences)
	sequences = slices.Compact(sequences)
	if n := len(sequences); n == 0 || n > maxPageSize || sequences[0] == 0 {
		return apierror.InvalidField("sequences", "must be from 1 to %d numbers of entries, which begin with 1", maxPageSize)
	}
	for _, sequence := range sequences {
		if err := visit(sequence); err != nil {
			return err
		}
	}
	return nil
}

// audit logs what a call has done to the entries at sequences, if anything.
func (s *Service) audit(ctx context.Context, did string, sequences []uint64, attrs ...slog.Attr) {
	if len(sequences) == 0 {
		return
	}
	attrs = append(attrs, slog.Any("sequences", sequences))
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	s.logger.LogAttrs(ctx, slog.LevelInfo, did, attrs...)
}
