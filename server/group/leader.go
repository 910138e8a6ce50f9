package group

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
)

const (
	// restDelay is how long a group whose storage failed refuses calls before it
	// tries again.
	restDelay = 500 * time.Millisecond

	// damagedDelay is how long a group whose journal is damaged stands still
	// before it reads it again: somebody may have restored it.
	damagedDelay = time.Minute

	// releaseTimeout bounds how long it takes to tell others that they may lead.
	releaseTimeout = 2 * time.Second

	// noLeaderDelay is how long a client should wait for a group that nobody
	// leads.
	noLeaderDelay = time.Second
)

// errDeposed reports that the lease of a group ran out.
var errDeposed = errors.New("the group may have another leader")

// leaseKey is the name of a group's lease.
func (r *runner) leaseKey() string { return fmt.Sprintf("%016x", r.incarnation) }

// leads says whether this gateway leads the group, as far as it knows.
func (r *runner) leads() bool {
	if r.service.leases == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leading
}

func (r *runner) setLeading(leading bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leading = leading
}

// leader returns the address of the other gateway that leads the group; "" when
// this one does, or none is known to.
func (r *runner) leader() string {
	if r.leads() {
		return ""
	}
	address, own := r.service.leases.Holder(r.leaseKey())
	if own {
		return ""
	}
	return address
}

// run leads the group whenever it may, until its context ends.
func (r *runner) run() {
	defer close(r.stopped)
	defer r.cancel()
	for r.ctx.Err() == nil {
		if r.service.leases == nil {
			r.lead(nil)
		} else if lease := r.follow(); lease != nil {
			r.lead(lease)
		}
	}
}

// follow refuses what comes until the group's lease is ours. nil is that the
// group has ended. Once the server drains it leads no more.
func (r *runner) follow() *cluster.Lease {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	won := make(chan *cluster.Lease, 1) // one place: exactly one is sent
	go func() {
		lease, _ := r.service.leases.Acquire(ctx, r.leaseKey()) // nil when ctx has ended
		won <- lease
	}()
	draining := r.service.draining
	for {
		select {
		case in := <-r.inputs:
			in.finish(r.noLeader())
		case <-draining:
			draining = nil // once
			cancel()
		case lease := <-won:
			if lease != nil && ctx.Err() != nil { // just before that
				release(lease)
				lease = nil
			}
			if lease == nil {
				r.refuse(r.noLeader(), r.ctx.Done())
			}
			return lease
		}
	}
}

// lead leads the group until its context ends or, when there is a lease, that is
// lost or the server drains. When the storage fails it drops the state, which
// may differ from what is stored, and reads it again.
func (r *runner) lead(lease *cluster.Lease) {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	if lease != nil {
		defer release(lease)
		watched := make(chan struct{})
		defer func() { cancel(); <-watched }()
		go func() {
			defer close(watched)
			select {
			case <-lease.Lost():
			case <-r.service.draining:
			case <-ctx.Done():
			}
			cancel()
		}()
		r.setLeading(true)
		defer r.setLeading(false)
		r.service.logger.Info("leading a consumer group", "group", r.name)
	}
	for {
		err := r.work(ctx, lease)
		if ctx.Err() != nil {
			return
		}
		if damaged := (*journalError)(nil); errors.As(err, &damaged) {
			r.standStill(ctx, damaged)
			continue
		}
		if isTooExpensive(err) {
			r.holdSoon(r.configuration().GetFilter())
		}
		r.service.logger.Warn("a consumer group cannot go on, reading it again", "group", r.name, "err", err)
		conflict := errors.Is(err, eventlog.ErrConflict)
		switch {
		case lease != nil && (conflict || !lease.Held()):
			return // another may lead already: the lease tells
		case !conflict:
			r.rest(ctx, err)
		}
	}
}

// release gives a lease up.
func release(lease *cluster.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	lease.Release(ctx)
}

// work reads the group's state and serves it until something fails.
func (r *runner) work(ctx context.Context, lease *cluster.Lease) error {
	c, err := r.load(ctx, lease)
	if err != nil {
		return err
	}
	r.broken.Store(false)
	err = c.serve(ctx)
	switch {
	case r.ctx.Err() != nil:
		c.close(r.ended())
	case ctx.Err() != nil:
		c.close(r.noLeader())
	default:
		c.close(unavailable(err))
	}
	return err
}

// unavailable is what calls return while a group cannot go on because of err.
func unavailable(err error) error {
	if errors.Is(err, eventlog.ErrFull) {
		return err
	}
	return errors.Join(eventlog.ErrUnavailable, err)
}

// rest refuses what comes, for a while.
func (r *runner) rest(ctx context.Context, reason error) {
	ctx, cancel := context.WithTimeout(ctx, restDelay)
	defer cancel()
	r.refuse(unavailable(reason), ctx.Done())
}

// standStill refuses what comes for a while, because of a damaged journal. The
// group does not begin anew: it would do what it has done again.
func (r *runner) standStill(ctx context.Context, damaged *journalError) {
	if !r.broken.Swap(true) {
		r.service.logger.Error("the journal of a consumer group is damaged, the group stands still: restore it, or delete the group and create it again with a start position",
			"group", r.name, "log", damaged.log, "first_record", damaged.first, "last_record", damaged.last,
			"position", damaged.position, "oldest_sequence", damaged.oldest, "err", damaged.err)
	}
	ctx, cancel := context.WithTimeout(ctx, damagedDelay)
	defer cancel()
	r.refuse(damaged.status(r.name), ctx.Done())
}

// refuse refuses what comes until done.
func (r *runner) refuse(reason error, done <-chan struct{}) {
	for {
		select {
		case in := <-r.inputs:
			in.finish(reason)
		case <-done:
			return
		}
	}
}

// noLeader is what calls return that find nobody who leads the group.
func (r *runner) noLeader() error {
	if r.service.isDraining() {
		return apierror.Draining()
	}
	return noLeader(r.name, nil)
}

func noLeader(group string, cause error) error {
	return &apierror.Error{
		Code:       codes.Unavailable,
		Reason:     sluicev1.ErrorReason_ERROR_REASON_GROUP_HAS_NO_LEADER,
		Message:    "no gateway that can be reached leads the consumer group at the moment",
		Metadata:   map[string]string{"group": group},
		RetryAfter: noLeaderDelay,
		Err:        cause,
	}
}
