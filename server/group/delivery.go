package group

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/record"
)

// deliveries returns deliveries as clients see them, with their events in the
// form of record.Undecoded. Events that the log no longer holds are left out; a
// delivery of which nothing is left is settled.
func (r *runner) deliveries(ctx context.Context, all []schedule.Delivery, raw bool) ([]*sluicev1.Delivery, error) {
	var sequences []uint64
	for _, d := range all {
		sequences = append(sequences, d.Sequences...)
	}
	found, err := r.service.shelf.get(ctx, sequences)
	if err != nil {
		return nil, err
	}
	epoch := r.service.events.Epoch()
	out := make([]*sluicev1.Delivery, 0, len(all))
	var empty []uint64
	missing := 0
	for _, d := range all {
		events := make([]*sluicev1.Event, 0, len(d.Sequences))
		for _, sequence := range d.Sequences {
			rec, held := found[sequence]
			if !held {
				continue
			}
			if e, err := record.Undecoded(rec.Data, sequence, epoch, raw); err == nil {
				events = append(events, e)
			}
		}
		missing += len(d.Sequences) - len(events)
		if len(events) == 0 {
			empty = append(empty, d.Lease)
			continue
		}
		out = append(out, &sluicev1.Delivery{
			Lease:       leaseName(r.incarnation, d.Lease),
			Events:      events,
			Attempt:     uint32(d.Attempt), //nolint:gosec // small
			LeaseUntil:  timestamppb.New(d.Until),
			ChatFence:   d.Fence,
			LastFailure: failureProto(d.Failure),
			Origin:      sluicev1.Origin(d.Origin) + sluicev1.Origin_ORIGIN_LOG,
		})
	}
	if missing > 0 {
		return out, r.dropRemoved(ctx, empty, missing)
	}
	return out, nil
}

// dropRemoved settles what retention has removed, so that it does not come one
// by one.
func (r *runner) dropRemoved(ctx context.Context, leases []uint64, events int) error {
	r.service.metrics.removed.WithLabelValues(r.name).Add(float64(events))
	state, err := r.service.events.State(ctx)
	if err != nil {
		return err
	}
	return r.post(ctx, input{do: func(c *core) error {
		for _, id := range leases {
			c.scheduler.Settle(id, schedule.Verdict{Kind: schedule.Ack})
		}
		c.scheduler.Truncate(min(state.First, c.scheduler.Position()+1))
		return nil
	}})
}

func failureProto(f *schedule.Failure) *sluicev1.Failure {
	if f == nil {
		return nil
	}
	return &sluicev1.Failure{
		Cause:       sluicev1.FailureCause(f.Cause),
		Reason:      f.Reason,
		Member:      f.Member,
		FailureTime: timestamppb.New(f.Time),
	}
}

// timeProto returns nil for the zero.
func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
