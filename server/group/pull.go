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

	// catchUpWait bounds how long a pull that does not wait is held until the
	// group has read what was in the log when it came.
	catchUpWait = time.Second
)

// Pull implements ConsumerService.
func (s *Service) Pull(ctx context.Context, req *sluicev1.PullRequest) (*sluicev1.PullResponse, error) {
	r, err := s.group(ctx, req.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	if s.isDraining() {
		return nil, apierror.Draining()
	}
	if err := checkPull(req); err != nil {
		return nil, err
	}
	patience, end := req.GetWait().AsDuration(), s.events.Durable()
	if patience == 0 { // what is in the log is to come even so
		patience = catchUpWait
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		p := newPull(req, end)
		if err := r.pull(ctx, wait, p); err != nil {
			return nil, err
		}
		res := &sluicev1.PullResponse{}
		if res.Deliveries, err = r.deliveries(ctx, p.deliveries, req.GetIncludeRaw()); err != nil {
			r.release(ctx, p.deliveries)
			return nil, err
		}
		// When all that came was removed from the log, it is as if nothing had.
		removed := len(p.deliveries) > 0 && len(res.Deliveries) == 0
		if !removed || wait.Err() != nil || s.isDraining() {
			return res, nil
		}
	}
}

// pull serves p: it returns when something has come, or wait has ended.
func (r *runner) pull(ctx, wait context.Context, p *pull) error {
	if err := r.call(ctx, func(c *core) error { return c.pull(p) }); err != nil {
		r.giveUp(ctx, p)
		return err
	}
	select {
	case err := <-p.done:
		return err
	case <-wait.Done(): // or ctx
	case <-r.service.draining:
	case <-r.stopped:
	}
	return r.stopWaiting(ctx, p)
}

// checkPull reports what is wrong with a request.
func checkPull(req *sluicev1.PullRequest) error {
	switch {
	case req.GetMaxEvents() > maxPullEvents:
		return apierror.InvalidField("max_events", "must not be more than %d", maxPullEvents)
	case req.GetMaxBytes() > maxPullBytes:
		return apierror.InvalidField("max_bytes", "must not be more than %d", maxPullBytes)
	case req.GetWait() != nil:
		if err := checkDuration(req.GetWait(), maxPullWait, "wait"); err != nil {
			return err
		}
	}
	return checkMember(req.GetMember(), "member")
}

func newPull(req *sluicev1.PullRequest, end uint64) *pull {
	p := &pull{
		member: req.GetMember(),
		events: max(1, int(req.GetMaxEvents())),
		bytes:  maxPullBytes,
		waits:  req.GetWait().AsDuration() > 0,
		end:    end,
		done:   make(chan error, 1),
	}
	if n := req.GetMaxBytes(); n > 0 {
		p.bytes = int(min(n, maxPullBytes))
	}
	return p
}

// stopWaiting ends a pull, and returns once nothing more can come for it.
func (r *runner) stopWaiting(ctx context.Context, p *pull) error {
	err := r.post(ctx, input{do: func(*core) error { p.ended = true; return nil }})
	if err != nil {
		r.giveUp(ctx, p)
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
