package group

import (
	"context"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/subscription"
)

// selectEvent returns what a scheduler is to know of the event in rec; false
// when the filter does not select it.
func (s *Service) selectEvent(rec eventlog.Record, filter *subscription.Filter) (schedule.Event, bool) {
	labels, ok := record.ParseSubject(rec.Subject)
	if ok && !filter.MatchLabels(labels) {
		return schedule.Event{}, false
	}
	o, ok, err := s.outline(rec, filter)
	if err != nil {
		s.logger.Error("an event of the log cannot be read, consumer groups pass it over", "sequence", rec.Sequence, "err", err)
	}
	if !ok {
		return schedule.Event{}, false
	}
	return schedule.Event{
		Sequence: rec.Sequence,
		Chat:     schedule.ChatID(o.ChatKey),
		Received: o.Received,
		Sent:     o.Sent,
		Size:     len(rec.Data),
		Revises:  o.RevisionOf,
	}, true
}

// outline returns the outline of the event in rec, whose subject the filter
// admits, and whether the filter selects it. The event is only decoded when the
// filter asks for more than its subject says.
func (s *Service) outline(rec eventlog.Record, filter *subscription.Filter) (record.Outline, bool, error) {
	if !filter.ByLabels() {
		e, err := record.Decode(rec.Data, rec.Sequence, s.events.Epoch(), false)
		if err != nil || !filter.Match(e) {
			return record.Outline{}, false, err
		}
	}
	o, err := record.ParseOutline(rec.Data)
	return o, err == nil, err
}

// scan calls visit for each event from the one at first to the one at last that
// the filter selects. last must be durable.
func (s *Service) scan(ctx context.Context, filter *subscription.Filter, first, last uint64, visit func(schedule.Event)) error {
	return readSpan(ctx, s.events, max(first, 1), last, func(records []eventlog.Record) {
		for _, rec := range records {
			if e, ok := s.selectEvent(rec, filter); ok {
				visit(e)
			}
		}
	})
}

// decode returns the event of a record that was found; one with only its sequence
// when it was not.
func (s *Service) decode(found map[uint64]eventlog.Record, sequence uint64, raw bool) *sluicev1.Event {
	if rec, ok := found[sequence]; ok {
		if e, err := record.Decode(rec.Data, rec.Sequence, s.events.Epoch(), raw); err == nil {
			return e
		}
	}
	return &sluicev1.Event{Sequence: sequence}
}
