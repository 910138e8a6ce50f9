package schedule

import (
	"cmp"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// TestEventSize holds the promise that a pending event takes 64 bytes at most.
func TestEventSize(t *testing.T) {
	if size := unsafe.Sizeof(event{}); size > 64 {
		t.Errorf("an event has %d bytes, want 64 at most", size)
	}
}

// TestTable compares a table with a map.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table table
		want := map[uint64]*chat{}
		// Keys that share a home are what probing is about.
		key := rapid.OneOf(rapid.Uint64Range(0, 20), rapid.Uint64())
		t.Repeat(map[string]func(*rapid.T){
			"toggle": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if c := want[k]; c != nil {
					table.remove(c)
					delete(want, k)
				} else {
					want[k] = &chat{key: k}
					table.add(want[k])
				}
			},
			"": func(t *rapid.T) {
				for k, c := range want {
					if table.get(k) != c {
						t.Fatalf("get(%d) is another chat", k)
					}
				}
				n := 0
				for c := range table.all() {
					n++
					if want[c.key] != c {
						t.Fatalf("all() has %d", c.key)
					}
				}
				if n != len(want) || table.len != len(want) {
					t.Fatalf("all() has %d of %d, want %d", n, table.len, len(want))
				}
			},
		})
	})
}

// TestTimers compares timers with a list that is sorted.
func TestTimers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h timers[*chat]
		chats := make([]*chat, 8)
		for i := range chats {
			chats[i] = &chat{key: uint64(i)}
		}
		due := map[*chat]int64{}
		which := rapid.SampledFrom(chats)
		at := rapid.Int64Range(0, 9)
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				c := which.Draw(t, "chat")
				due[c] = at.Draw(t, "at")
				h.set(c, due[c])
			},
			"remove": func(t *rapid.T) {
				c := which.Draw(t, "chat")
				h.remove(c)
				delete(due, c)
			},
			"shift": func(*rapid.T) {
				h.shift(1)
				for c := range due {
					due[c]--
				}
			},
			"pop": func(t *rapid.T) {
				now := at.Draw(t, "now")
				var want *chat
				for c, at := range due {
					if at <= now && (want == nil || cmp.Or(cmp.Compare(at, due[want]), cmp.Compare(c.key, want.key)) < 0) {
						want = c
					}
				}
				if got, ok := h.pop(now); got != want || ok != (want != nil) {
					t.Fatalf("pop(%d) = %v, %v", now, got, ok)
				}
				delete(due, want)
			},
		})
	})
}

// TestArena puts events into lists and takes them out: none is lost, and those
// that were given back are used again.
func TestArena(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a arena
		var l list
		var want []uint64
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				n := rapid.Uint64Range(0, 1<<40).Draw(t, "sequence")
				if slices.Contains(want, n) {
					return
				}
				i := a.alloc()
				*a.at(i) = event{sequence: n}
				a.insert(&l, i)
				want = append(want, n)
				slices.Sort(want)
			},
			"pop": func(*rapid.T) {
				if len(want) > 0 {
					a.release(a.pop(&l))
					want = want[1:]
				}
			},
			"": func(t *rapid.T) {
				var got []uint64
				for i := l.head; i != 0; i = a.at(i).next {
					got = append(got, a.at(i).sequence)
					if a.at(i).next == 0 && l.tail != i {
						t.Fatalf("the tail is %d, want %d", l.tail, i)
					}
				}
				if !slices.Equal(got, want) || int(l.count) != len(want) || a.live != len(want) {
					t.Fatalf("the list is %v, want %v", got, want)
				}
			},
		})
	})
}

// TestIdleCostsNothing settles everything: no chat, no lease, no failure and no
// event is left.
func TestIdleCostsNothing(t *testing.T) {
	s := New(Config{
		Lease:  Lease{Duration: 1 << 40, MaxTotal: 1 << 40},
		Limits: Limits{MaxOutstanding: 1 << 20, MaxPerChat: 1},
	}, 0)
	s.Grant("ann", Credits{Events: 1 << 20, Bytes: 1})
	for n := uint64(1); n <= 10_000; n++ {
		s.Append(Event{Sequence: n, Chat: n % 7777})
	}
	s.live = true
	for _, c := range s.chatsInOrder() {
		s.place(c)
	}
	for n := 0; n < 10_000; {
		for _, d := range s.Flush().Deliveries {
			kind := Ack
			if d.Attempt == 1 && d.Sequences[0]%3 == 0 {
				kind = Nack // which is tried again at once
			} else {
				n++
			}
			s.Settle(d.Lease, Verdict{Kind: kind})
		}
	}
	if s.chats.len != 0 || len(s.leases) != 0 || len(s.failures) != 0 || s.events.live != 0 || s.outstanding != 0 || s.queued != 0 ||
		len(s.chatTimers.items)+len(s.leaseTimers.items) != 0 || s.chats.slots != nil || len(s.events.chunks) > 1 {
		t.Errorf("something is left: %d chats, %d leases, %d failures, %d events", s.chats.len, len(s.leases), len(s.failures), s.events.live)
	}
}
