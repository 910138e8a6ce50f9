package group

import (
	"context"
	"errors"
	"sync"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

// maxInputs is how many inputs of a group wait, and how many go into one write
// of its journal.
const maxInputs = 1024

// restDelay is how long a group whose storage failed refuses calls before it
// tries again.
const restDelay = 500 * time.Millisecond

// An input is something that is to be done to a group's state.
type input struct {
	// do changes the state. It must not keep it, and must not block for long.
	do func(*core) error

	// after is called once, with the error of do when what do has changed is on
	// stable storage, or with the reason why nobody knows whether it is. It must
	// not block. nil is nothing.
	after func(error)
}

// A runner is a group. Its goroutine is the only one that touches its state;
// all others hand it inputs. Everything but run is safe for concurrent use.
type runner struct {
	service     *Service
	name        string
	incarnation uint64
	first       uint64 // sequence of the first event it comes to

	inputs  chan input
	stopped chan struct{}   // closed when run has ended
	ctx     context.Context //nolint:containedctx // of the goroutine
	cancel  context.CancelFunc

	mu    sync.Mutex
	group *sluicev1.ConsumerGroup // never modified, only replaced
}

func newRunner(s *Service, e entry) *runner {
	r := &runner{
		service:     s,
		name:        e.group.GetName(),
		incarnation: e.incarnation,
		first:       e.first,
		inputs:      make(chan input, maxInputs),
		stopped:     make(chan struct{}),
		group:       e.group,
	}
	r.ctx, r.cancel = context.WithCancel(s.ctx)
	return r
}

// configuration returns the configuration of the group.
func (r *runner) configuration() *sluicev1.ConsumerGroup {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.group
}

func (r *runner) setConfiguration(g *sluicev1.ConsumerGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.group = g
}

// ended is the error of calls on a group that has stopped.
func (r *runner) ended() error {
	if r.service.ctx.Err() != nil {
		return apierror.Draining()
	}
	return notFound(r.name)
}

// run leads the group until its context ends. When the storage fails it drops
// the state, which may differ from what is stored, and reads it again.
func (r *runner) run() {
	defer close(r.stopped)
	defer r.cancel()
	for r.ctx.Err() == nil {
		err := r.lead()
		if r.ctx.Err() != nil {
			return
		}
		r.service.logger.Warn("a consumer group cannot go on, reading it again", "group", r.name, "err", err)
		if errors.Is(err, errDiverged) {
			continue
		}
		r.rest(err)
	}
}

// lead reads the group's state and serves it until something fails.
func (r *runner) lead() error {
	c, err := r.load(r.ctx)
	if err != nil {
		return err
	}
	err = c.serve(r.ctx)
	if r.ctx.Err() != nil {
		c.close(r.ended())
	} else {
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
func (r *runner) rest(reason error) {
	reason = unavailable(reason)
	t := time.NewTimer(restDelay)
	defer t.Stop()
	for {
		select {
		case in := <-r.inputs:
			in.finish(reason)
		case <-t.C:
			return
		case <-r.ctx.Done():
			return
		}
	}
}

func (in input) finish(err error) {
	if in.after != nil {
		in.after(err)
	}
}

// post hands the group an input. When it returns an error, after is never
// called; it may not be called either when the group stops meanwhile.
func (r *runner) post(ctx context.Context, in input) error {
	select {
	case r.inputs <- in:
		return nil
	case <-r.stopped:
		return r.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call has do done to the group's state. When it returns nil, what do has
// changed is on stable storage; the error is that of do, or says why nobody
// knows.
func (r *runner) call(ctx context.Context, do func(*core) error) error {
	done := make(chan error, 1) // one place: the runner never waits for the caller
	err := r.post(ctx, input{do: do, after: func(err error) { done <- err }})
	if err != nil {
		return err
	}
	select {
	case err = <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-r.stopped:
	}
	select {
	case err = <-done: // it was the last thing that it did
		return err
	default:
		return r.ended()
	}
}
