package schedule

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestChats compares the chats that are ready, of which most are folded most of
// the time, with a list.
func TestChats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(Config{}, 0, 1)
		s.live = true
		var ready []uint64               // keys
		waiting := map[uint64][]uint64{} // sequences by key
		// Keys that share a home are what probing is about.
		key := rapid.OneOf(rapid.Uint64Range(0, 20), rapid.Uint64())
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				k := key.Draw(t, "key")
				for range rapid.IntRange(1, maxFolded+2).Draw(t, "events") {
					next++
					s.Append(Event{Sequence: next, Chat: k})
					if waiting[k] == nil {
						ready = append(ready, k)
					}
					waiting[k] = append(waiting[k], next)
				}
			},
			"settle": func(t *rapid.T) { // the first of any chat, which then is the last to be ready
				if len(ready) == 0 {
					return
				}
				k := rapid.SampledFrom(ready).Draw(t, "ready")
				c := s.lookup(k)
				s.dequeue(c)
				s.settle(s.events.pop(&c.waiting))
				s.place(c)
				i := slices.Index(ready, k)
				ready = slices.Delete(ready, i, i+1)
				if waiting[k] = waiting[k][1:]; len(waiting[k]) > 0 {
					ready = append(ready, k)
				} else {
					delete(waiting, k)
				}
			},
			"": func(t *rapid.T) {
				var got []uint64
				for r := s.ready.first; r != 0; {
					got = append(got, s.chats.keyOf(r))
					next, _ := s.links(r)
					if r = *next; r == 0 && s.chats.keyOf(s.ready.last) != got[len(got)-1] {
						t.Fatalf("the last that is ready is not the end of the queue")
					}
				}
				if !slices.Equal(got, ready) {
					t.Fatalf("ready are %v, want %v", got, ready)
				}
				n := 0
				for c := range s.allChats() {
					n++
					var got []uint64
					for e := range s.events.in(c.waiting) {
						got = append(got, e.sequence)
					}
					if !slices.Equal(got, waiting[c.key]) {
						t.Fatalf("in chat %d wait %v, want %v", c.key, got, waiting[c.key])
					}
					if folded := s.chats.chat(s.chats.get(c.key)) == nil; folded != (len(got) <= maxFolded) {
						t.Fatalf("a chat of %d events: folded is %v", len(got), folded)
					}
				}
				if n != len(waiting) || s.chats.len != n {
					t.Fatalf("there are %d chats of %d, want %d", n, s.chats.len, len(waiting))
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
	}, 0, 1)
	s.Grant("ann", Credits{Events: 1 << 20, Bytes: 1})
	for n := uint64(1); n <= 10_000; n++ {
		s.Append(Event{Sequence: n, Chat: n % 7777})
	}
	s.live = true
	for c := range s.chatsInOrder() {
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

// TestLookingAtAGroupCostsNothingForChatsThatWait asks how a group of many chats
// stands, and says that retention has passed: no chat that simply waits is looked
// at for that.
func TestLookingAtAGroupCostsNothingForChatsThatWait(t *testing.T) {
	const chats = 10_000
	now := time.Unix(1_700_000_000, 0)
	s := New(Config{
		Lease:  Lease{Duration: time.Hour, MaxTotal: time.Hour},
		Retry:  Retry{Backoff: []time.Duration{time.Hour}, MaxAttempts: 1, OnExhausted: BlockChat},
		Limits: Limits{MaxOutstanding: 10, MaxPerChat: 1, MaxBlockedChats: 2, MaxDeadLetters: 10},
	}, 0, 1)
	s.Start(now)
	s.Grant("ann", Credits{Events: 4, Bytes: 1 << 20})
	for n := uint64(1); n <= chats; n++ {
		s.Append(Event{Sequence: n, Chat: n, Received: now})
	}
	for _, d := range s.Flush().Deliveries { // of which two block their chats, and two are tried again
		s.Settle(d.Lease, Verdict{Kind: Nack})
	}
	s.Grant("ann", Credits{})
	s.Flush()

	looks := 0
	key := s.chats.key
	s.chats.key = func(r ref) uint64 { looks++; return key(r) }
	want := Status{Waiting: chats - 2, DeadLetters: 2, Troubled: 4, Stopped: 2, OldestSequence: 1, OldestTime: now}
	for range 3 {
		if got := s.Status(); got != want {
			t.Fatalf("Status() = %+v, want %+v", got, want)
		}
		if got := s.TroubledChats(10); len(got) != 4 {
			t.Errorf("TroubledChats() = %+v, want four", got)
		}
		if got := s.DeadLetters(0, 10, nil); len(got) != 2 {
			t.Errorf("DeadLetters() = %+v, want two", got)
		}
		s.Truncate(1)
	}
	if looks > 0 {
		t.Errorf("chats that wait were looked at %d times, want none", looks)
	}
	if got := testing.AllocsPerRun(10, func() { s.Status() }); got > 0 {
		t.Errorf("Status() allocates %v times", got)
	}
	s.Truncate(5) // which has something to drop
	if got := s.Status(); got.Waiting != chats-4 || got.Troubled != 0 || got.OldestSequence != 5 {
		t.Errorf("Status() after retention = %+v", got)
	}
	looks = 0
	s.Truncate(5) // again
	if looks > 0 {
		t.Errorf("chats were looked at %d times although nothing is before it", looks)
	}
}
