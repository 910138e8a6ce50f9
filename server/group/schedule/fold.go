package schedule

import (
	"cmp"
	"iter"
	"slices"
)

// maxFolded is how many events a chat that is folded has at most: finding the
// last takes a step for each, and with more of them what is saved is little.
const maxFolded = 8

// fold forgets c itself when its events say it all: they are few, simply wait,
// and c is in no queue but ready. There can be millions of such chats, and each
// costs nothing but its slot in the table.
func (s *Scheduler) fold(c *chat) {
	if c.waiting.count > maxFolded || c.leases != nil || c.trouble != nil || c.flags != 0 || c.in > inReady {
		return
	}
	*s.chats.find(c.key) = c.waiting.head
	s.chats.forget(c)
	head := s.events.at(c.waiting.head)
	head.folded = uint8(c.waiting.count)
	if c.in == inReady {
		head.queued = true
		s.relink(c.prev, c.waiting.head, c.next)
	}
}

// unfold returns a chat to change; place it afterwards.
func (s *Scheduler) unfold(r ref) *chat {
	if c := s.chats.chat(r); c != nil {
		return c
	}
	c := &chat{key: s.chats.key(r), waiting: s.foldedList(r)}
	slot := s.chats.find(c.key)
	s.chats.number(c)
	*slot = c.ref

	head, tail := s.events.at(r), s.events.at(c.waiting.tail)
	if head.queued {
		c.in = inReady
		s.relink(head.prev, c.ref, tail.next)
	}
	head.folded, head.queued, head.prev, tail.next = 0, false, 0, 0
	return c
}

// relink puts a chat under its new ref between its neighbours in ready.
func (s *Scheduler) relink(prev, r, next ref) {
	s.link(&s.ready, prev, r)
	s.link(&s.ready, r, next)
}

// foldedList returns the events of a chat that is folded.
func (s *Scheduler) foldedList(r ref) list {
	l := list{head: r, tail: r, count: uint32(s.events.at(r).folded)}
	for range l.count - 1 {
		l.tail = s.events.at(l.tail).next
	}
	return l
}

// view returns a chat to look at, folded or not, but for its place in a queue.
func (s *Scheduler) view(r ref) chat {
	if c := s.chats.chat(r); c != nil {
		return *c
	}
	return chat{key: s.chats.key(r), waiting: s.foldedList(r)}
}

// allChats yields all chats, to look at.
func (s *Scheduler) allChats() iter.Seq[*chat] {
	return func(yield func(*chat) bool) {
		var v chat
		for r := range s.chats.all() {
			v = s.view(r)
			if !yield(&v) {
				return
			}
		}
	}
}

// inOrder returns all chats, by the place of what they wait for.
func (s *Scheduler) inOrder() []ref {
	type keyed struct {
		place, key uint64
		ref        ref
	}
	all := make([]keyed, 0, s.chats.len)
	for r := range s.chats.all() {
		c := s.view(r)
		k := keyed{key: c.key, ref: r}
		if c.waiting.head != 0 {
			k.place = s.events.place(s.events.at(c.waiting.head))
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b keyed) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.key, b.key))
	})
	refs := make([]ref, len(all))
	for i, k := range all {
		refs[i] = k.ref
	}
	return refs
}

// chatsInOrder yields all chats, by the place of what they wait for, each
// unfolded. The caller places them.
func (s *Scheduler) chatsInOrder() iter.Seq[*chat] {
	return func(yield func(*chat) bool) {
		for _, r := range s.inOrder() {
			if !yield(s.unfold(r)) {
				return
			}
		}
	}
}
