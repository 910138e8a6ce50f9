package group

import (
	"context"
	"errors"
	"slices"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/subscription"
)

// selectEvent returns what a scheduler is to know of the event in rec; false
// when the filter does not select it.
func (s *Service) selectEvent(rec eventlog.Record, filter *subscription.Filter) (schedule.Event, bool) {
	if labels, ok := record.ParseSubject(rec.Subject); ok && !filter.MatchLabels(labels) {
		return schedule.Event{}, false
	}
	e, err := record.Decode(rec.Data, rec.Sequence, s.events.Epoch(), false)
	if err != nil {
		s.logger.Error("an event of the log cannot be read, consumer groups pass it over", "sequence", rec.Sequence, "err", err)
		return schedule.Event{}, false
	}
	if !filter.Match(e) {
		return schedule.Event{}, false
	}
	out := schedule.Event{
		Sequence: rec.Sequence,
		Chat:     schedule.ChatID(e.GetChatKey()),
		Received: e.GetReceiveTime().AsTime(),
		Size:     len(rec.Data),
		Revises:  e.GetRevisionOf(),
	}
	if t := e.GetMessage().GetSendTime(); t != nil {
		out.Sent = t.AsTime()
	}
	return out, true
}

// scan calls visit for each event from the one at first to the one at last that
// the filter selects. last must be durable.
func (s *Service) scan(ctx context.Context, filter *subscription.Filter, first, last uint64, visit func(schedule.Event)) error {
	r := s.events.Read(max(first, 1))
	for r.Position() < last {
		records, err := r.Next(ctx, int(min(last-r.Position(), maxRead)))
		var gone *eventlog.TruncatedError
		if errors.As(err, &gone) {
			r.Seek(gone.First)
			continue
		}
		if err != nil {
			return err
		}
		for _, rec := range records {
			if rec.Sequence > last {
				return nil
			}
			if e, ok := s.selectEvent(rec, filter); ok {
				visit(e)
			}
		}
	}
	return nil
}

// records returns the records of those sequences, all of which were durable,
// that the log still holds.
func (s *Service) records(ctx context.Context, sequences []uint64) (map[uint64]eventlog.Record, error) {
	all := slices.Sorted(slices.Values(sequences))
	found := make(map[uint64]eventlog.Record, len(all))
	r := s.events.Read(1)
	for len(all) > 0 {
		n := 1 // how many lie so close together that one read gets them
		for n < len(all) && n < maxRead && all[n]-all[0] < uint64(4*n) {
			n++
		}
		r.Seek(all[0])
		records, err := r.Next(ctx, int(all[n-1]-all[0])+1) //nolint:gosec // small
		passed := r.Position()
		var gone *eventlog.TruncatedError
		switch {
		case errors.As(err, &gone):
			passed = gone.First - 1
		case err != nil:
			return nil, err
		}
		for _, rec := range records {
			if _, ok := slices.BinarySearch(all, rec.Sequence); ok {
				found[rec.Sequence] = rec
			}
		}
		for len(all) > 0 && all[0] <= passed {
			all = all[1:]
		}
	}
	return found, nil
}

// decode returns the event of a record that records found; one with only its
// sequence when it did not.
func (s *Service) decode(found map[uint64]eventlog.Record, sequence uint64, raw bool) (e *sluicev1.Event, held bool) {
	if rec, ok := found[sequence]; ok {
		if e, err := record.Decode(rec.Data, rec.Sequence, s.events.Epoch(), raw); err == nil {
			return e, true
		}
	}
	return &sluicev1.Event{Sequence: sequence}, false
}
