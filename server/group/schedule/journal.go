package schedule

import (
	"encoding/binary"
	"math"
	"time"
)

// The operations of a journal. Each is followed by its arguments, and each is
// one call of the method that changes the state, so that replaying is calling
// them again. The numbers are stored: never change one.
const (
	opTime      byte = 1 + iota // now
	opRead                      // position: the log was read up to it
	opMember                    // name: the batch's next member
	opHand                      // member, streaming, chat, sequences
	opAck                       // lease
	opFail                      // lease, cause, reason, delay
	opRelease                   // lease, not me
	opExtend                    // lease, until
	opStart                     //
	opRewind                    // now
	opConfigure                 // config
	opSeek                      // next
	opSeekChats                 // chats, next, events
	opRedrive                   // selection, events a second
	opDiscard                   // selection
	opDrop                      // sequences
	opTruncate                  // first
)

// A journal is the operations since the last Flush.
type journal struct {
	encoder
	spare    []byte // the buffer before, which the last Output has
	now      int64  // as the operations say so far
	position uint64
	lease    uint64 // the last one named in this batch
	batch    uint64 // number of this batch, from 0
	members  uint64 // named in this batch
}

// maxSpare is how large a buffer is kept, in bytes.
const maxSpare = 1 << 20

// cut begins a new batch.
func (j *journal) cut() {
	j.buf, j.spare = j.spare[:0], j.buf
	if cap(j.buf) > maxSpare {
		j.buf = nil
	}
	j.lease, j.members = 0, 0
	j.batch++
}

// begin writes the head of an operation that happens now.
func (s *Scheduler) begin(op byte) {
	j := &s.journal
	if s.now != j.now {
		j.byte(opTime)
		j.varint(s.now)
		j.now = s.now
	}
	if s.position != j.position {
		j.byte(opRead)
		j.uvarint(s.position)
		j.position = s.position
	}
	j.byte(op)
}

// beginLease writes the head of an operation on a lease.
func (s *Scheduler) beginLease(op byte, l *lease) {
	s.begin(op)
	s.journal.varint(int64(l.id - s.journal.lease))
	s.journal.lease = l.id
}

// handed writes that a lease was handed out.
func (j *journal) handed(s *Scheduler, l *lease) {
	m := l.member
	if m.batch != j.batch+1 {
		s.begin(opMember)
		j.string(m.name)
		m.batch, m.index = j.batch+1, j.members
		j.members++
	}
	s.begin(opHand)
	j.uvarint(m.index)
	j.bool(l.streaming)
	j.fixed(l.chat.key)
	j.uvarint(uint64(l.events.count))
	var last uint64
	for i := l.events.head; i != 0; i = s.events.at(i).next {
		e := s.events.at(i)
		j.varint(int64(e.sequence - last))
		last = e.sequence
	}
}

// An encoder appends values to a buffer.
type encoder struct{ buf []byte }

func (e *encoder) byte(b byte)      { e.buf = append(e.buf, b) }
func (e *encoder) uvarint(n uint64) { e.buf = binary.AppendUvarint(e.buf, n) }
func (e *encoder) varint(n int64)   { e.buf = binary.AppendVarint(e.buf, n) }
func (e *encoder) fixed(n uint64)   { e.buf = binary.LittleEndian.AppendUint64(e.buf, n) }

func (e *encoder) bool(b bool) {
	if b {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

func (e *encoder) string(v string) {
	e.uvarint(uint64(len(v)))
	e.buf = append(e.buf, v...)
}

func (e *encoder) sequences(all []uint64) {
	e.uvarint(uint64(len(all)))
	var last uint64
	for _, n := range all {
		e.varint(int64(n - last))
		last = n
	}
}

func (e *encoder) selection(sel Selection) {
	e.bool(sel.All)
	e.sequences(sel.Sequences)
	e.sequences(sel.Chats)
}

func (e *encoder) events(all []Event) {
	e.uvarint(uint64(len(all)))
	for i := range all {
		v := &all[i]
		e.uvarint(v.Sequence)
		e.fixed(v.Chat)
		e.varint(v.Received.UnixNano())
		e.varint(v.sent())
		e.uvarint(uint64(clampSize(v.Size)))
		e.uvarint(v.Revises)
	}
}

func (e *encoder) config(c Config) {
	e.byte(byte(c.Order))
	e.varint(int64(c.Lease.Duration))
	e.varint(int64(c.Lease.MaxTotal))
	e.varint(int64(c.Lease.ReconnectGrace))
	e.bool(c.Lease.ExtendWhileConnected)
	e.uvarint(uint64(len(c.Retry.Backoff)))
	for _, d := range c.Retry.Backoff {
		e.varint(int64(d))
	}
	e.varint(int64(c.Retry.MaxAttempts))
	e.byte(byte(c.Retry.OnExhausted))
	e.varint(int64(c.Turn.Quiet))
	e.varint(int64(c.Turn.MaxWait))
	e.varint(int64(c.Turn.MaxEvents))
	e.varint(int64(c.Turn.MaxBytes))
	e.varint(int64(c.Limits.MaxOutstanding))
	e.varint(int64(c.Limits.MaxPerChat))
	e.varint(int64(c.Limits.MaxPerSecond))
	e.varint(int64(c.Limits.MaxBlockedChats))
	e.varint(int64(c.Limits.MaxDeadLetters))
	e.varint(int64(c.Limits.MaxPending))
	e.bool(c.Paused)
}

// A decoder takes values from a buffer. After the first that is malformed bad
// is set, and everything it returns is zero.
type decoder struct {
	buf []byte
	bad bool
}

// fail marks the buffer as malformed.
func (d *decoder) fail() { d.buf, d.bad = nil, true }

func (d *decoder) byte() byte {
	if len(d.buf) == 0 {
		d.fail()
		return 0
	}
	b := d.buf[0]
	d.buf = d.buf[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	n, size := binary.Uvarint(d.buf)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[size:]
	return n
}

func (d *decoder) varint() int64 {
	n, size := binary.Varint(d.buf)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.buf = d.buf[size:]
	return n
}

func (d *decoder) fixed() uint64 {
	if len(d.buf) < 8 {
		d.fail()
		return 0
	}
	n := binary.LittleEndian.Uint64(d.buf)
	d.buf = d.buf[8:]
	return n
}

func (d *decoder) bool() bool { return d.byte() != 0 }

// int returns a varint that is from 0 to 2³¹-1, or -1.
func (d *decoder) int() int {
	n := d.varint()
	if n < -1 || n > math.MaxInt32 {
		d.fail()
		return 0
	}
	return int(n)
}

// duration returns a varint that is a duration.
func (d *decoder) duration() time.Duration { return time.Duration(max(d.varint(), 0)) }

// count returns the number of things that follow, of at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.buf)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) string() string {
	n := d.count(1)
	v := string(d.buf[:n])
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) sequences() []uint64 {
	all := make([]uint64, d.count(1))
	var last uint64
	for i := range all {
		last += uint64(d.varint())
		all[i] = last
	}
	return all
}

func (d *decoder) selection() Selection {
	return Selection{All: d.bool(), Sequences: d.sequences(), Chats: d.sequences()}
}

func (d *decoder) events() []Event {
	all := make([]Event, d.count(12))
	for i := range all {
		all[i] = Event{
			Sequence: d.uvarint(),
			Chat:     d.fixed(),
			Received: time.Unix(0, d.varint()),
			Sent:     time.Unix(0, d.varint()),
			Size:     int(min(d.uvarint(), math.MaxInt32)),
			Revises:  d.uvarint(),
		}
	}
	return all
}

func (d *decoder) config() Config {
	c := Config{Order: Order(d.byte())}
	c.Lease.Duration = d.duration()
	c.Lease.MaxTotal = d.duration()
	c.Lease.ReconnectGrace = d.duration()
	c.Lease.ExtendWhileConnected = d.bool()
	for range d.count(1) {
		c.Retry.Backoff = append(c.Retry.Backoff, d.duration())
	}
	c.Retry.MaxAttempts = d.int()
	c.Retry.OnExhausted = OnExhausted(d.byte())
	c.Turn.Quiet = d.duration()
	c.Turn.MaxWait = d.duration()
	c.Turn.MaxEvents = d.int()
	c.Turn.MaxBytes = d.int()
	c.Limits.MaxOutstanding = d.int()
	c.Limits.MaxPerChat = d.int()
	c.Limits.MaxPerSecond = d.int()
	c.Limits.MaxBlockedChats = d.int()
	c.Limits.MaxDeadLetters = d.int()
	c.Limits.MaxPending = d.int()
	c.Paused = d.bool()
	if c.Order > Total || c.Retry.OnExhausted > BlockChat || c.Turn.Quiet > 0 && (c.Turn.MaxEvents < 1 || c.Turn.MaxBytes < 1) {
		d.fail()
	}
	return c
}
