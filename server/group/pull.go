package group

import (
	"context"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/group/schedule"
)

const (
	maxPullEvents = 1000
	maxPullBytes  = 3 << 20
	maxPullWait   = time.Minute
)

// Pull implements ConsumerService.
func (s *Service) Pull(ctx context.Context, req *sluicev1.PullRequest) (*sluicev1.PullResponse, error) {
	r, err := s.group(req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	if s.isDraining() {
		return nil, apierror.Draining()
	}
	p, err := newPull(req)
	if err != nil {
		return nil, err
	}
	if err := r.call(ctx, func(c *core) error { return c.pull(p) }); err != nil {
		r.giveUp(ctx, p)
		return nil, err
	}
	wait := time.NewTimer(req.GetWait().AsDuration())
	defer wait.Stop()
	select {
	case err = <-p.done:
	case <-wait.C:
		err = r.stopWaiting(ctx, p)
	case <-s.draining:
		err = r.stopWaiting(ctx, p)
	case <-ctx.Done():
		r.giveUp(ctx, p)
		return nil, ctx.Err()
	case <-r.stopped:
		err = r.ended()
	}
	if err != nil {
		return nil, err
	}
	res := &sluicev1.PullResponse{}
	if res.Deliveries, err = r.deliveries(ctx, p.deliveries, req.GetIncludeRaw()); err != nil {
		r.release(ctx, p.deliveries)
		return nil, err
	}
	return res, nil
}

func newPull(req *sluicev1.PullRequest) (*pull, error) {
	p := &pull{
		member: req.GetMember(),
		events: max(1, int(req.GetMaxEvents())),
		bytes:  maxPullBytes,
		ended:  req.GetWait().AsDuration() == 0,
		done:   make(chan error, 1),
	}
	if err := checkMember(p.member, "member"); err != nil {
		return nil, err
	}
	if p.events > maxPullEvents {
		return nil, apierror.InvalidField("max_events", "must not be more than %d", maxPullEvents)
	}
	switch n := req.GetMaxBytes(); {
	case n > maxPullBytes:
		return nil, apierror.InvalidField("max_bytes", "must not be more than %d", maxPullBytes)
	case n > 0:
		p.bytes = int(n)
	}
	if d := req.GetWait(); d != nil {
		if err := checkDuration(d, maxPullWait, "wait"); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// stopWaiting ends a pull, and returns once nothing more can come for it.
func (r *runner) stopWaiting(ctx context.Context, p *pull) error {
	err := r.post(ctx, input{do: func(*core) error { p.ended = true; return nil }})
	if err != nil {
		return err
	}
	select {
	case err = <-p.done:
		return err
	case <-ctx.Done():
		r.giveUp(ctx, p)
		return ctx.Err()
	case <-r.stopped:
		return r.ended()
	}
}

// giveUp ends a pull whose caller has gone. What came for it, or comes all the
// same, is given back.
func (r *runner) giveUp(ctx context.Context, p *pull) {
	_ = r.post(context.WithoutCancel(ctx), input{do: func(c *core) error {
		p.ended, p.gone = true, true
		if p.over {
			c.giveBack(p.deliveries)
		}
		return nil
	}})
}

// release gives deliveries back that could not be handed over.
func (r *runner) release(ctx context.Context, all []schedule.Delivery) {
	_ = r.post(context.WithoutCancel(ctx), input{do: func(c *core) error {
		c.giveBack(all)
		return nil
	}})
}
