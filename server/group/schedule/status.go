package schedule

import (
	"cmp"
	"slices"
	"time"
)

// A Status is how the group stands.
type Status struct {
	Waiting     int // events that were not handed out or are to be again, without dead letters
	Outstanding int // events that are out
	DeadLetters int // those of diverted chats and those at which chats are blocked, too
	Troubled    int // chats that wait for a retry or are stopped
	Stopped     int // chats that are blocked or diverted

	// OldestSequence is the first event that waits, is out, or blocks its chat,
	// and OldestTime when it was received; 0 and zero when there is none.
	OldestSequence uint64
	OldestTime     time.Time
}

// Status returns how the group stands. What it costs depends on how many chats are
// stopped, not on how many there are.
func (s *Scheduler) Status() Status {
	st := Status{
		Outstanding: s.outstanding,
		DeadLetters: len(s.letters),
		Troubled:    s.countTroubled(),
		Stopped:     len(s.stopped),
	}
	for c := range s.stopped {
		if c.stoppedState() == Diverted {
			st.DeadLetters += int(c.waiting.count)
		} else {
			st.DeadLetters += c.trouble.stoppers
		}
	}
	st.Waiting = s.events.live - s.outstanding - st.DeadLetters
	if e := s.events.oldest(); e != nil {
		st.OldestSequence, st.OldestTime = e.sequence, time.Unix(0, e.received)
	}
	return st
}

// countTroubled returns how many chats are stopped, or wait for a retry.
func (s *Scheduler) countTroubled() int {
	for {
		if _, due := s.retries.pop(s.now); !due {
			return len(s.stopped) + len(s.retries.items)
		}
	}
}

// LimitsReached returns the limits that hold the group back now, by the names
// that they have in sluice.v1.GroupLimits.
func (s *Scheduler) LimitsReached() []string {
	limits := &s.cfg.Limits
	var reached []string
	for _, limit := range []struct {
		name    string
		reached bool
	}{
		{"max_outstanding_events", s.outstanding >= limits.MaxOutstanding},
		{"max_events_per_second", s.queued > 0 && s.rate.next() > s.now},
		{"max_blocked_chats", len(s.stopped) >= limits.MaxBlockedChats},
		{"max_dead_letters", len(s.letters) >= limits.MaxDeadLetters},
		{"max_pending_events", s.Full()},
	} {
		if limit.reached {
			reached = append(reached, limit.name)
		}
	}
	return reached
}

// A ChatStatus is a chat that does not go on.
type ChatStatus struct {
	Chat     uint64 // of the event it waits for
	State    State  // Retrying, Diverted or Blocked
	Sequence uint64 // the event it waits for
	Waiting  int    // events, with this one
	Failure  *Failure
	Since    time.Time
	Next     time.Time // when it is tried again; zero when it is stopped
}

// TroubledChats returns the n chats that have not gone on for the longest. It looks
// at all of those.
func (s *Scheduler) TroubledChats(n int) []ChatStatus {
	all := make([]ChatStatus, 0, s.countTroubled())
	for c := range s.stopped {
		all = append(all, s.chatStatus(c))
	}
	for _, r := range s.retries.items {
		all = append(all, s.chatStatus((*chat)(r.thing)))
	}
	slices.SortFunc(all, func(a, b ChatStatus) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Sequence, b.Sequence))
	})
	return all[:min(n, len(all))]
}

// chatStatus returns how a chat stands that does not go on.
func (s *Scheduler) chatStatus(c *chat) ChatStatus {
	e := s.events.at(c.waiting.head)
	for o := range s.events.in(c.waiting) {
		if o.flags&stopper != 0 {
			e = o
			break
		}
	}
	st := ChatStatus{
		Chat:     e.chat,
		State:    c.trouble.state,
		Sequence: e.sequence,
		Waiting:  int(c.waiting.count),
		Failure:  s.failures[e.sequence],
		Since:    time.Unix(0, c.trouble.since),
	}
	if st.State == Retrying {
		st.Next = time.Unix(0, c.trouble.until)
	}
	return st
}

// A MemberStatus is a member that is connected, pulls, or has leases.
type MemberStatus struct {
	Name      string
	Connected bool
	Events    int // that it has
	Credits   Credits
}

// Members returns the members, by name.
func (s *Scheduler) Members() []MemberStatus {
	all := make([]MemberStatus, 0, len(s.members))
	for _, m := range s.members {
		all = append(all, MemberStatus{Name: m.name, Connected: m.connected, Events: m.events, Credits: m.credits})
	}
	slices.SortFunc(all, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Unsettled returns how many events the group holds: pending, outstanding, or
// dead letters. It costs nothing.
func (s *Scheduler) Unsettled() int { return s.events.live }
