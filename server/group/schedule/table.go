package schedule

import "iter"

// A table finds chats by key: open addressing with linear probing, in half the
// memory of a map, which matters when each of a million events is a chat of its
// own. The zero is empty.
type table struct {
	slots []*chat // a power of two of them, at most three quarters in use
	len   int
}

// home is the slot where the search for a key begins.
func (t *table) home(key uint64) int {
	// Keys can be sequences: multiplying by 2⁶⁴/φ spreads them over the high bits.
	return int(key*0x9E3779B97F4A7C15>>32) & (len(t.slots) - 1)
}

// find returns the slot of a key: that of its chat, or the free one where it
// would be.
func (t *table) find(key uint64) int {
	i := t.home(key)
	for t.slots[i] != nil && t.slots[i].key != key {
		i = (i + 1) & (len(t.slots) - 1)
	}
	return i
}

// get returns the chat of a key; nil when there is none.
func (t *table) get(key uint64) *chat {
	if t.len == 0 {
		return nil
	}
	return t.slots[t.find(key)]
}

// add puts a chat in whose key is not there.
func (t *table) add(c *chat) {
	if 4*(t.len+1) > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]*chat, max(16, 2*len(old)))
		for _, o := range old {
			if o != nil {
				t.slots[t.find(o.key)] = o
			}
		}
	}
	t.slots[t.find(c.key)] = c
	t.len++
}

// remove takes a chat out, and moves those behind it up that would not be found
// otherwise. When none is left, so is the memory of all but a few.
func (t *table) remove(c *chat) {
	t.len--
	if t.len == 0 && len(t.slots) > chunk {
		t.slots = nil
		return
	}
	mask := len(t.slots) - 1
	free := t.find(c.key)
	for i := (free + 1) & mask; t.slots[i] != nil; i = (i + 1) & mask {
		if home := t.home(t.slots[i].key); (i-home)&mask >= (i-free)&mask {
			t.slots[free] = t.slots[i]
			free = i
		}
	}
	t.slots[free] = nil
}

// all yields the chats. None may be added or removed meanwhile.
func (t *table) all() iter.Seq[*chat] {
	return func(yield func(*chat) bool) {
		for _, c := range t.slots {
			if c != nil && !yield(c) {
				return
			}
		}
	}
}
