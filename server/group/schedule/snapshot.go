package schedule

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
	"time"
)

// snapshotVersion is the first byte of a snapshot. The last four are the CRC-32
// of all before them.
const snapshotVersion = 2

// Snapshot returns all that survives a restart. It replaces the journal up to
// the last Flush, so it is taken right after one.
func (s *Scheduler) Snapshot() []byte {
	w := writer{encoder: encoder{buf: []byte{snapshotVersion}}, s: s}
	w.config(s.cfg)
	w.varint(s.now)
	w.uvarint(s.position)
	w.uvarint(s.seekEnd)
	w.uvarint(s.nextLease)
	w.int(s.redriveRate)

	w.uvarint(s.endings.floor)
	w.count(len(s.endings.order))
	for _, id := range s.endings.order {
		w.near(id, w.last)
		w.byte(byte(s.endings.how[id]))
		w.last = id
	}
	w.count(s.chats.len)
	for _, r := range s.inOrder() {
		c := s.view(r)
		w.chat(&c)
	}
	w.count(len(s.letters))
	for _, n := range slices.Sorted(maps.Keys(s.letters)) {
		l := s.letters[n]
		w.event(s.events.at(l.event), 0)
		w.varint(l.at)
		w.failure(l.failure)
	}
	return binary.LittleEndian.AppendUint32(w.buf, crc32.ChecksumIEEE(w.buf))
}

// A writer encodes a snapshot. Numbers that tend to be near those before them
// are written as differences.
type writer struct {
	encoder

	s        *Scheduler
	last     uint64 // sequence, or lease
	received int64
}

func (w *writer) chat(c *chat) {
	w.fixed(c.key)
	w.byte(c.flags)
	w.bool(c.trouble != nil)
	if t := c.trouble; t != nil {
		w.varint(t.until)
		w.byte(byte(t.state))
		w.varint(t.since)
		w.count(len(t.refusals))
		for _, r := range t.refusals {
			w.string(r.member)
			w.varint(r.until)
		}
	}
	w.list(c.waiting, c.key)
	w.count(int(c.out))
	l := c.leases
	for range c.out {
		w.uvarint(l.id)
		w.string(l.member.name)
		w.bool(l.streaming)
		w.int(l.attempt)
		w.varint(l.granted)
		w.varint(l.until)
		w.uvarint(l.fence)
		w.list(l.events, c.key)
		l = l.next
	}
}

func (w *writer) list(l list, key uint64) {
	w.count(int(l.count))
	for e := range w.s.events.in(l) {
		w.event(e, key)
	}
}

// ownChat is a flag of stored events only: the event's chat is not the key of
// the chat it is in, and follows.
const ownChat uint8 = 1 << 7

func (w *writer) event(e *event, key uint64) {
	if e.chat == key {
		w.byte(e.flags & stored)
	} else {
		w.byte(e.flags&stored | ownChat)
		w.fixed(e.chat)
	}
	w.near(e.sequence, w.last)
	w.varint(e.received - w.received)
	w.varint(e.sent - e.received)
	w.uvarint(uint64(e.size))
	revised := w.s.events.revised(e)
	w.uvarint(uint64(revised.back))
	w.uvarint(uint64(revised.first))
	if e.flags&failed != 0 {
		w.failure(w.s.failures[e.sequence])
	}
	w.last, w.received = e.sequence, e.received
}

func (w *writer) failure(f *Failure) {
	w.bool(f != nil)
	if f == nil {
		return
	}
	w.byte(byte(f.Cause))
	w.string(f.Reason)
	w.string(f.Member)
	w.int(f.Attempt)
	w.varint(f.Time.UnixNano())
}

// Restore returns the scheduler that Snapshot wrote, or ErrCorrupt. Call Replay
// for what came after, and then Start.
func Restore(snapshot []byte) (*Scheduler, error) {
	end := len(snapshot) - 4
	if end < 1 || snapshot[0] != snapshotVersion ||
		crc32.ChecksumIEEE(snapshot[:end]) != binary.LittleEndian.Uint32(snapshot[end:]) {
		return nil, ErrCorrupt
	}
	s := New(Config{}, 0, 1)
	r := reader{decoder: decoder{buf: snapshot[1:end]}, s: s}
	s.cfg = r.config()
	s.now = r.varint()
	s.position = r.uvarint()
	s.seekEnd = r.uvarint()
	s.nextLease = r.uvarint()
	s.redriveRate = r.int()

	s.endings.floor = r.uvarint()
	for range r.count(2) {
		r.last = r.near(r.last)
		s.endings.add(r.last, ending(r.byte()))
	}
	for range r.count(10) {
		r.chat()
	}
	for range r.count(6) {
		i := r.event(0)
		s.events.at(i).flags |= aside
		s.lowest = min(s.lowest, s.events.at(i).sequence)
		l := &letter{event: i, at: r.varint(), failure: r.failure()}
		n := s.events.at(i).sequence
		r.check(s.letters[n] == nil)
		s.letters[n] = l
	}
	if r.bad || len(r.buf) > 0 {
		return nil, ErrCorrupt
	}
	return s, nil
}

// A reader decodes a snapshot.
type reader struct {
	decoder

	s        *Scheduler
	last     uint64
	received int64
}

// check refuses a snapshot that is not as it should be.
func (r *reader) check(ok bool) {
	if !ok {
		r.fail()
	}
}

func (r *reader) chat() {
	s := r.s
	key := r.fixed()
	r.check(s.chats.get(key) == 0)
	c := s.chat(key)
	c.flags = r.byte()
	if r.bool() {
		t := &trouble{until: r.varint(), state: State(r.byte()), since: r.varint()}
		for range r.count(2) {
			t.refusals = append(t.refusals, refusal{member: r.string(), until: r.varint()})
		}
		s.setTrouble(c, t)
	}
	r.list(&c.waiting, c.key)
	for i := range s.events.indices(c.waiting) {
		s.waits(c, i)
		if c.trouble != nil && s.events.at(i).flags&stopper != 0 {
			c.trouble.stoppers++
		}
	}
	for range r.count(8) {
		l := &lease{chat: c, id: r.uvarint(), member: s.member(r.string())}
		l.streaming = r.bool()
		l.attempt = r.int()
		l.granted = r.varint()
		l.until = r.varint()
		l.fence = r.uvarint()
		r.check(s.leases[l.id] == nil)
		r.list(&l.events, c.key)
		if l.events.count == 0 { // nothing is out without events
			r.fail()
			return
		}
		for i := range s.events.indices(l.events) {
			s.events.enter(i)
			l.bytes += int(s.events.at(i).size)
		}
		s.grant(l)
	}
	for e := range s.events.in(c.waiting) {
		r.check(s.keyOf(e) == key) // a folded chat's key is that of its events
	}
	if c.waiting.count == 0 && c.out == 0 { // such a chat is forgotten, not saved
		r.fail()
		return
	}
	s.place(c)
}

func (r *reader) list(l *list, key uint64) {
	for range r.count(7) {
		r.s.events.push(l, r.event(key))
	}
}

func (r *reader) event(key uint64) uint32 {
	i := r.s.events.alloc()
	e := r.s.events.at(i)
	*e = event{flags: r.byte(), chat: key}
	if e.flags&ownChat != 0 {
		e.flags &^= ownChat
		e.chat = r.fixed()
	}
	e.flags &= stored
	e.sequence = r.near(r.last)
	e.received = r.received + r.varint()
	e.sent = e.received + r.varint()
	e.size = r.uint32()
	_, known := r.s.events.revisions[e.sequence]
	r.check(!known)
	r.s.events.revise(e, revised{back: r.uint32(), first: r.uint32()})
	if e.flags&failed != 0 {
		f := r.failure()
		r.check(f != nil && r.s.failures[e.sequence] == nil)
		r.s.failures[e.sequence] = f
	}
	r.last, r.received = e.sequence, e.received
	return i
}

func (r *reader) failure() *Failure {
	if !r.bool() {
		return nil
	}
	return &Failure{
		Cause:   Cause(r.byte()),
		Reason:  r.string(),
		Member:  r.string(),
		Attempt: r.int(),
		Time:    time.Unix(0, r.varint()),
	}
}
