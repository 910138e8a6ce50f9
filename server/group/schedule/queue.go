package schedule

// A queue is chats, first in, first out. The zero is empty.
type queue struct {
	first, last ref
}

// links returns where the neighbours of a chat in its queue are kept.
func (s *Scheduler) links(r ref) (next, prev *ref) {
	if c := s.chats.chat(r); c != nil {
		return &c.next, &c.prev
	}
	return &s.events.at(s.foldedList(r).tail).next, &s.events.at(r).prev
}

// push puts a chat at the end of q.
func (s *Scheduler) push(q *queue, r ref) {
	s.link(q, q.last, r)
	s.link(q, r, 0) // the end
}

// remove takes a chat out of q.
func (s *Scheduler) remove(q *queue, r ref) {
	next, prev := s.links(r)
	s.link(q, *prev, *next)
	*next, *prev = 0, 0
}

// link makes b the one after a in q; 0 is an end of it.
func (s *Scheduler) link(q *queue, a, b ref) {
	if a == 0 {
		q.first = b
	} else {
		next, _ := s.links(a)
		*next = b
	}
	if b == 0 {
		q.last = a
	} else {
		_, prev := s.links(b)
		*prev = a
	}
}
