package schedule

import "iter"

// A ref stands for a chat: the index of its first event when it is folded, else
// its number in table.chats with the bit unfolded. 0 is none.
type ref = uint32

const unfolded ref = 1 << 31

// A table finds chats by key: open addressing with linear probing, at a few
// bytes for each, which matters when each of a million events is a chat of its
// own.
type table struct {
	slots []ref // a power of two of them, at most three quarters in use
	len   int   // chats
	chats []*chat
	spare []ref // of chats that are nil

	// key returns the key of a chat that is folded.
	key func(ref) uint64
}

// chat returns the chat of a ref; nil when it is folded.
func (t *table) chat(r ref) *chat {
	if r&unfolded == 0 {
		return nil
	}
	return t.chats[r&^unfolded]
}

// home is the slot where the search for a key begins.
func (t *table) home(key uint64) int {
	// Keys can be sequences: multiplying by 2⁶⁴/φ spreads them over the high bits.
	return int(key*0x9E3779B97F4A7C15>>32) & (len(t.slots) - 1)
}

// keyOf returns the key of a chat.
func (t *table) keyOf(r ref) uint64 {
	if c := t.chat(r); c != nil {
		return c.key
	}
	return t.key(r)
}

// find returns the slot of a key: that of its chat, or the free one where it
// would be.
func (t *table) find(key uint64) *ref {
	i := t.home(key)
	for t.slots[i] != 0 && t.keyOf(t.slots[i]) != key {
		i = (i + 1) & (len(t.slots) - 1)
	}
	return &t.slots[i]
}

// get returns the ref of a key; 0 when there is none.
func (t *table) get(key uint64) ref {
	if t.len == 0 {
		return 0
	}
	return *t.find(key)
}

// add puts a chat in whose key is not there.
func (t *table) add(c *chat) {
	if 4*(t.len+1) > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]ref, max(16, 2*len(old)))
		for _, r := range old {
			if r != 0 {
				*t.find(t.keyOf(r)) = r
			}
		}
	}
	t.number(c)
	*t.find(c.key) = c.ref
	t.len++
}

// number gives a chat a ref.
func (t *table) number(c *chat) {
	if n := len(t.spare); n > 0 {
		c.ref = t.spare[n-1]
		t.spare = t.spare[:n-1]
	} else {
		c.ref = unfolded | ref(len(t.chats)) //nolint:gosec // so many do not fit in memory
		t.chats = append(t.chats, nil)
	}
	t.chats[c.ref&^unfolded] = c
}

// forget takes the ref of a chat back.
func (t *table) forget(c *chat) {
	t.chats[c.ref&^unfolded] = nil
	t.spare = append(t.spare, c.ref)
}

// remove takes a chat out, and moves those behind it up that would not be found
// otherwise. When none is left, so is the memory of all but a few.
func (t *table) remove(c *chat) {
	t.len--
	if t.len == 0 && len(t.slots) > chunk {
		*t = table{key: t.key}
		return
	}
	mask := len(t.slots) - 1
	free := t.home(c.key)
	for t.slots[free] != c.ref {
		free = (free + 1) & mask
	}
	for i := (free + 1) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if home := t.home(t.keyOf(t.slots[i])); (i-home)&mask >= (i-free)&mask {
			t.slots[free] = t.slots[i]
			free = i
		}
	}
	t.slots[free] = 0
	t.forget(c)
}

// all yields the refs of all chats. None may be added or removed meanwhile.
func (t *table) all() iter.Seq[ref] {
	return func(yield func(ref) bool) {
		for _, r := range t.slots {
			if r != 0 && !yield(r) {
				return
			}
		}
	}
}
