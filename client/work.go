package client

import (
	"context"
	"slices"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A work is one delivery on its way through a member: it waits, is handled, and
// has a verdict that waits to be stored.
type work struct {
	delivery *sluicev1.Delivery
	chain    string // works of one chain are handled one after the other

	cancel  context.CancelCauseFunc // nil before it is handled
	lost    bool                    // the lease was lost while it was handled
	err     error                   // what the handler returned; not to be read before it has
	verdict *sluicev1.Settlement    // nil until it was handled
	sends   int                     // how often the verdict was sent
	untried bool                    // it is given back, whatever comes of that
}

// ack reports whether the verdict is one.
func (w *work) ack() bool { return w.verdict.GetAck() != nil }

// take adds a delivery to what waits.
func (m *member) take(d *sluicev1.Delivery) {
	if m.held[d.GetLease()] != nil {
		return
	}
	w := &work{delivery: d, chain: m.chainOf(d)}
	m.hold(w)
	if m.stopping {
		m.giveBack(w)
		return
	}
	m.waiting = append(m.waiting, w)
}

// hold adds a work to what is held.
func (m *member) hold(w *work) {
	m.held[w.delivery.GetLease()] = w
	m.surplus += max(0, len(w.delivery.GetEvents())-1)
}

// drop removes a work from what is held.
func (m *member) drop(w *work) {
	delete(m.held, w.delivery.GetLease())
	m.surplus -= max(0, len(w.delivery.GetEvents())-1)
}

// chainOf names what d must be handled in order with.
func (m *member) chainOf(d *sluicev1.Delivery) string {
	switch m.settings.GetOrder() {
	case sluicev1.Order_ORDER_NONE:
		return d.GetLease()
	case sluicev1.Order_ORDER_TOTAL:
		return ""
	default:
		return d.GetEvents()[0].GetChatKey()
	}
}

// begin starts handlers for what waits, as far as it may.
func (m *member) begin(ctx context.Context) {
	for i := 0; i < len(m.waiting) && m.running < m.opts.Concurrency; {
		w := m.waiting[i]
		if m.busy[w.chain] {
			i++
			continue
		}
		m.waiting = slices.Delete(m.waiting, i, i+1)
		m.busy[w.chain] = true
		m.running++
		// The handler ends when the member says so, which outlives its context.
		handling, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		w.cancel = cancel
		m.handling[w] = struct{}{}
		go func() {
			w.err = m.handle(handling, w.delivery)
			m.finished <- w
		}()
	}
}

// finish takes note of a handler that has returned.
func (m *member) finish(w *work) {
	m.running--
	delete(m.handling, w)
	w.cancel(nil)
	if w.lost {
		delete(m.busy, w.chain)
		m.unsettled(w, sluicev1.Outcome_OUTCOME_LEASE_LOST)
		return
	}
	w.verdict = verdict(w.delivery.GetLease(), w.err, m.overdue)
	m.unsent = append(m.unsent, w)
	if w.ack() {
		delete(m.busy, w.chain)
		return
	}
	// What follows in the chat comes after it again: the server takes that back,
	// and until the verdict is stored nothing of the chat may begin.
	for _, next := range slices.Clone(m.waiting) {
		if next.chain == w.chain {
			m.giveBack(next)
		}
	}
}

// giveBack releases what waits.
func (m *member) giveBack(w *work) {
	m.waiting = slices.DeleteFunc(m.waiting, func(other *work) bool { return other == w })
	w.untried = true
	w.verdict = verdict(w.delivery.GetLease(), &ReleaseError{}, false)
	m.unsent = append(m.unsent, w)
}

// lose drops a delivery that is somebody else's by now. One with a verdict has
// its outcome to come, which says so.
func (m *member) lose(w *work) {
	if w.verdict != nil {
		return
	}
	m.drop(w)
	if w.cancel == nil {
		m.waiting = slices.DeleteFunc(m.waiting, func(other *work) bool { return other == w })
		return
	}
	w.lost = true
	w.cancel(ErrLeaseLost)
}

// settled takes note of what became of a verdict, or of an extension.
func (m *member) settled(r *sluicev1.SettlementResult) {
	w := m.held[r.GetLease()]
	switch {
	case w == nil, r.GetLeaseUntil() != nil: // an extension
	case w.verdict == nil:
		if r.GetOutcome() != sluicev1.Outcome_OUTCOME_RETRY {
			m.lose(w) // it could not be extended
		}
	case r.GetOutcome() == sluicev1.Outcome_OUTCOME_RETRY:
		m.refused = append(m.refused, w)
	default:
		m.refusals = 0
		m.drop(w)
		if !w.untried && !w.ack() {
			delete(m.busy, w.chain)
		}
		// A verdict that was sent twice may have taken effect the first time.
		again := w.sends > 1 && r.GetOutcome() == sluicev1.Outcome_OUTCOME_ALREADY_DONE
		if r.GetOutcome() != sluicev1.Outcome_OUTCOME_DONE && !again && !w.untried {
			m.unsettled(w, r.GetOutcome())
		}
	}
}

// unsettled reports a verdict that took no effect.
func (m *member) unsettled(w *work, outcome sluicev1.Outcome) {
	if m.opts.OnUnsettled != nil {
		m.opts.OnUnsettled(w.delivery, outcome)
	}
}

// credits returns what the member is ready to hold: so many deliveries that
// every one may hold a turn.
func (m *member) credits() *sluicev1.Credits {
	const most = 100_000
	if m.stopping {
		return &sluicev1.Credits{}
	}
	events := m.opts.Concurrency + max(0, m.opts.Prefetch) + m.surplus
	return &sluicev1.Credits{Events: uint32(min(events, most)), Bytes: m.opts.MaxBytes} //nolint:gosec // bounded
}
