package schedule

// The operations of a journal. Each is followed by its arguments, and each is
// one call of the method that changes the state, so that replaying is calling
// them again. The numbers are stored: never change one.
const (
	opTime        byte = 1 + iota // now
	opRead                        // position: the log was read up to it
	opMember                      // name: the batch's next member
	opHand                        // member, streaming, chat, sequences
	opAck                         // lease
	opFail                        // lease, cause, reason, delay
	opRelease                     // lease, not me
	opExtend                      // lease, until
	opStart                       //
	opRewind                      // now
	opConfigure                   // config
	opSeek                        // next
	opSeekChats                   // chats, next, events
	opRedrive                     // selection, events a second
	opDiscard                     // selection
	opDrop                        // sequences
	opTruncate                    // first
	opDamage                      // first, last
	opDamageLease                 // lease, sequences
	opRecover                     // events
	opCut                         // end
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
	s.journal.near(l.id, s.journal.lease)
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
	j.count(int(l.events.count))
	var last uint64
	for e := range s.events.in(l.events) {
		j.near(e.sequence, last)
		last = e.sequence
	}
}
