package schedule

import (
	"slices"
	"time"
)

// MaxDamage is how many events one call of Damage names at most, so that no step
// takes long.
const MaxDamage = 1024

// damagedDelay is the least time for which a chat waits whose next event cannot
// be read, and cannot become a dead letter either.
const damagedDelay = int64(time.Second)

// Damage says that the log cannot read its events from first to last, of which
// there are at most MaxDamage, and that it was read up to there. Those that the
// group does not hold become dead letters of which nobody knows the chat, and
// Damage returns how many they are. The owner sees to it that there is
// RoomForLetters.
//
// The journal says so: a replay does not ask the log for them again. The read
// function of a Replay calls Damage for what has become unreadable since, too.
// What the journal then says of such an event holds for it.
func (s *Scheduler) Damage(first, last uint64) int {
	if first == 0 || last < first || last-first >= MaxDamage {
		return 0
	}
	if s.live {
		s.begin(opDamage)
		s.journal.uvarint(first)
		s.journal.uvarint(last)
	}
	n := s.damage(first, last)
	if s.live {
		s.journal.position = s.position
	}
	return n
}

func (s *Scheduler) damage(first, last uint64) int {
	held := s.held(first)
	f := &Failure{Cause: Damaged, Time: time.Unix(0, s.now)}
	n := 0
	for sequence := first; sequence <= last; sequence++ {
		if held[sequence] {
			continue
		}
		i := s.events.alloc()
		*s.events.at(i) = event{sequence: sequence, received: s.now, sent: s.now, flags: unread | aside}
		s.lowest = min(s.lowest, sequence)
		s.letters[sequence] = &letter{event: i, failure: f, at: s.now}
		n++
	}
	s.position = max(s.position, last)
	return n
}

// held returns which events are held, wherever they are, or have another one in
// their place; none when all from first on are after Position.
func (s *Scheduler) held(first uint64) map[uint64]bool {
	if first > s.position {
		return nil
	}
	held := map[uint64]bool{}
	note := func(l list) {
		for e := range s.events.in(l) {
			held[e.sequence], held[s.events.place(e)] = true, true
		}
	}
	for c := range s.allChats() {
		note(c.waiting)
	}
	for _, l := range s.leases {
		note(l.events)
	}
	for _, l := range s.letters {
		note(list{head: l.event, tail: l.event, count: 1})
	}
	return held
}

// RoomForLetters is how many dead letters more there may be.
func (s *Scheduler) RoomForLetters() int { return max(0, s.cfg.Limits.MaxDeadLetters-len(s.letters)) }

// DamageLease says that some events of a lease cannot be read, so that its member
// does not get them. They become dead letters, and the lease, of what is left,
// goes on; of nothing it ends. That is no attempt, and nothing stops because of
// it. When there is no room for so many dead letters, the lease ends, and the
// chat is tried again after the longest backoff.
//
// It returns how many became dead letters, and whether the lease is still out.
func (s *Scheduler) DamageLease(id uint64, sequences []uint64) (letters int, out bool) {
	l := s.leases[id]
	if l == nil {
		return 0, false
	}
	s.beginLease(opDamageLease, l)
	s.journal.sequences(sequences)
	letters = s.damageLease(l, sequences)
	return letters, s.leases[id] != nil
}

func (s *Scheduler) damageLease(l *lease, sequences []uint64) int {
	f := &Failure{Cause: Damaged, Attempt: l.attempt - 1, Time: time.Unix(0, s.now)}
	var damaged []*event
	for e := range s.events.in(l.events) {
		if slices.Contains(sequences, e.sequence) {
			damaged = append(damaged, e)
			s.failures[e.sequence] = f
			e.flags |= failed
		}
	}
	switch n := len(damaged); {
	case n == 0:
	case !s.roomForLetters(n):
		s.postpone(l)
	case n == int(l.events.count):
		s.end(l, lost)
		for l.events.head != 0 {
			s.bury(s.events.pop(&l.events))
		}
		s.place(l.chat)
		return n
	default:
		s.buryPart(l, damaged)
		return n
	}
	return 0
}

// postpone gives a lease back that cannot be handed over.
func (s *Scheduler) postpone(l *lease) {
	c := l.chat
	s.giveBack(l, lost)
	if c.stoppedState() == Running {
		until := s.now + max(damagedDelay, int64(s.cfg.Retry.backoff(len(s.cfg.Retry.Backoff))))
		if c.trouble != nil {
			until = max(until, c.trouble.until)
		}
		s.setTrouble(c, &trouble{state: Retrying, until: until, since: s.now, refusals: c.refusals(s.now)})
	}
	s.place(c)
}

// buryPart makes dead letters of some of the events of a lease, not of all.
func (s *Scheduler) buryPart(l *lease, some []*event) {
	m := l.member
	var kept list
	for l.events.head != 0 {
		i := s.events.pop(&l.events)
		e := s.events.at(i)
		if !slices.Contains(some, e) {
			s.events.push(&kept, i)
			continue
		}
		l.bytes -= int(e.size)
		m.bytes -= int(e.size)
		m.events--
		s.outstanding--
		s.bury(i)
	}
	l.events = kept
	s.offer(m)
}

// Unread returns the sequences of the selected dead letters of which nobody knows
// the chat, in order.
func (s *Scheduler) Unread(sel Selection) []uint64 {
	m := sel.matcher()
	return slices.DeleteFunc(s.lettersInOrder(&m), func(n uint64) bool { return !s.isUnread(n) })
}

// isUnread says whether an event is a dead letter of which nobody knows the chat.
func (s *Scheduler) isUnread(sequence uint64) bool {
	l := s.letters[sequence]
	return l != nil && s.events.at(l.event).flags&unread != 0
}

// Recover says what dead letters are that nobody could read, and that can be read
// now. They stay dead letters; a Redrive lets them wait in their chats.
func (s *Scheduler) Recover(events []Event) {
	s.begin(opRecover)
	s.journal.events(events)
	s.recovered(events)
}

func (s *Scheduler) recovered(events []Event) {
	for _, e := range events {
		if !s.isUnread(e.Sequence) {
			continue
		}
		old := s.events.at(s.letters[e.Sequence].event)
		old.chat, old.flags = e.Chat, old.flags&^unread
		old.received, old.sent, old.size = e.Received.UnixNano(), e.sent(), clampSize(e.Size)
		s.events.revise(old, revised{first: e.first()})
	}
}

// dropUnread settles those of the events that are dead letters which nobody could
// read.
func (s *Scheduler) dropUnread(sequences []uint64) {
	for _, sequence := range sequences {
		if s.isUnread(sequence) {
			i := s.letters[sequence].event
			delete(s.letters, sequence)
			s.settle(i)
		}
	}
}

// adopt lets those of the events wait in the chat of that key that could not be
// read while the journal was replayed: it says that they were handed out there.
func (s *Scheduler) adopt(sequences []uint64, key uint64) {
	for _, sequence := range sequences {
		if !s.isUnread(sequence) {
			continue
		}
		i := s.letters[sequence].event
		delete(s.letters, sequence)
		e := s.events.at(i)
		e.flags = 0
		if s.cfg.Order == ByChat {
			e.chat = key
		}
		c := s.chat(key)
		s.events.insert(&c.waiting, i)
		s.waits(c, i)
	}
}
