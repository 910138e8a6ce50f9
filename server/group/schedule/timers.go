package schedule

import "math"

// never is later than every time.
const never = math.MaxInt64

// timers is a heap of things by the time at which they are due. A thing is in
// it at most once, and knows where. The zero is empty.
type timers[T interface {
	// slot is where the thing keeps its position in the heap, from 1; 0 when
	// it is not in it.
	slot() *int32

	// rank orders things that are due at the same time.
	rank() uint64
}] struct {
	items []timer[T]
}

type timer[T any] struct {
	at    int64
	thing T
}

// next is when the first thing is due; never when there is none.
func (h *timers[T]) next() int64 {
	if len(h.items) == 0 {
		return never
	}
	return h.items[0].at
}

// pop takes the first thing out if it is due at now.
func (h *timers[T]) pop(now int64) (thing T, ok bool) {
	if h.next() > now {
		return thing, false
	}
	thing = h.items[0].thing
	h.remove(thing)
	return thing, true
}

// set makes a thing due at a time.
func (h *timers[T]) set(thing T, at int64) {
	slot := thing.slot()
	if *slot == 0 {
		h.items = append(h.items, timer[T]{})
		*slot = int32(len(h.items)) //nolint:gosec // a heap of so many does not fit in memory
	}
	i := int(*slot) - 1
	h.items[i] = timer[T]{at, thing}
	h.fix(i)
}

// remove takes a thing out, if it is in.
func (h *timers[T]) remove(thing T) {
	slot := thing.slot()
	if *slot == 0 {
		return
	}
	i, last := int(*slot)-1, len(h.items)-1
	*slot = 0
	moved := h.items[last]
	h.items[last] = timer[T]{}
	h.items = h.items[:last]
	if i < last {
		h.items[i] = moved
		h.fix(i)
	}
}

// shift makes everything due earlier by d.
func (h *timers[T]) shift(d int64) {
	for i := range h.items {
		h.items[i].at -= d
	}
}

// fix moves the item at i to where it belongs.
func (h *timers[T]) fix(i int) {
	it := h.items[i]
	for i > 0 {
		up := (i - 1) / 2
		if !h.before(&it, &h.items[up]) {
			break
		}
		h.place(i, h.items[up])
		i = up
	}
	for {
		down := 2*i + 1
		if down >= len(h.items) {
			break
		}
		if down+1 < len(h.items) && h.before(&h.items[down+1], &h.items[down]) {
			down++
		}
		if !h.before(&h.items[down], &it) {
			break
		}
		h.place(i, h.items[down])
		i = down
	}
	h.place(i, it)
}

func (h *timers[T]) place(i int, it timer[T]) {
	h.items[i] = it
	*it.thing.slot() = int32(i + 1) //nolint:gosec // as in set
}

func (h *timers[T]) before(a, b *timer[T]) bool {
	return a.at < b.at || a.at == b.at && a.thing.rank() < b.thing.rank()
}
