package schedule

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A lease is one delivery that a member has. It holds the events, so that a
// chat's waiting list is always what can be handed out.
type lease struct {
	id        uint64
	member    *member
	chat      *chat
	events    list
	bytes     int
	attempt   int
	granted   int64
	until     int64
	fence     uint64
	streaming bool // the member had a stream, so it ends when that does not come back

	next, prev *lease // in the ring of its chat
	timer      int32  // in Scheduler.leaseTimers
}

func (l *lease) slot() *int32 { return &l.timer }
func (l *lease) rank() uint64 { return l.id }

// A Failure is an attempt that failed, or was not made because an event cannot be
// read.
type Failure struct {
	Cause   Cause
	Reason  string // what the member gave; "" for an expired lease
	Member  string // who had the events; "" when nobody had
	Attempt int    // from 1; how many came before when none was made
	Time    time.Time
}

// Cause is what ended an attempt, or kept it from being made.
type Cause uint8

// The causes.
const (
	Nacked  Cause = iota + 1 // Nack
	Expired                  // the lease ran out
	Gone                     // the member did not come back in time
	Parked                   // Park
	Damaged                  // the event cannot be read
)

// A Verdict is what a member says of a delivery.
type Verdict struct {
	Kind   VerdictKind
	Reason string         // of a Nack or a Park
	Delay  *time.Duration // of a Nack: how long to wait; nil is Config.Retry.Backoff
	NotMe  bool           // of a Release: keep the chat from the member for Config.Lease.Duration
	By     time.Duration  // of an Extend: from now; 0 is Config.Lease.Duration
}

// VerdictKind is the kind of a Verdict.
type VerdictKind uint8

// The kinds of verdict.
const (
	Ack     VerdictKind = iota + 1 // the work is done
	Nack                           // it failed
	Release                        // it was not tried
	Park                           // trying again is useless
	Extend                         // it goes on
)

// Outcome is what became of a verdict.
type Outcome uint8

// The outcomes.
const (
	Done         Outcome = iota + 1 // it took effect
	AlreadyDone                     // it had taken effect before
	LeaseLost                       // the lease ended in another way
	UnknownLease                    // never issued, or forgotten
)

// Settle takes the verdict on a lease. Whatever it returns may be said to the
// member once the journal of the next Flush is on stable storage.
func (s *Scheduler) Settle(id uint64, v Verdict) Outcome {
	l := s.leases[id]
	if l == nil {
		return s.endings.outcome(id, v.Kind, s.nextLease)
	}
	switch v.Kind {
	case Ack:
		s.beginLease(opAck, l)
		s.ack(l)
	case Nack:
		delay := s.cfg.Retry.backoff(l.attempt)
		if v.Delay != nil {
			delay = max(*v.Delay, 0)
		}
		s.failLive(l, Nacked, v.Reason, delay)
	case Park:
		s.failLive(l, Parked, v.Reason, s.cfg.Retry.backoff(l.attempt))
	case Release:
		s.beginLease(opRelease, l)
		s.journal.bool(v.NotMe)
		s.release(l, v.NotMe)
	case Extend:
		by := v.By
		if by <= 0 {
			by = s.cfg.Lease.Duration
		}
		s.extendLive(l, int64(by))
	default:
		return UnknownLease
	}
	return Done
}

// Until is when a lease runs out; zero when it is not out.
func (s *Scheduler) Until(id uint64) time.Time {
	if l := s.leases[id]; l != nil {
		return time.Unix(0, l.until)
	}
	return time.Time{}
}

// hand gives the next n waiting events of c to m.
func (s *Scheduler) hand(c *chat, m *member, n int, streaming bool) {
	s.dequeue(c)
	l := &lease{id: s.nextLease, chat: c, member: m, attempt: 1, granted: s.now, streaming: streaming}
	s.nextLease++
	l.until = s.now + int64(min(s.cfg.Lease.Duration, s.cfg.Lease.MaxTotal))
	for range n {
		i := s.events.pop(&c.waiting)
		e := s.events.at(i)
		if s.turns() {
			e.flags |= closed
		}
		if e.flags&failed != 0 {
			l.attempt = max(l.attempt, 1+s.failures[e.sequence].Attempt)
		}
		l.bytes += int(e.size)
		s.events.push(&l.events, i)
	}
	s.reopen(c)
	if refusals := c.refusals(s.now); refusals == nil {
		s.setTrouble(c, nil)
	} else {
		s.setTrouble(c, &trouble{refusals: refusals})
	}
	s.grant(l)
}

// grant enters a lease everywhere.
func (s *Scheduler) grant(l *lease) {
	c, m := l.chat, l.member
	s.leases[l.id] = l
	if first := c.leases; first == nil {
		c.leases, l.next, l.prev = l, l, l
		if l.fence == 0 { // else it comes from a snapshot
			l.fence = l.id
		}
	} else {
		l.next, l.prev = first, first.prev
		l.prev.next, first.prev = l, l
		l.fence = first.fence
	}
	c.out++
	m.leases++
	if l.streaming {
		m.streams++
	}
	m.events += int(l.events.count)
	m.bytes += l.bytes
	s.outstanding += int(l.events.count)
	if s.live {
		s.leaseTimers.set(l, l.until)
	}
}

// end takes a lease out of everything, but for its events.
func (s *Scheduler) end(l *lease, how ending) {
	c, m := l.chat, l.member
	s.dequeue(c) // while its leases still say where it is
	if l.next == l {
		c.leases = nil
		c.flags &^= recovering
	} else {
		l.prev.next, l.next.prev = l.next, l.prev
		if c.leases == l {
			c.leases = l.next
		}
	}
	c.out--
	m.leases--
	if l.streaming {
		m.streams--
	}
	m.events -= int(l.events.count)
	m.bytes -= l.bytes
	s.outstanding -= int(l.events.count)
	delete(s.leases, l.id)
	s.leaseTimers.remove(l)
	s.endings.add(l.id, how)
	s.offer(m)
	s.forget(m)
}

// ack settles the events of a lease.
func (s *Scheduler) ack(l *lease) {
	s.end(l, acked)
	s.drop(&l.events)
	s.place(l.chat)
}

// drop settles all events of a list.
func (s *Scheduler) drop(l *list) {
	for l.head != 0 {
		s.settle(s.events.pop(l))
	}
}

// settle forgets an event, which is in no list.
func (s *Scheduler) settle(i uint32) {
	if e := s.events.at(i); e.flags&failed != 0 {
		delete(s.failures, e.sequence)
	}
	s.events.release(i)
}

// giveBack ends a lease whose events are to be handed out again, and takes back
// the chat's leases on what is behind them: they come after.
func (s *Scheduler) giveBack(l *lease, how ending) {
	c := l.chat
	var later []*lease
	for o := l.next; o != c.leases; o = o.next {
		later = append(later, o)
	}
	s.end(l, how)
	s.putBack(l)
	for _, o := range later {
		s.revoked(o)
		s.end(o, lost)
		s.putBack(o)
	}
	if c.leases != nil {
		c.flags |= recovering
	}
}

// putBack lets the events of a lease that has ended wait again.
func (s *Scheduler) putBack(l *lease) {
	c := l.chat
	for l.events.head != 0 {
		i := s.events.pop(&l.events)
		if s.events.at(i).flags&closed != 0 {
			c.flags |= reopened
		}
		s.events.insert(&c.waiting, i)
		s.waits(c, i)
	}
}

// release gives a lease back that was not tried.
func (s *Scheduler) release(l *lease, notMe bool) {
	c := l.chat
	s.giveBack(l, released)
	if notMe && c.stoppedState() == Running {
		s.refuse(c, l.member.name)
	}
	s.place(c)
}

// revoke takes a lease back.
func (s *Scheduler) revoke(l *lease) {
	s.revoked(l)
	s.end(l, lost)
	s.putBack(l)
}

// revoked tells the member of a lease that it has it no longer.
func (s *Scheduler) revoked(l *lease) {
	s.out.Revoked = append(s.out.Revoked, Revocation{Lease: l.id, Member: l.member.name})
}

// extendLive keeps a lease for so long from now, as far as it may be kept.
func (s *Scheduler) extendLive(l *lease, by int64) {
	until := max(l.until, min(s.now+by, l.granted+int64(s.cfg.Lease.MaxTotal)))
	s.beginLease(opExtend, l)
	s.journal.varint(until)
	l.until = until
	s.leaseTimers.set(l, until)
}

// maxReason is how much of a reason is kept, in bytes.
const maxReason = 256

// failLive fails an attempt.
func (s *Scheduler) failLive(l *lease, cause Cause, reason string, delay time.Duration) {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	s.beginLease(opFail, l)
	s.journal.byte(byte(cause))
	s.journal.string(reason)
	s.journal.varint(int64(delay))
	s.fail(l, cause, reason, int64(delay))
}

// fail ends an attempt that failed, and decides what follows.
func (s *Scheduler) fail(l *lease, cause Cause, reason string, delay int64) {
	c := l.chat
	f := &Failure{Cause: cause, Reason: reason, Member: l.member.name, Attempt: l.attempt, Time: time.Unix(0, s.now)}
	for e := range s.events.in(l.events) {
		e.flags |= failed
		s.failures[e.sequence] = f
	}
	how := lost
	switch cause {
	case Nacked:
		how = nacked
	case Parked:
		how = parked
	case Expired, Gone:
		s.revoked(l)
	case Damaged: // not here: see damageLease
	}
	exhausted := cause == Parked || s.cfg.Retry.MaxAttempts > 0 && l.attempt >= s.cfg.Retry.MaxAttempts
	switch {
	case exhausted && s.cfg.Retry.OnExhausted == DeadLetterEvent && s.roomForLetters(int(l.events.count)):
		s.end(l, how)
		for l.events.head != 0 {
			s.bury(s.events.pop(&l.events))
		}
	case exhausted && s.cfg.Retry.OnExhausted != DeadLetterEvent && s.roomToStop(c):
		s.stop(l, how)
	case c.stoppedState() != Running:
		s.giveBack(l, how) // it waits with its chat
	default:
		if exhausted {
			delay = int64(s.cfg.Retry.backoff(len(s.cfg.Retry.Backoff)))
		}
		s.giveBack(l, how)
		until := s.now + delay
		if c.trouble != nil {
			until = max(until, c.trouble.until) // of a later event that failed before
		}
		s.setTrouble(c, &trouble{state: Retrying, until: until, since: s.now, refusals: c.refusals(s.now)})
	}
	s.place(c)
}

// leasesInOrder returns all leases, by id.
func (s *Scheduler) leasesInOrder() []*lease {
	all := make([]*lease, 0, len(s.leases))
	for _, l := range s.leases {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lease) int { return cmp.Compare(a.id, b.id) })
	return all
}
