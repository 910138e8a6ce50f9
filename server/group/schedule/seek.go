package schedule

import (
	"math"
	"slices"
)

// Seek moves the group: the next event it reads is next. What waits or is out
// is dropped, and so are dead letters from there on; earlier ones stay. No chat
// is stopped afterwards. The owner appends from next on.
func (s *Scheduler) Seek(next uint64) {
	s.begin(opSeek)
	s.journal.uvarint(next)
	s.seek(next)
	s.journal.position = s.position
}

func (s *Scheduler) seek(next uint64) {
	for _, l := range s.leasesInOrder() {
		s.revoke(l)
	}
	for c := range s.chatsInOrder() {
		s.unstop(c, next)
		s.clear(c)
	}
	s.dropLetters(next, nil)
	s.seekEnd = max(s.seekEnd, s.position)
	s.position = max(next, 1) - 1
}

// SeekChats moves chats, as ChatID returns them, while the rest of the group
// stays where it is. It does nothing unless the order is ByChat. events are all that the log holds of these
// chats, and the group wants, from next to Position, in order.
func (s *Scheduler) SeekChats(chats []uint64, next uint64, events []Event) {
	s.begin(opSeekChats)
	s.journal.sequences(chats)
	s.journal.uvarint(next)
	s.journal.events(events)
	s.seekChats(chats, next, events)
}

func (s *Scheduler) seekChats(chats []uint64, next uint64, events []Event) {
	if s.cfg.Order != ByChat {
		return
	}
	for _, key := range chats {
		c := s.lookup(key)
		if c == nil {
			continue
		}
		for c.leases != nil {
			s.revoke(c.leases)
		}
		s.unstop(c, next)
		s.clear(c)
	}
	s.dropLetters(next, chats)
	for _, e := range events {
		if e.Sequence <= s.position && slices.Contains(chats, e.Chat) {
			s.dropUnread([]uint64{e.Sequence}) // it can be read again
			c := s.chat(e.Chat)
			if !s.revise(c, e) {
				i := s.add(e, seeked)
				s.events.push(&c.waiting, i)
				s.waits(c, i)
			}
		}
	}
	for _, key := range chats {
		if c := s.lookup(key); c != nil {
			s.place(c)
		}
	}
}

// SeekCount is what a seek to next would do, to the group or, with chats, to
// those: how many events that wait or are out come before it, and are skipped,
// and how many come after, and would have come anyway. Dead letters are
// neither.
func (s *Scheduler) SeekCount(next uint64, chats []uint64) (skipped, anyway int) {
	count := func(c *chat, l list, letters bool) {
		for e := range s.events.in(l) {
			switch {
			case letters && c.isLetter(e), len(chats) > 0 && !slices.Contains(chats, e.chat):
			case e.sequence < next:
				skipped++
			default:
				anyway++
			}
		}
	}
	for c := range s.allChats() {
		count(c, c.waiting, true)
	}
	for _, l := range s.leases {
		count(l.chat, l.events, false)
	}
	return skipped, anyway
}

// clear settles everything that waits in c, of which nothing is out.
func (s *Scheduler) clear(c *chat) {
	s.drop(&c.waiting)
	s.place(c)
}

// dropLetters settles the dead letters from a sequence on; with chats, only
// theirs.
func (s *Scheduler) dropLetters(from uint64, chats []uint64) {
	for n, l := range s.letters {
		if n >= from && (chats == nil || slices.Contains(chats, s.events.at(l.event).chat)) {
			delete(s.letters, n)
			s.settle(l.event)
		}
	}
}

// Waiting returns the sequences of all events that were not handed out or are
// to be again, without dead letters, in order. When the filter changes, the
// owner asks for them, and gives those that no longer match to Drop.
func (s *Scheduler) Waiting() []uint64 {
	all := make([]uint64, 0, s.events.live)
	for c := range s.allChats() {
		for e := range s.events.in(c.waiting) {
			if !c.isLetter(e) {
				all = append(all, e.sequence)
			}
		}
	}
	slices.Sort(all)
	return all
}

// Drop settles those of the events that wait, as far as Waiting returns them.
// Even without any it puts Position into the journal: what is read after it may
// be read with another filter.
func (s *Scheduler) Drop(sequences []uint64) {
	s.begin(opDrop)
	s.journal.sequences(sequences)
	s.dropWaiting(sequences)
}

func (s *Scheduler) dropWaiting(sequences []uint64) {
	m := (&Selection{Sequences: sequences}).matcher()
	for c := range s.chatsInOrder() {
		s.sift(c, func(e *event) bool { return m.sequences[e.sequence] && !c.isLetter(e) })
	}
}

// Truncate says that the log holds nothing before first any more. What waits
// there is settled, and so are dead letters.
func (s *Scheduler) Truncate(first uint64) {
	if first <= s.position+1 && !s.holdsBefore(first) {
		return
	}
	s.begin(opTruncate)
	s.journal.uvarint(first)
	s.truncate(first)
}

// holdsBefore returns whether a dead letter or something that waits may be before
// first. It does not look at the chats, but at those that are stopped.
func (s *Scheduler) holdsBefore(first uint64) bool {
	if first <= s.lowest {
		return false
	}
	if e := s.events.oldest(); e != nil && s.events.place(e) < first {
		return true
	}
	for c := range s.stopped {
		if s.events.place(s.events.at(c.waiting.head)) < first {
			return true
		}
	}
	for n := range s.letters {
		if n < first {
			return true
		}
	}
	s.lowest = first
	return false
}

func (s *Scheduler) truncate(first uint64) {
	s.position = max(s.position, max(first, 1)-1)
	s.lowest = math.MaxUint64
	for n, l := range s.letters {
		if n < first {
			delete(s.letters, n)
			s.settle(l.event)
		} else {
			s.lowest = min(s.lowest, n)
		}
	}
	for c := range s.chatsInOrder() {
		if n := s.sift(c, func(e *event) bool { return e.sequence < first }); n > 0 {
			s.lowest = min(s.lowest, n)
		}
	}
}

// Cut says that the log has lost what was after end, and goes on there with other
// events. What the group holds of that is dropped; all else it keeps.
func (s *Scheduler) Cut(end uint64) {
	s.begin(opCut)
	s.journal.uvarint(end)
	s.cut(end)
	s.journal.position = s.position
}

func (s *Scheduler) cut(end uint64) {
	gone := func(e *event) bool { return e.sequence > end }
	for _, l := range s.leasesInOrder() {
		for e := range s.events.in(l.events) {
			if gone(e) {
				s.revoke(l)
				break
			}
		}
	}
	for c := range s.chatsInOrder() {
		s.sift(c, gone)
	}
	s.dropLetters(end+1, nil)
	s.position, s.seekEnd = min(s.position, end), min(s.seekEnd, end)
}
