package group

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/record"
)

// An assembled is a delivery with what the log has of its events.
type assembled struct {
	schedule.Delivery

	events  []*sluicev1.Event // in the form of record.Undecoded
	damaged []uint64
	gone    bool // the lease ended because of what is damaged
}

// deliveries returns deliveries as clients see them, with their events in the
// form of record.Undecoded. Events that the log no longer holds are left out; a
// delivery of which nothing is left is settled. Events that are damaged become
// dead letters first.
func (r *runner) deliveries(ctx context.Context, all []schedule.Delivery, raw bool) ([]*sluicev1.Delivery, error) {
	var sequences []uint64
	for _, d := range all {
		sequences = append(sequences, d.Sequences...)
	}
	found, err := r.service.shelf.get(ctx, sequences)
	if err != nil {
		return nil, err
	}
	parts, removed := r.assemble(all, found, raw)
	if err := r.buryDamaged(ctx, parts, found); err != nil {
		return nil, err
	}
	out := make([]*sluicev1.Delivery, 0, len(all))
	var empty []uint64
	for i := range parts {
		switch d := &parts[i]; {
		case d.gone:
		case len(d.events) == 0:
			empty = append(empty, d.Lease)
		default:
			out = append(out, &sluicev1.Delivery{
				Lease:       leaseName(r.incarnation, d.Lease),
				Events:      d.events,
				Attempt:     uint32(d.Attempt), //nolint:gosec // small
				LeaseUntil:  timestamppb.New(d.Until),
				ChatFence:   d.Fence,
				LastFailure: failureProto(d.Failure),
				Origin:      sluicev1.Origin(d.Origin) + sluicev1.Origin_ORIGIN_LOG,
			})
		}
	}
	if removed > 0 {
		return out, r.dropRemoved(ctx, empty)
	}
	return out, nil
}

// assemble puts events into deliveries, and returns how many were removed.
func (r *runner) assemble(all []schedule.Delivery, found found, raw bool) (parts []assembled, removed int) {
	epoch := r.service.events.Epoch()
	parts = make([]assembled, len(all))
	for i := range all {
		d := &parts[i]
		d.Delivery = all[i]
		d.events = make([]*sluicev1.Event, 0, len(d.Sequences))
		for _, sequence := range d.Sequences {
			rec, held := found.records[sequence]
			if !held {
				if found.damaged[sequence] != nil {
					d.damaged = append(d.damaged, sequence)
				} else {
					removed++
				}
				continue
			}
			e, err := record.Undecoded(rec.Data, record.Cursor{Epoch: epoch, Sequence: sequence}, raw)
			if err != nil {
				found.damaged[sequence] = err
				d.damaged = append(d.damaged, sequence)
				continue
			}
			d.events = append(d.events, e)
		}
	}
	return parts, removed
}

// buryDamaged makes dead letters of what is damaged. It is stored when it
// returns: a member that settles what is left must not settle that, too.
func (r *runner) buryDamaged(ctx context.Context, parts []assembled, found found) error {
	var damaged []uint64
	for i := range parts {
		damaged = append(damaged, parts[i].damaged...)
	}
	if len(damaged) == 0 {
		return nil
	}
	slices.Sort(damaged)
	letters := 0
	err := r.call(ctx, func(c *core) error {
		for i := range parts {
			d := &parts[i]
			if len(d.damaged) == 0 {
				continue
			}
			n, out := c.scheduler.DamageLease(d.Lease, d.damaged)
			letters += n
			d.gone = !out
		}
		return nil
	})
	if err != nil {
		return err
	}
	if letters > 0 { // else there is no room for them: the status says so
		r.service.metrics.damaged.WithLabelValues(r.name).Add(float64(letters))
		r.reportDamage(damaged[0], damaged[len(damaged)-1], found.damaged[damaged[0]])
	}
	return nil
}

// reportDamage logs that events from first to last cannot be read.
func (r *runner) reportDamage(first, last uint64, err error) {
	r.service.logger.Error("events cannot be read: they become dead letters of a consumer group, and it goes on without them",
		"group", r.name, "first_sequence", first, "last_sequence", last, "err", err)
}

// dropRemoved settles what retention has removed, so that it does not come one
// by one.
func (r *runner) dropRemoved(ctx context.Context, leases []uint64) error {
	first := r.service.events.State().First
	return r.post(ctx, input{do: func(c *core) error {
		before := c.scheduler.Unsettled()
		for _, id := range leases {
			c.scheduler.Settle(id, schedule.Verdict{Kind: schedule.Ack})
		}
		r.service.metrics.removed.WithLabelValues(r.name).Add(float64(before - c.scheduler.Unsettled()))
		c.truncate(min(first, c.scheduler.Position()+1)) // which counts the rest
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
