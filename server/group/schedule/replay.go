package schedule

import (
	"errors"
	"time"
)

// ErrCorrupt reports a journal or a snapshot that this package did not write.
var ErrCorrupt = errors.New("schedule: corrupt")

// Replay repeats what a batch of the journal says, on a scheduler that has not
// been started. Batches come in the order in which they were written, and
// whole. Between operations it calls read, which appends what the group wants
// of the log from after Position up to a sequence, and need not call Advance.
// What it finds missing there, because retention removed it, stays away; for what
// cannot be read it calls Damage.
//
// It returns ErrCorrupt, or the error of read. The scheduler is of no use after
// either.
func (s *Scheduler) Replay(batch []byte, read func(upTo uint64) error) error {
	r := replayer{Scheduler: s, d: decoder{buf: batch}, read: read}
	for len(r.d.buf) > 0 {
		if err := r.step(r.d.byte()); err != nil {
			return err
		}
		if r.d.bad {
			return ErrCorrupt
		}
	}
	s.out = Output{}
	return nil
}

// A replayer goes through one batch.
type replayer struct {
	*Scheduler

	d       decoder
	read    func(upTo uint64) error
	members []string // that the batch has named
	lease   uint64   // that it named last
}

// step repeats one operation.
func (r *replayer) step(op byte) error {
	d := &r.d
	switch op {
	case opTime:
		r.now = d.varint()
	case opRead:
		if upTo := d.uvarint(); upTo > r.position {
			if err := r.read(upTo); err != nil {
				return err
			}
			r.position = upTo
		}
	case opMember:
		r.members = append(r.members, d.string())
	case opHand:
		r.stepHand()
	case opAck, opFail, opRelease, opExtend, opDamageLease:
		r.stepLease(op)
	case opStart:
		r.resume()
	case opRewind:
		r.rewind(d.varint())
	case opConfigure:
		if cfg := d.config(); !d.bad {
			r.configure(cfg)
		}
	case opSeek:
		r.seek(d.uvarint())
	case opSeekChats:
		r.seekChats(d.sequences(), d.uvarint(), d.events())
	case opRedrive:
		r.redrive(d.selection(), d.int(), false)
	case opDiscard:
		r.discard(d.selection(), false)
	case opDrop:
		sequences := d.sequences()
		r.dropUnread(sequences)
		r.dropWaiting(sequences)
	case opTruncate:
		r.truncate(d.uvarint())
	case opDamage:
		r.stepDamage()
	case opRecover:
		r.recovered(d.events())
	case opCut:
		r.cut(d.uvarint())
	default:
		return ErrCorrupt
	}
	return nil
}

// stepDamage repeats that some events of the log could not be read.
func (r *replayer) stepDamage() {
	first, last := r.d.uvarint(), r.d.uvarint()
	if first == 0 || last < first || last-first >= MaxDamage {
		r.d.fail()
		return
	}
	r.damage(first, last)
}

// stepHand hands out those of the events that are there.
func (r *replayer) stepHand() {
	which, streaming, key := r.d.uvarint(), r.d.bool(), r.d.fixed()
	sequences := r.d.sequences()
	if r.d.bad || which >= uint64(len(r.members)) {
		r.d.fail()
		return
	}
	r.adopt(sequences, key)
	c := r.lookup(key)
	n := 0
	if c != nil {
		i := c.waiting.head
		for _, sequence := range sequences {
			if i != 0 && r.events.at(i).sequence == sequence {
				n++
				i = r.events.at(i).next
			}
		}
	}
	if n > 0 {
		r.hand(c, r.member(r.members[which]), n, streaming)
	} else {
		r.nextLease++ // it was issued all the same
	}
	if c != nil {
		r.place(c)
	}
}

// stepLease repeats what ended or kept a lease, if it is out.
func (r *replayer) stepLease(op byte) {
	d := &r.d
	r.lease = d.near(r.lease)
	l := r.leases[r.lease]
	switch op {
	case opAck:
		if l != nil {
			r.ack(l)
		}
	case opFail:
		cause, reason, delay := Cause(d.byte()), d.string(), time.Duration(d.varint())
		if l != nil {
			r.fail(l, cause, reason, int64(delay))
		}
	case opRelease:
		if notMe := d.bool(); l != nil {
			r.release(l, notMe)
		}
	case opExtend:
		if until := d.varint(); l != nil {
			l.until = until
		}
	case opDamageLease:
		if sequences := d.sequences(); l != nil {
			r.damageLease(l, sequences)
		}
	}
}
