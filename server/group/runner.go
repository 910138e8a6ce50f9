package group

import (
	"context"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
)

// maxInputs is how many inputs of a group wait, and how many go into one write
// of its journal.
const maxInputs = 1024

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
// all others hand it inputs. While another gateway leads the group there is no
// state, and inputs are refused. Everything but run is safe for concurrent use.
type runner struct {
	service     *Service
	name        string
	incarnation uint64
	first       uint64 // sequence of the first event it comes to
	epoch       string // of the log of events, when first was chosen

	inputs  chan input
	stopped chan struct{}   // closed when run has ended
	ctx     context.Context //nolint:containedctx // of the goroutine
	cancel  context.CancelFunc

	mu      sync.Mutex
	group   *sluicev1.ConsumerGroup // never modified, only replaced
	leading bool

	broken atomic.Bool // the group stands still: its journal is damaged

	reconfiguring sync.Mutex // held by reconfigure
}

func newRunner(s *Service, e entry) *runner {
	r := &runner{
		service:     s,
		name:        e.group.GetName(),
		incarnation: e.incarnation,
		first:       e.first,
		epoch:       e.epoch,
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

// setConfiguration has the group take over a configuration. It does not wait for
// it: reconfigure does.
func (r *runner) setConfiguration(g *sluicev1.ConsumerGroup) {
	r.mu.Lock()
	same := proto.Equal(g, r.group)
	r.group = g
	r.mu.Unlock()
	if same || !r.leads() { // who comes to lead takes over what there is
		return
	}
	r.service.running.Go(func() {
		if err := r.reconfigure(r.ctx); err != nil && r.ctx.Err() == nil {
			r.service.logger.Warn("a consumer group has not taken over its configuration yet", "group", r.name, "err", err)
		}
	})
}

// ended is the error of calls on a group that has stopped.
func (r *runner) ended() error {
	if r.service.ctx.Err() != nil {
		return apierror.Draining()
	}
	return notFound(r.name)
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
