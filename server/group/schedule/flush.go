package schedule

import (
	"cmp"
	"slices"
	"time"
)

// An Output is what follows from the inputs since the Flush before. It is valid
// until the next Flush.
type Output struct {
	// Journal is what has changed, for Replay; empty when nothing has. It must
	// be on stable storage before any other part is let out, and before the
	// outcomes that Settle and the operators' calls returned are.
	Journal []byte

	// Deliveries are for their members, those of one chat in order.
	Deliveries []Delivery

	// Revoked are leases that were taken back, or ran out.
	Revoked []Revocation

	// Silent are members that were not heard for too long, and count as gone.
	Silent []string

	// Wake is when Flush has something to do if nothing else happens; zero is
	// never.
	Wake time.Time
}

// A Delivery is a lease that was handed out.
type Delivery struct {
	Lease     uint64
	Member    string
	Chat      uint64   // of the first event
	Sequences []uint64 // at least one; those of a turn in the order they were sent
	Attempt   int      // from 1
	Until     time.Time
	Fence     uint64
	Failure   *Failure // why the attempt before failed; nil on the first
	Origin    Origin
}

// Origin is why events are delivered.
type Origin uint8

// The origins.
const (
	FromLog     Origin = iota // the group came to them
	FromSeek                  // it was moved back
	FromRedrive               // they were dead letters
)

// A Revocation is a lease that ended without its member.
type Revocation struct {
	Lease  uint64
	Member string
}

// Flush does what is due at the time of the last Tick, hands out what it can,
// and returns what follows from everything since the Flush before. A verdict
// that was given before Flush finds its lease, even when that has run out
// since.
func (s *Scheduler) Flush() *Output {
	s.expire()
	s.dispatch()
	s.out.Journal = s.journal.buf
	if wake := s.wake(); wake < never {
		s.out.Wake = time.Unix(0, wake)
	}
	out := s.out
	s.out, s.sequences = Output{}, nil
	s.journal.cut()
	return &out
}

// dispatch hands out what it can.
func (s *Scheduler) dispatch() {
	idle := 0 // members in a row for whom there was nothing
	for s.queued > 0 && idle < s.free.len() && s.open() {
		m := s.free.pop()
		m.listed = false
		if !m.hungry() {
			continue
		}
		if r := s.pick(m); r != 0 {
			s.deliver(s.unfold(r), m)
			idle = 0
		} else {
			idle++
		}
		s.offer(m)
	}
}

// open says whether the group may hand out anything now.
func (s *Scheduler) open() bool {
	return s.mayOpen() && s.rate.next() <= s.now
}

// mayOpen says whether it may at some time, if nothing else happens.
func (s *Scheduler) mayOpen() bool {
	return !s.cfg.Paused && s.outstanding < s.cfg.Limits.MaxOutstanding
}

// pick returns the chat that m goes on with; 0 when there is none. Chats of
// which m has leases take turns with all others, so that neither can keep the
// other from being served.
func (s *Scheduler) pick(m *member) ref {
	m.own = !m.own
	if r := m.waiting.first; r != 0 && m.own {
		return r
	}
	if s.redriving.first != 0 && s.redrives.next() <= s.now {
		return s.redriving.first
	}
	for _, q := range s.shunned {
		if !slices.Contains(q.members, m.name) {
			return q.queue.first
		}
	}
	return cmp.Or(s.ready.first, m.waiting.first)
}

// deliver hands the next delivery of c to m.
func (s *Scheduler) deliver(c *chat, m *member) {
	s.hand(c, m, s.unit(c), m.connected)
	l := c.leases.prev // the last of the ring
	s.journal.handed(s, l)
	s.place(c)

	d := Delivery{
		Lease:   l.id,
		Member:  m.name,
		Chat:    s.events.at(l.events.head).chat,
		Attempt: l.attempt,
		Until:   time.Unix(0, l.until),
		Fence:   l.fence,
	}
	first := len(s.sequences)
	for e := range s.events.in(l.events) {
		s.sequences = append(s.sequences, e.sequence)
		if f := s.failures[e.sequence]; e.flags&failed != 0 && f.Attempt == l.attempt-1 {
			d.Failure = f
		}
		switch {
		case e.flags&redriven != 0:
			d.Origin = FromRedrive
		case e.flags&seeked != 0 && d.Origin == FromLog:
			d.Origin = FromSeek
		}
	}
	d.Sequences = s.sequences[first:len(s.sequences):len(s.sequences)]
	if len(d.Sequences) > 1 {
		s.sortBySent(l, d.Sequences)
	}
	s.rate.take(len(d.Sequences), s.now)
	if d.Origin == FromRedrive {
		s.redrives.take(len(d.Sequences), s.now)
	}
	s.out.Deliveries = append(s.out.Deliveries, d)
}

// sortBySent puts the sequences of a turn in the order in which its events were
// sent.
func (s *Scheduler) sortBySent(l *lease, sequences []uint64) {
	all := make([]*event, 0, len(sequences))
	for e := range s.events.in(l.events) {
		all = append(all, e)
	}
	slices.SortStableFunc(all, func(a, b *event) int { return cmp.Compare(a.sent, b.sent) })
	for i, e := range all {
		sequences[i] = e.sequence
	}
}

// wake is when Flush has something to do; never when only an input can bring
// it.
func (s *Scheduler) wake() int64 {
	at := min(s.memberTimers.next(), s.leaseTimers.next(), s.chatTimers.next())
	if s.queued > 0 && s.free.len() > 0 && s.mayOpen() {
		if t := s.rate.next(); t > s.now {
			at = min(at, t)
		}
		if t := s.redrives.next(); t > s.now && s.redriving.first != 0 {
			at = min(at, t)
		}
	}
	return at
}

// A fifo is members, first in, first out. The zero is empty.
type fifo struct {
	members []*member
	head    int
}

func (f *fifo) len() int { return len(f.members) - f.head }

func (f *fifo) push(m *member) {
	if f.head > 16 && 2*f.head > len(f.members) {
		f.members = slices.Delete(f.members, 0, f.head)
		f.head = 0
	}
	f.members = append(f.members, m)
}

func (f *fifo) pop() *member {
	m := f.members[f.head]
	f.members[f.head] = nil
	f.head++
	return m
}
