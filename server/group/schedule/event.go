package schedule

import (
	"cmp"
	"iter"
	"math"
	"slices"
)

// An event is one that is not settled. There can be millions, so it is 48
// bytes, without pointers, and lives in an arena.
type event struct {
	sequence uint64
	chat     uint64 // the event's own, whatever the order
	received int64  // Unix nanoseconds; of the first revision in its place
	sent     int64
	next     uint32 // the one after it in its list; 0 is none
	size     uint32 // bytes
	flags    uint8

	// These are of a chat that is folded, see fold. The next of its last event
	// is that of its queue.
	folded uint8 // in its first event: how many there are; 0 in all others
	queued bool  // in its first event: it is in Scheduler.ready
	prev   ref   // in its first event
}

// The flags of an event.
const (
	closed   uint8 = 1 << iota // its turn was handed out, and takes no more events
	failed                     // Scheduler.failures has its last failure
	stopper                    // its chat is blocked or diverted because of it
	seeked                     // it comes because of a seek
	redriven                   // it comes because of a redrive
	revision                   // arena.revisions has what it revises
	unread                     // a dead letter that could never be read: its chat is not known
	aside                      // a dead letter, or one that waits in a diverted chat: Scheduler.oldest passes it over

	stored = closed | failed | stopper | seeked | redriven | unread // in snapshots
)

// A revised is what an event revises.
type revised struct {
	back  uint32 // how far back in the log its place is
	first uint32 // how far back the first revision is; 0 is itself
}

// A list is events in order of place. The zero is empty. An event is in at most
// one list.
type list struct {
	head, tail uint32 // 0 is none
	count      uint32
}

// An arena holds events by index, from 1, in chunks that never move. The zero
// is empty.
type arena struct {
	chunks    []*[chunk]event
	firsts    []first            // of each chunk
	used      uint32             // indices that were handed out at least once
	spare     uint32             // a list of those that were given back
	live      int                // events held
	revisions map[uint64]revised // by sequence, of few
}

const chunk = 1 << 8

// A first is the least place of a chunk's events that are not aside.
type first struct {
	place uint64 // no event has a lesser one; MaxUint64 when there is none
	stale bool   // the event that had it may be gone
}

func (a *arena) at(i uint32) *event { return &a.chunks[i/chunk][i%chunk] }

// alloc returns the index of an event whose fields are not set.
func (a *arena) alloc() uint32 {
	a.live++
	if i := a.spare; i != 0 {
		a.spare = a.at(i).next
		return i
	}
	a.used++
	if int(a.used/chunk) == len(a.chunks) {
		a.chunks = append(a.chunks, new([chunk]event))
		a.firsts = append(a.firsts, first{place: math.MaxUint64})
	}
	return a.used
}

// release gives an event back that is in no list. When none is left, so is the
// memory of all but a few.
func (a *arena) release(i uint32) {
	a.putAside(i)
	a.revise(a.at(i), revised{})
	a.live--
	if a.live == 0 && len(a.chunks) > 1 {
		*a = arena{}
		return
	}
	*a.at(i) = event{next: a.spare}
	a.spare = i
}

// enter notes that event i, whose place is set, is there and not aside.
func (a *arena) enter(i uint32) {
	e := a.at(i)
	e.flags &^= aside
	f := &a.firsts[i/chunk]
	f.place = min(f.place, a.place(e))
}

// putAside notes that event i is gone, or to be passed over.
func (a *arena) putAside(i uint32) {
	e := a.at(i)
	if f := &a.firsts[i/chunk]; e.flags&aside == 0 && a.place(e) == f.place {
		f.stale = true
	}
	e.flags |= aside
}

// oldest returns the event of the least place that is not aside; nil when there is
// none. It looks into the chunks whose first has gone since, and into one more.
func (a *arena) oldest() *event {
	least := first{place: math.MaxUint64}
	in := -1
	for n := range a.firsts {
		f := &a.firsts[n]
		if f.stale && f.place < least.place {
			f.place, f.stale = math.MaxUint64, false
			if e := a.firstIn(n); e != nil {
				f.place = a.place(e)
			}
		}
		if f.place < least.place {
			least, in = *f, n
		}
	}
	if in < 0 {
		return nil
	}
	return a.firstIn(in)
}

// firstIn returns the event of the least place of a chunk that is not aside; nil when
// there is none.
func (a *arena) firstIn(n int) (first *event) {
	for i := range a.chunks[n] {
		e := &a.chunks[n][i]
		if e.sequence != 0 && e.flags&aside == 0 && (first == nil || a.place(e) < a.place(first)) {
			first = e
		}
	}
	return first
}

// revise sets what e revises; the zero is nothing.
func (a *arena) revise(e *event, r revised) {
	switch {
	case r != revised{}:
		if a.revisions == nil {
			a.revisions = map[uint64]revised{}
		}
		a.revisions[e.sequence] = r
		e.flags |= revision
	case e.flags&revision != 0:
		delete(a.revisions, e.sequence)
		e.flags &^= revision
	}
}

// revised returns what e revises.
func (a *arena) revised(e *event) revised {
	if e.flags&revision == 0 {
		return revised{}
	}
	return a.revisions[e.sequence]
}

// place is where e stands among the events of its chat: its sequence, or that
// of the event whose place it took.
func (a *arena) place(e *event) uint64 { return e.sequence - uint64(a.revised(e).back) }

// root is the sequence of e's first revision.
func (a *arena) root(e *event) uint64 { return e.sequence - uint64(a.revised(e).first) }

// in yields the events of a list, which does not change meanwhile.
func (a *arena) in(l list) iter.Seq[*event] {
	return func(yield func(*event) bool) {
		for i, n := l.head, l.count; n > 0; n-- {
			e := a.at(i)
			if !yield(e) {
				return
			}
			i = e.next
		}
	}
}

// indices yields the indices of the events of a list, which does not change
// meanwhile.
func (a *arena) indices(l list) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i, n := l.head, l.count; n > 0; n-- {
			if !yield(i) {
				return
			}
			i = a.at(i).next
		}
	}
}

// push puts event i at the end of l.
func (a *arena) push(l *list, i uint32) {
	a.at(i).next = 0
	if l.tail == 0 {
		l.head = i
	} else {
		a.at(l.tail).next = i
	}
	l.tail = i
	l.count++
}

// pop takes the first event out of l, which is not empty.
func (a *arena) pop(l *list) uint32 {
	i := l.head
	l.head = a.at(i).next
	if l.head == 0 {
		l.tail = 0
	}
	l.count--
	return i
}

// insert puts event i where it belongs in l, which is usually near the front.
func (a *arena) insert(l *list, i uint32) {
	e := a.at(i)
	place := a.place(e)
	at := &l.head
	for *at != 0 && a.place(a.at(*at)) < place {
		at = &a.at(*at).next
	}
	e.next, *at = *at, i
	if e.next == 0 {
		l.tail = i
	}
	l.count++
}

// sort puts l in order of place.
func (a *arena) sort(l *list) {
	all := make([]uint32, 0, l.count)
	for l.head != 0 {
		all = append(all, a.pop(l))
	}
	slices.SortFunc(all, func(i, j uint32) int { return cmp.Compare(a.place(a.at(i)), a.place(a.at(j))) })
	for _, i := range all {
		a.push(l, i)
	}
}
