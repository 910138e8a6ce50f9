package schedule

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// A letter is a dead letter: an event without which its chat went on.
type letter struct {
	event   uint32
	failure *Failure // nil for one that was diverted behind another
	at      int64
}

// A Selection says which dead letters are meant: those that any field selects.
type Selection struct {
	Sequences []uint64
	Chats     []uint64 // as ChatID returns them
	All       bool
}

// A Count is how many dead letters a Selection selects.
type Count struct {
	Events int
	Chats  int // to which they belong
}

// bury makes an event, which is in no list, a dead letter.
func (s *Scheduler) bury(i uint32) {
	e := s.events.at(i)
	s.events.putAside(i)
	s.lowest = min(s.lowest, e.sequence)
	e.flags, e.next = e.flags&(failed|revision|aside), 0
	s.letters[e.sequence] = &letter{event: i, failure: s.takeFailure(e), at: s.now}
}

// takeFailure returns the last failure of e, and forgets it; nil is none.
func (s *Scheduler) takeFailure(e *event) *Failure {
	if e.flags&failed == 0 {
		return nil
	}
	f := s.failures[e.sequence]
	delete(s.failures, e.sequence)
	e.flags &^= failed
	return f
}

func (s *Scheduler) roomForLetters(n int) bool {
	return len(s.letters)+n <= s.cfg.Limits.MaxDeadLetters
}

func (s *Scheduler) roomToStop(c *chat) bool {
	return c.stoppedState() == Running && len(s.stopped) < s.cfg.Limits.MaxBlockedChats
}

// stop ends a lease, and its chat stops at it.
func (s *Scheduler) stop(l *lease, how ending) {
	n := int(l.events.count)
	for e := range s.events.in(l.events) {
		e.flags |= stopper
	}
	s.giveBack(l, how)
	t := &trouble{state: Blocked, since: s.now, stoppers: n}
	if s.cfg.Retry.OnExhausted == DivertChat {
		t.state = Diverted
		for i := range s.events.indices(l.chat.waiting) {
			s.events.putAside(i)
		}
	}
	s.setTrouble(l.chat, t)
}

// stoppedChats returns the chats that are stopped, by place.
func (s *Scheduler) stoppedChats() []*chat {
	all := slices.Collect(maps.Keys(s.stopped))
	place := func(c *chat) uint64 { return s.events.place(s.events.at(c.waiting.head)) }
	slices.SortFunc(all, func(a, b *chat) int { return cmp.Compare(place(a), place(b)) })
	return all
}

// goOn ends that c is stopped, if it is, and leaves its events as they are.
func (s *Scheduler) goOn(c *chat) {
	state := c.stoppedState()
	if state == Running {
		return
	}
	s.setTrouble(c, nil)
	if state == Diverted {
		for i := range s.events.indices(c.waiting) {
			s.events.enter(i)
		}
	}
}

// unstop ends that c is stopped. When it was diverted, its events before that
// sequence stay dead letters. All others start afresh.
func (s *Scheduler) unstop(c *chat, before uint64) {
	state := c.stoppedState()
	if state == Running {
		return
	}
	s.goOn(c)
	var kept list
	for c.waiting.head != 0 {
		i := s.events.pop(&c.waiting)
		e := s.events.at(i)
		if state == Diverted && e.sequence < before {
			s.bury(i)
			continue
		}
		if e.flags&stopper != 0 {
			s.takeFailure(e)
			e.flags &^= stopper
		}
		s.events.push(&kept, i)
	}
	c.waiting = kept
	s.reopen(c)
}

// isLetter says whether an event that waits in c counts as a dead letter.
func (c *chat) isLetter(e *event) bool {
	switch c.stoppedState() {
	case Diverted:
		return true
	case Blocked:
		return e.flags&stopper != 0
	default:
		return false
	}
}

// A matcher is a Selection made ready for many questions.
type matcher struct {
	all              bool
	sequences, chats map[uint64]bool
}

func (sel *Selection) matcher() matcher {
	m := matcher{all: sel.All, sequences: map[uint64]bool{}, chats: map[uint64]bool{}}
	for _, n := range sel.Sequences {
		m.sequences[n] = true
	}
	for _, n := range sel.Chats {
		m.chats[n] = true
	}
	return m
}

func (m *matcher) matches(e *event) bool {
	return m.all || m.sequences[e.sequence] || e.flags&unread == 0 && m.chats[e.chat]
}

// lettersInOrder returns the sequences of the letters that m selects.
func (s *Scheduler) lettersInOrder(m *matcher) []uint64 {
	var all []uint64
	for n, l := range s.letters {
		if m.matches(s.events.at(l.event)) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// Redrive hands dead letters out again, before anything newer of their chats,
// perSecond events a second (0 is without bound), and returns how many. A chat
// that is stopped goes on as a whole when any of its dead letters is selected.
// Those that are Unread stay: call Recover first for what can be read by now.
// A dry run changes nothing.
func (s *Scheduler) Redrive(sel Selection, perSecond int, dryRun bool) Count {
	if !dryRun {
		s.begin(opRedrive)
		s.journal.selection(sel)
		s.journal.int(perSecond)
	}
	return s.redrive(sel, perSecond, dryRun)
}

func (s *Scheduler) redrive(sel Selection, perSecond int, dryRun bool) Count {
	m := sel.matcher()
	letters := slices.DeleteFunc(s.lettersInOrder(&m), s.isUnread)
	keys := map[uint64]bool{} // of the chats of these
	for _, n := range letters {
		keys[s.keyOf(s.events.at(s.letters[n].event))] = true
	}
	var n tally
	for _, c := range s.stoppedChats() {
		if !keys[c.key] && !s.anyLetter(c, &m) {
			continue
		}
		for e := range s.events.in(c.waiting) {
			if !c.isLetter(e) {
				continue
			}
			n.add(e)
			if !dryRun {
				s.takeFailure(e)
				e.flags = e.flags&^stopper | redriven
			}
		}
		if !dryRun {
			s.goOn(c)
		}
	}
	for _, sequence := range letters {
		i := s.letters[sequence].event
		e := s.events.at(i)
		n.add(e)
		if !dryRun {
			delete(s.letters, sequence)
			e.flags = e.flags&revision | redriven
			c := s.chat(s.keyOf(e))
			s.events.insert(&c.waiting, i)
			s.waits(c, i)
		}
	}
	if !dryRun {
		s.redriveRate = perSecond
		s.applyLimits()
		for c := range s.chatsInOrder() {
			s.place(c)
		}
	}
	return n.count()
}

// anyLetter says whether m selects any of the dead letters in c.
func (s *Scheduler) anyLetter(c *chat, m *matcher) bool {
	for e := range s.events.in(c.waiting) {
		if c.isLetter(e) && m.matches(e) {
			return true
		}
	}
	return false
}

// Discard settles dead letters, and returns how many. A stopped chat goes on
// when nothing of what stopped it is left. A dry run changes nothing.
func (s *Scheduler) Discard(sel Selection, dryRun bool) Count {
	if !dryRun {
		s.begin(opDiscard)
		s.journal.selection(sel)
	}
	return s.discard(sel, dryRun)
}

func (s *Scheduler) discard(sel Selection, dryRun bool) Count {
	m := sel.matcher()
	var n tally
	for _, sequence := range s.lettersInOrder(&m) {
		i := s.letters[sequence].event
		n.add(s.events.at(i))
		if !dryRun {
			delete(s.letters, sequence)
			s.settle(i)
		}
	}
	for _, c := range s.stoppedChats() {
		selected := func(e *event) bool { return c.isLetter(e) && m.matches(e) }
		for e := range s.events.in(c.waiting) {
			if selected(e) {
				n.add(e)
			}
		}
		if !dryRun {
			s.sift(c, selected)
		}
	}
	return n.count()
}

// sift settles the waiting events of c that drop selects. When nothing is left
// of what stopped c, it goes on. It returns the place of the first that is left; 0
// when none is.
func (s *Scheduler) sift(c *chat, drop func(*event) bool) (first uint64) {
	var kept list
	stays := false
	for c.waiting.head != 0 {
		i := s.events.pop(&c.waiting)
		e := s.events.at(i)
		if drop(e) {
			if e.flags&stopper != 0 && c.trouble != nil {
				c.trouble.stoppers--
			}
			s.settle(i)
			continue
		}
		stays = stays || e.flags&stopper != 0
		s.events.push(&kept, i)
	}
	c.waiting = kept
	s.reopen(c)
	if !stays {
		s.goOn(c)
	}
	if c.waiting.head != 0 {
		first = s.events.place(s.events.at(c.waiting.head))
	}
	s.place(c)
	return first
}

// A tally counts events and their chats.
type tally struct {
	events int
	chats  map[uint64]bool
}

func (t *tally) add(e *event) {
	if t.chats == nil {
		t.chats = map[uint64]bool{}
	}
	t.events++
	if e.flags&unread == 0 {
		t.chats[e.chat] = true
	}
}

func (t *tally) count() Count { return Count{Events: t.events, Chats: len(t.chats)} }

// A DeadLetter is an event that the group has given up for the time being.
type DeadLetter struct {
	Sequence uint64
	Failure  *Failure // why; nil for one that waits behind another
	State    State    // of its chat: Diverted, Blocked, or Running
	Time     time.Time
}

// DeadLetters returns the first n dead letters after a sequence, in order: the
// events of diverted chats and those at which chats are blocked, too. chats, as
// ChatID returns them, selects; empty selects all. It looks at each dead letter, and
// keeps no more than 2n at a time.
func (s *Scheduler) DeadLetters(after uint64, n int, chats []uint64) []DeadLetter {
	sel := Selection{Chats: chats, All: len(chats) == 0}
	m := sel.matcher()
	var all []DeadLetter
	add := func(d DeadLetter) {
		if all = append(all, d); len(all)/2 >= n {
			all = firstLetters(all, n)
		}
	}
	for _, l := range s.letters {
		if e := s.events.at(l.event); e.sequence > after && m.matches(e) {
			add(DeadLetter{Sequence: e.sequence, Failure: l.failure, Time: time.Unix(0, l.at)})
		}
	}
	for _, c := range s.stoppedChats() {
		for e := range s.events.in(c.waiting) {
			if c.isLetter(e) && e.sequence > after && m.matches(e) {
				add(DeadLetter{
					Sequence: e.sequence,
					Failure:  s.failures[e.sequence],
					State:    c.stoppedState(),
					Time:     time.Unix(0, c.trouble.since),
				})
			}
		}
	}
	return firstLetters(all, n)
}

// firstLetters returns the first n of all, in order.
func firstLetters(all []DeadLetter, n int) []DeadLetter {
	slices.SortFunc(all, func(a, b DeadLetter) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return all[:min(n, len(all))]
}
