package group

import (
	"context"
	"errors"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/subscription"
)

// selectEvent returns what a scheduler is to know of the event in rec; false
// when the filter does not select it. An event that does not decode is damaged:
// *eventlog.DamagedError. The other errors are those of Filter.Match.
func (s *Service) selectEvent(ctx context.Context, rec eventlog.Record, filter *subscription.Filter) (schedule.Event, bool, error) {
	o, ok, err := s.outline(ctx, rec, filter)
	if err != nil || !ok {
		return schedule.Event{}, false, err
	}
	return schedule.Event{
		Sequence: rec.Sequence,
		Chat:     schedule.ChatID(o.ChatKey),
		Received: o.Received,
		Sent:     o.Sent,
		Size:     len(rec.Data),
		Revises:  o.RevisionOf,
	}, true, nil
}

// outline returns the outline of the event in rec, and whether the filter selects
// it. The event is only decoded when the filter asks for more than the record
// says.
func (s *Service) outline(ctx context.Context, rec eventlog.Record, filter *subscription.Filter) (record.Outline, bool, error) {
	switch match, decided := filter.ByRecord(rec); {
	case decided && !match:
		return record.Outline{}, false, nil
	case !decided:
		ok, err := filter.Match(ctx, func() (*sluicev1.Event, error) {
			e, err := record.Decode(rec.Data, rec.Sequence, s.events.Epoch(), false)
			if err != nil {
				return nil, s.undecodable(rec, err)
			}
			return e, nil
		})
		if errors.Is(err, subscription.ErrEvaluation) {
			s.metrics.filterErrors.Inc()
			err = nil
		}
		if err != nil || !ok {
			return record.Outline{}, false, err
		}
	}
	o, err := record.ParseOutline(rec.Data)
	if err != nil {
		return o, false, s.undecodable(rec, err)
	}
	return o, true, nil
}

// scan calls visit for each event from the one at first to the one at last that
// the filter selects, and damaged for each range of those that cannot be read, in
// order. last must be durable.
func (s *Service) scan(ctx context.Context, filter *subscription.Filter, first, last uint64, visit func(schedule.Event), damaged func(*eventlog.DamagedError)) error {
	return scan(ctx, s.events, first, last, func(rec eventlog.Record) error {
		e, ok, err := s.selectEvent(ctx, rec, filter)
		switch d := (*eventlog.DamagedError)(nil); {
		case ok:
			visit(e)
		case errors.As(err, &d):
			damaged(d)
		case err != nil:
			return err
		}
		return nil
	}, func(d *eventlog.DamagedError) error {
		damaged(d)
		return nil
	})
}

// undecodable returns the error of a record that the storage can read and nobody
// can decode.
func (s *Service) undecodable(rec eventlog.Record, err error) *eventlog.DamagedError {
	return &eventlog.DamagedError{Log: s.events.Name(), First: rec.Sequence, Last: rec.Sequence, Err: err}
}

// scan calls visit for each record of l from the one at first to the one at
// last that is held, and damaged for what cannot be read of them, in order. It
// ends with the first error that either returns, or that is not damage. last must
// be durable.
func scan(ctx context.Context, l *eventlog.Log, first, last uint64, visit func(eventlog.Record) error, damaged func(*eventlog.DamagedError) error) error {
	for first <= last {
		err := l.Scan(ctx, first, last, visit)
		var d *eventlog.DamagedError
		if !errors.As(err, &d) {
			return err
		}
		part := *d
		part.First, part.Last = max(d.First, first), min(d.Last, last)
		if err := damaged(&part); err != nil {
			return err
		}
		first = d.Last + 1
	}
	return nil
}

// decode returns the event of a record that was found; one with only its sequence
// when it was not.
func (s *Service) decode(found found, sequence uint64, raw bool) *sluicev1.Event {
	if rec, ok := found.records[sequence]; ok {
		if e, err := record.Decode(rec.Data, rec.Sequence, s.events.Epoch(), raw); err == nil {
			return e
		}
	}
	return &sluicev1.Event{Sequence: sequence}
}
