package group

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/failpoint"
	"github.com/sluicegate/sluice/server/group/schedule"
)

const (
	maxItems  = 1000
	maxReason = 4096
)

// A settlement is one that was checked.
type settlement struct {
	name    string
	lease   uint64
	verdict schedule.Verdict
	kind    string // for the metrics; "" for one that ends nothing
}

// Settle implements ConsumerService.
func (s *Service) Settle(ctx context.Context, req *sluicev1.SettleRequest) (*sluicev1.SettleResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	if len(req.GetItems()) == 0 {
		return nil, apierror.InvalidField("items", "must not be empty")
	}
	batch, err := r.settlements(req.GetItems())
	if err != nil {
		return nil, err
	}
	var results []*sluicev1.SettlementResult
	err = r.call(ctx, func(c *core) error {
		results = c.settle(batch)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sluicev1.SettleResponse{Items: results}, nil
}

// settlements checks a batch.
func (r *runner) settlements(items []*sluicev1.Settlement) ([]settlement, error) {
	if len(items) > maxItems {
		return nil, apierror.InvalidField("items", "must not be more than %d", maxItems)
	}
	batch := make([]settlement, len(items))
	for i, item := range items {
		lease, err := r.lease(item.GetLease(), i)
		if err != nil {
			return nil, err
		}
		batch[i] = settlement{name: item.GetLease(), lease: lease}
		if err := batch[i].judge(item, fmt.Sprintf("items[%d].", i)); err != nil {
			return nil, err
		}
	}
	return batch, nil
}

// judge sets the verdict.
func (s *settlement) judge(item *sluicev1.Settlement, field string) error {
	switch v := item.GetVerdict().(type) {
	case *sluicev1.Settlement_Ack:
		s.verdict, s.kind = schedule.Verdict{Kind: schedule.Ack}, endedAck
	case *sluicev1.Settlement_Nack:
		s.verdict, s.kind = schedule.Verdict{Kind: schedule.Nack, Reason: v.Nack.GetReason()}, endedNack
		if d := v.Nack.GetDelay(); d != nil {
			if err := checkDuration(d, day, field+"nack.delay"); err != nil {
				return err
			}
			delay := d.AsDuration()
			s.verdict.Delay = &delay
		}
		return checkReason(v.Nack.GetReason(), field+"nack.reason")
	case *sluicev1.Settlement_Release:
		s.verdict, s.kind = schedule.Verdict{Kind: schedule.Release, NotMe: v.Release.GetNotMe()}, endedRelease
	case *sluicev1.Settlement_Park:
		s.verdict, s.kind = schedule.Verdict{Kind: schedule.Park, Reason: v.Park.GetReason()}, endedPark
		return checkReason(v.Park.GetReason(), field+"park.reason")
	case *sluicev1.Settlement_Extend:
		s.verdict = schedule.Verdict{Kind: schedule.Extend, By: v.Extend.GetBy().AsDuration()}
		if d := v.Extend.GetBy(); d != nil {
			return checkDuration(d, 12*time.Hour, field+"extend.by")
		}
	default:
		return apierror.InvalidField(field+"verdict", "must be set")
	}
	return nil
}

func checkDuration(d *durationpb.Duration, most time.Duration, field string) error {
	if v := d.AsDuration(); d.CheckValid() != nil || v < 0 || v > most {
		return apierror.InvalidField(field, "must be from 0s to %v", most)
	}
	return nil
}

func checkReason(reason, field string) error {
	if len(reason) > maxReason {
		return apierror.InvalidField(field, "must not be longer than %d bytes", maxReason)
	}
	return nil
}

// settle takes a batch of verdicts, and returns what becomes of them.
func (c *core) settle(batch []settlement) []*sluicev1.SettlementResult {
	_ = failpoint.Hit("after-deliver-before-ack")
	results := make([]*sluicev1.SettlementResult, len(batch))
	for i, item := range batch {
		outcome := c.scheduler.Settle(item.lease, item.verdict)
		results[i] = &sluicev1.SettlementResult{Lease: item.name, Outcome: outcomes[outcome]}
		switch {
		case outcome != schedule.Done:
		case item.verdict.Kind == schedule.Extend:
			results[i].LeaseUntil = timestamppb.New(c.scheduler.Until(item.lease))
		default:
			c.counts.ended[item.kind].Inc()
		}
	}
	return results
}

var outcomes = map[schedule.Outcome]sluicev1.Outcome{
	schedule.Done:         sluicev1.Outcome_OUTCOME_DONE,
	schedule.AlreadyDone:  sluicev1.Outcome_OUTCOME_ALREADY_DONE,
	schedule.LeaseLost:    sluicev1.Outcome_OUTCOME_LEASE_LOST,
	schedule.UnknownLease: sluicev1.Outcome_OUTCOME_UNKNOWN_LEASE,
}

// unknownOutcomes answers a batch that may or may not have been stored.
func unknownOutcomes(batch []settlement) []*sluicev1.SettlementResult {
	results := make([]*sluicev1.SettlementResult, len(batch))
	for i, item := range batch {
		results[i] = &sluicev1.SettlementResult{Lease: item.name, Outcome: sluicev1.Outcome_OUTCOME_RETRY}
	}
	return results
}
