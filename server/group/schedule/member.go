package schedule

import (
	"cmp"
	"slices"
	"time"
)

// A member is a worker: one whose stream is open, or that pulls, or that still
// has leases. Only what its leases say of it survives a restart.
type member struct {
	name      string
	connected bool    // its stream is open
	credits   Credits // what it is ready to hold

	leases, events, bytes int // what it holds
	streams               int // of its leases, those from a stream

	timeout    int64 // how long it may be silent; 0 is for ever
	heard      int64 // when it was heard last
	graceUntil int64 // how long its leases from a stream wait for the next one

	waiting queue // chats that only it can go on with
	own     bool  // whether these came first the last time
	listed  bool  // it is in Scheduler.free
	timer   int32 // in Scheduler.memberTimers

	batch uint64 // the batch of the journal that names it
	index uint64 // its number there
}

func (m *member) slot() *int32 { return &m.timer }

// rank is the same for all members: those that are due together are sorted.
func (m *member) rank() uint64 { return 0 }

// Credits are what a member is ready to hold at once. It is given something
// while it holds less of both, so that the last delivery may exceed them. The
// zero is nothing.
type Credits struct {
	Events int
	Bytes  int
}

// hungry says whether m is to be given something.
func (m *member) hungry() bool {
	return m.events < m.credits.Events && m.bytes < m.credits.Bytes
}

// member returns the member of that name, which is made if need be.
func (s *Scheduler) member(name string) *member {
	m := s.members[name]
	if m == nil {
		m = &member{name: name}
		s.members[name] = m
	}
	return m
}

// forget removes a member of which there is nothing to remember.
func (s *Scheduler) forget(m *member) {
	if !m.connected && m.leases == 0 && m.credits == (Credits{}) {
		s.memberTimers.remove(m)
		delete(s.members, m.name)
	}
}

// offer lists m among those with credit left.
func (s *Scheduler) offer(m *member) {
	if !m.listed && m.hungry() {
		m.listed = true
		s.free.push(m)
	}
}

// Join says that a member's stream has opened. Leases that it has from before
// stay with it. It is gone when it is silent for longer than timeout; 0 is
// never. It has no credits yet.
func (s *Scheduler) Join(name string, timeout time.Duration) {
	m := s.member(name)
	m.connected = true
	m.credits = Credits{}
	m.timeout, m.heard = int64(timeout), s.now
	s.await(m)
}

// Heartbeat says that a member was heard.
func (s *Scheduler) Heartbeat(name string) {
	if m := s.members[name]; m != nil {
		m.heard = s.now
	}
}

// Leave says that a member's stream has ended. Its leases from there wait for
// the next one for Config.Lease.ReconnectGrace.
func (s *Scheduler) Leave(name string) {
	if m := s.members[name]; m != nil && m.connected {
		m.connected = false
		m.credits = Credits{}
		s.await(m)
		s.forget(m)
	}
}

// Grant says what a member is ready to hold; it replaces what was said before.
// One that pulls is granted what is Held plus what it asks for, and nothing
// once that has come or the pull has ended.
func (s *Scheduler) Grant(name string, credits Credits) {
	m := s.member(name)
	m.credits = credits
	s.offer(m)
	s.forget(m)
}

// Held is how much a member has.
func (s *Scheduler) Held(name string) Credits {
	if m := s.members[name]; m != nil {
		return Credits{Events: m.events, Bytes: m.bytes}
	}
	return Credits{}
}

// Leases returns the leases that a member has, in order.
func (s *Scheduler) Leases(name string) []uint64 {
	var ids []uint64
	for _, l := range s.leases {
		if l.member.name == name {
			ids = append(ids, l.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// await sets the time at which something is to be done about m: when it is
// silent for too long, or does not come back.
func (s *Scheduler) await(m *member) {
	switch {
	case m.connected && m.timeout > 0:
		s.memberTimers.set(m, m.heard+m.timeout)
	case !m.connected && m.streams > 0:
		m.graceUntil = s.now + int64(s.cfg.Lease.ReconnectGrace)
		s.memberTimers.set(m, m.graceUntil)
	default:
		s.memberTimers.remove(m)
	}
}

// expire does what is due: members that are silent, leases that ran out, chats
// that can go on.
func (s *Scheduler) expire() {
	for s.memberTimers.next() <= s.now {
		s.expireMembers()
	}
	for {
		l, ok := s.leaseTimers.pop(s.now)
		if !ok {
			break
		}
		if end := l.granted + int64(s.cfg.Lease.MaxTotal); s.cfg.Lease.ExtendWhileConnected && l.member.connected && end > s.now {
			s.extendLive(l, int64(s.cfg.Lease.Duration))
			continue
		}
		s.failLive(l, Expired, "", s.cfg.Retry.backoff(l.attempt))
	}
	for {
		c, ok := s.chatTimers.pop(s.now)
		if !ok {
			break
		}
		s.place(c)
	}
}

// expireMembers looks after the members for whom it is time, by name.
func (s *Scheduler) expireMembers() {
	var due []*member
	for {
		m, ok := s.memberTimers.pop(s.now)
		if !ok {
			break
		}
		due = append(due, m)
	}
	slices.SortFunc(due, func(a, b *member) int { return cmp.Compare(a.name, b.name) })
	for _, m := range due {
		switch {
		case m.connected && m.heard+m.timeout > s.now:
			s.await(m)
		case m.connected:
			s.out.Silent = append(s.out.Silent, m.name)
			s.Leave(m.name)
		default:
			s.abandon(m)
		}
	}
}

// abandon fails what a member has from a stream and did not come back for.
func (s *Scheduler) abandon(m *member) {
	for _, l := range s.leasesInOrder() {
		if l.member == m && l.streaming && s.leases[l.id] == l { // not recalled meanwhile
			s.failLive(l, Gone, "", s.cfg.Retry.backoff(l.attempt))
		}
	}
}
