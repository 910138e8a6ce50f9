package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const (
	// leaveTimeout bounds each part of leaving: the end of the stream, and the
	// call for what is left.
	leaveTimeout = 5 * time.Second

	// maxSettlements is how many verdicts a request may hold.
	maxSettlements = 1000
)

// A member is one call of Consume. What it knows belongs to the goroutine of
// that call; a handler has one of its own, and so has the receiving side of a
// session.
type member struct {
	client   *Client
	group    string
	handle   Handler
	opts     ConsumeOptions
	settings *sluicev1.ConsumerGroup // of the group, when the session began

	held     map[string]*work   // by lease: what the server counts as held
	surplus  int                // events that are held beyond one for each work
	waiting  []*work            // what no handler has begun, in order of arrival
	handling map[*work]struct{} // what handlers have
	busy     map[string]bool    // chains of which one is handled, or failed and not stored
	running  int                // handlers
	finished chan *work         // from the handlers

	unsent   []*work // verdicts to send
	refused  []*work // verdicts to send again after a while
	refusals int     // in a row

	stopping bool             // nothing more is taken
	overdue  bool             // handlers were told to end
	deadline <-chan time.Time // when they are
}

// run attends session after session until the context ends or trying again is
// useless, and returns once all handlers have.
func (m *member) run(ctx context.Context) error {
	for failures := 1; ; failures++ {
		progress, err := m.attend(ctx)
		switch {
		case m.left():
			return m.leave(ctx)
		case !retryable(err), isReplaced(err):
			m.abandon(err)
			return err
		case progress:
			failures = 1
		}
		pause := wait(failures, err)
		if m.opts.OnDisconnect != nil {
			m.opts.OnDisconnect(err, pause)
		}
		m.rest(ctx, pause)
		if m.left() {
			return m.leave(ctx)
		}
	}
}

// isReplaced reports whether another member has taken the name over. Coming
// back would throw that one out.
func isReplaced(err error) bool {
	reason, _ := Reason(err)
	return reason == sluicev1.ErrorReason_ERROR_REASON_MEMBER_REPLACED
}

// left reports whether there is nothing more to handle.
func (m *member) left() bool { return m.stopping && m.running == 0 }

// attend opens a session and works until it ends, or there is nothing more to
// handle. progress says whether the session led anywhere.
func (m *member) attend(ctx context.Context) (progress bool, err error) {
	s := m.connect(ctx)
	defer s.end()
	var beats, extensions, again <-chan time.Time
	var granted *sluicev1.Credits
	for {
		select {
		case res, ok := <-s.frames:
			if !ok {
				return progress, s.err
			}
			if o := res.GetOpened(); o != nil {
				m.opened(s, o)
				beats = s.every(s.heartbeat)
				if lease := m.settings.GetLease(); !lease.GetExtendWhileConnected() {
					extensions = s.every(lease.GetDuration().AsDuration() / 3)
				}
				break
			}
			progress = true
			if err := m.receive(res); err != nil {
				return progress, err
			}
		case w := <-m.finished:
			m.finish(w)
			m.reap()
		case <-beats:
			s.send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Heartbeat{Heartbeat: &sluicev1.ConsumeHeartbeat{}}})
		case <-extensions:
			s.settle(m.extensions())
		case <-again:
			m.unsent, m.refused, again = append(m.unsent, m.refused...), nil, nil
		case <-m.ended(ctx):
			m.stop()
		case <-m.deadline:
			m.hurry()
		}
		if !s.open {
			if m.left() {
				return progress, nil
			}
			continue
		}
		m.begin(ctx)
		s.settle(m.verdicts())
		if c := m.credits(); !proto.Equal(c, granted) {
			granted = c
			s.send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Credits{Credits: c}})
		}
		if len(m.refused) > 0 && again == nil {
			m.refusals++
			again = time.After(wait(m.refusals, nil))
		}
		if m.left() {
			m.finishSession(s)
			return progress, nil
		}
	}
}

// rest waits for d, or until there is nothing more to handle.
func (m *member) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for !m.left() {
		select {
		case <-timer.C:
			return
		case w := <-m.finished:
			m.finish(w)
		case <-m.ended(ctx):
			m.stop()
		case <-m.deadline:
			m.hurry()
		}
	}
}

// opened takes note of a session that has begun, and of what the server has of
// those before.
func (m *member) opened(s *session, o *sluicev1.ConsumeOpened) {
	s.open = true
	m.settings = s.settings
	if m.opts.OnConnect != nil {
		m.opts.OnConnect(o)
	}
	still := map[string]bool{}
	for _, h := range o.GetHeld() {
		still[h.GetLease()] = true
		if m.held[h.GetLease()] == nil { // it was lost on the way here
			w := &work{delivery: &sluicev1.Delivery{Lease: h.GetLease()}}
			m.hold(w)
			m.giveBack(w)
		}
	}
	m.unsent, m.refused = nil, nil
	for lease, w := range m.held {
		switch {
		case w.verdict != nil: // what was sent may not have arrived
			m.unsent = append(m.unsent, w)
		case !still[lease]:
			m.lose(w)
		}
	}
}

// receive takes note of a frame. Its error ends the session.
func (m *member) receive(res *sluicev1.ConsumeResponse) error {
	switch frame := res.GetFrame().(type) {
	case *sluicev1.ConsumeResponse_Deliveries:
		for _, d := range frame.Deliveries.GetDeliveries() {
			m.take(d)
		}
	case *sluicev1.ConsumeResponse_Settled:
		for _, r := range frame.Settled.GetItems() {
			m.settled(r)
		}
	case *sluicev1.ConsumeResponse_Revoked:
		for _, lease := range frame.Revoked.GetLeases() {
			if w := m.held[lease]; w != nil {
				m.lose(w)
			}
		}
	case *sluicev1.ConsumeResponse_GoingAway:
		return fmt.Errorf("the server is going away: %s", frame.GoingAway.GetReason())
	}
	return nil
}

// reap finishes what else has returned by now, so that one frame holds it all.
func (m *member) reap() {
	for {
		select {
		case w := <-m.finished:
			m.finish(w)
		default:
			return
		}
	}
}

// verdicts returns those that are to be sent, and counts them as sent.
func (m *member) verdicts() []*sluicev1.Settlement {
	var items []*sluicev1.Settlement
	for _, w := range m.unsent {
		w.sends++
		items = append(items, w.verdict)
	}
	m.unsent = nil
	return items
}

// extensions returns what keeps the leases of all that has no verdict yet.
func (m *member) extensions() []*sluicev1.Settlement {
	var items []*sluicev1.Settlement
	for lease, w := range m.held {
		if w.verdict == nil {
			items = append(items, &sluicev1.Settlement{Lease: lease, Verdict: &sluicev1.Settlement_Extend{Extend: &sluicev1.Extend{}}})
		}
	}
	return items
}

// ended returns what says that the context has ended; nil once that is known.
func (m *member) ended(ctx context.Context) <-chan struct{} {
	if m.stopping {
		return nil
	}
	return ctx.Done()
}

// stop takes nothing more, gives back what waits, and gives the handlers their
// time.
func (m *member) stop() {
	m.stopping = true
	for _, w := range slices.Clone(m.waiting) {
		m.giveBack(w)
	}
	m.deadline = time.After(m.opts.DrainTimeout)
}

// hurry tells the handlers to end.
func (m *member) hurry() {
	m.overdue = true
	for w := range m.handling {
		w.cancel(ErrDrained)
	}
}

// abandon tells the handlers to end because of err, and waits for them.
func (m *member) abandon(err error) {
	for w := range m.handling {
		w.cancel(err)
	}
	for m.running > 0 {
		<-m.finished
		m.running--
	}
}

// finishSession closes the sending side, and takes what the server has to say to
// what was sent.
func (m *member) finishSession(s *session) {
	defer time.AfterFunc(leaveTimeout, s.cut).Stop()
	s.closeSend()
	for res := range s.frames {
		if m.receive(res) != nil {
			return
		}
	}
}

// leave settles by a call what no session has settled, and returns why the
// member left.
func (m *member) leave(ctx context.Context) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	var items []*sluicev1.Settlement
	for _, w := range m.held {
		w.sends++
		items = append(items, w.verdict)
	}
	for batch := range slices.Chunk(items, maxSettlements) {
		req := &sluicev1.SettleRequest{ConsumerGroupId: m.group, Items: batch}
		res, err := sluicev1.NewConsumerServiceClient(m.client.conn).Settle(ctx, req)
		if err != nil {
			return fmt.Errorf("%w; %d deliveries not settled: %w", cause, len(m.held), err)
		}
		for _, r := range res.GetItems() {
			m.settled(r)
		}
	}
	if len(m.held) > 0 {
		return fmt.Errorf("%w; %d deliveries not settled", cause, len(m.held))
	}
	return cause
}
