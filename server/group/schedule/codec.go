package schedule

import (
	"encoding/binary"
	"math"
	"time"
)

// An encoder appends values to a buffer.
type encoder struct{ buf []byte }

func (e *encoder) byte(b byte)      { e.buf = append(e.buf, b) }
func (e *encoder) uvarint(n uint64) { e.buf = binary.AppendUvarint(e.buf, n) }
func (e *encoder) varint(n int64)   { e.buf = binary.AppendVarint(e.buf, n) }
func (e *encoder) fixed(n uint64)   { e.buf = binary.LittleEndian.AppendUint64(e.buf, n) }

// int writes an int that decoder.int takes.
func (e *encoder) int(n int) { e.varint(int64(n)) }

// count writes how many things follow.
func (e *encoder) count(n int) { e.uvarint(uint64(n)) } //nolint:gosec // never negative

// near writes a number that tends to be near the one before.
func (e *encoder) near(n, last uint64) { e.varint(int64(n - last)) } //nolint:gosec // wraps around, and back

func (e *encoder) bool(b bool) {
	if b {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

func (e *encoder) string(v string) {
	e.count(len(v))
	e.buf = append(e.buf, v...)
}

func (e *encoder) sequences(all []uint64) {
	e.count(len(all))
	var last uint64
	for _, n := range all {
		e.near(n, last)
		last = n
	}
}

func (e *encoder) selection(sel Selection) {
	e.bool(sel.All)
	e.sequences(sel.Sequences)
	e.sequences(sel.Chats)
}

func (e *encoder) events(all []Event) {
	e.count(len(all))
	for i := range all {
		v := &all[i]
		e.uvarint(v.Sequence)
		e.fixed(v.Chat)
		e.varint(v.Received.UnixNano())
		e.varint(v.sent())
		e.int(int(clampSize(v.Size)))
		e.uvarint(v.Revises)
	}
}

func (e *encoder) config(c Config) {
	e.byte(byte(c.Order))
	e.varint(int64(c.Lease.Duration))
	e.varint(int64(c.Lease.MaxTotal))
	e.varint(int64(c.Lease.ReconnectGrace))
	e.bool(c.Lease.ExtendWhileConnected)
	e.count(len(c.Retry.Backoff))
	for _, d := range c.Retry.Backoff {
		e.varint(int64(d))
	}
	e.int(c.Retry.MaxAttempts)
	e.byte(byte(c.Retry.OnExhausted))
	e.varint(int64(c.Turn.Quiet))
	e.varint(int64(c.Turn.MaxWait))
	e.int(c.Turn.MaxEvents)
	e.int(c.Turn.MaxBytes)
	e.int(c.Limits.MaxOutstanding)
	e.int(c.Limits.MaxPerChat)
	e.int(c.Limits.MaxPerSecond)
	e.int(c.Limits.MaxBlockedChats)
	e.int(c.Limits.MaxDeadLetters)
	e.int(c.Limits.MaxPending)
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

// int returns a varint that is from -1 to 2³¹-1.
func (d *decoder) int() int {
	n := d.varint()
	if n < -1 || n > math.MaxInt32 {
		d.fail()
		return 0
	}
	return int(n)
}

// near returns what encoder.near wrote after the same number.
func (d *decoder) near(last uint64) uint64 { return last + uint64(d.varint()) } //nolint:gosec // wraps around, and back

// uint32 returns a uvarint that is less than 2³².
func (d *decoder) uint32() uint32 {
	n := d.uvarint()
	if n > math.MaxUint32 {
		d.fail()
		return 0
	}
	return uint32(n)
}

// duration returns a varint that is a duration.
func (d *decoder) duration() time.Duration { return time.Duration(max(d.varint(), 0)) }

// count returns the number of things that follow, of at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.buf)/size) { //nolint:gosec // never negative
		d.fail()
		return 0
	}
	return int(n) //nolint:gosec // not more than an int
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
		last = d.near(last)
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
			Size:     d.int(),
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
