package subscription

import (
	"cmp"
	"context"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// Scan calls visit for each event between two positions that filter selects, in
// order, with raw, until visit returns an error, which it then returns. An unset
// start is the oldest event held; the end of the log is where it is now, also
// for a stop behind it. superseded says that a later event, up to that end, is a
// revision of the same thing.
//
// It reads the part of the log from start on twice, and keeps about 50 bytes for
// each event there that has revisions.
func (s *Service) Scan(
	ctx context.Context, start, stop *sluicev1.Position, filter *sluicev1.EventFilter,
	visit func(e *sluicev1.Event, superseded bool) error,
) error {
	selector, err := s.selector(filter, true)
	if err != nil {
		return err
	}
	sp, err := s.span(ctx, listStart(start), stop)
	if err != nil {
		return err
	}
	if err := sp.checkHeld(); err != nil {
		return err
	}
	first, last := sp.start.sequence, sp.state.Last
	newest := make(map[uint64]uint64) // of the revisions of an event, by its sequence
	err = s.log.Scan(ctx, first, last, func(rec eventlog.Record) error {
		if of := record.RevisionOf(rec.Data); of != 0 {
			newest[of] = rec.Sequence
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.log.Scan(ctx, first, min(sp.stop.sequence-1, last), func(rec eventlog.Record) error {
		e, err := selector.pick(ctx, rec)
		if e == nil || err != nil {
			return err
		}
		return visit(e, newest[cmp.Or(e.GetRevisionOf(), e.GetSequence())] > e.GetSequence())
	})
}
