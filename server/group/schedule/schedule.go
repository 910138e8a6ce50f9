// Package schedule decides who of a consumer group works on which events, and
// when: the order of chats, turns, leases, retries and dead letters.
//
// It is a state machine and nothing else. It has no clock, no goroutine and
// does no I/O; it holds sequences, not bodies. Its inputs are the events of the
// log (Append), the members and what they say, changes by operators, and the
// time (Tick). Flush returns what follows: deliveries, leases taken back, when
// to look again, and a journal of what has changed.
//
// What must survive a restart is a fold of that journal over the log: the owner
// writes Output.Journal to stable storage before it lets anything else of the
// Output out, and after a restart gives the newest Snapshot to Restore, the
// journal since then to Replay, and calls Start. Members are not in it: they
// come back by themselves, and their leases wait for them.
package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"
)

// An Event is what the scheduler knows of an event of the log.
type Event struct {
	// Sequence is the position in the log, from 1.
	Sequence uint64

	// Chat stands for the chat, as ChatID returns it.
	Chat uint64

	// Received is when the event was received. The timers of turns count from
	// it.
	Received time.Time

	// Sent is when it was sent; turns are sorted by it. Zero is Received.
	Sent time.Time

	// Size is in bytes; credits are counted in it.
	Size int

	// Revises is the sequence of the first event of which this is a revision;
	// 0 for none.
	Revises uint64
}

// ChatID returns the number that stands for a chat key. Two keys with one
// number, which is as good as never, would be kept in order as one chat.
func ChatID(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return binary.LittleEndian.Uint64(sum[:8])
}

// A Scheduler is the state of one group. It is not safe for concurrent use.
//
// Everything is accepted at any time; an input about a lease, a member or an
// event that is not there does nothing.
type Scheduler struct {
	// These survive a restart: the snapshot and the journal hold them.
	cfg         Config
	now         int64             // of the last Tick, Unix nanoseconds
	position    uint64            // the log was read up to here
	seekEnd     uint64            // up to here events come because of a seek
	nextLease   uint64            // id of the next lease
	redriveRate int               // redriven events a second; 0 is unbounded
	chats       table             // those with events that wait or are out
	leases      map[uint64]*lease // by id
	events      arena             // every event that is not settled
	failures    map[uint64]*Failure
	letters     map[uint64]*letter // dead letters by sequence, diverted chats apart
	endings     endings

	// These follow from the ones above.
	outstanding int                // events that are out
	stopped     map[*chat]struct{} // those that are blocked or diverted
	retries     timers[*retry]     // chats that wait for a retry, by when; some for which it is time, too
	lowest      uint64             // no dead letter, and nothing that waits, is before it

	// These do not survive.
	live      bool // Start was called
	members   map[string]*member
	free      fifo // members with credit left
	ready     queue
	redriving queue   // ready, but at the pace of redriveRate
	shunned   []*shun // ready, but not for those who refused
	queued    int     // chats in any queue
	rate      bucket
	redrives  bucket

	chatTimers   timers[*chat]
	leaseTimers  timers[*lease]
	memberTimers timers[*member]

	journal   journal
	out       Output
	sequences []uint64 // of all deliveries of out
}

// New returns the scheduler of a new group whose first event is the one after
// position, and whose first lease has the number first, at least 1. Call Start
// next.
func New(cfg Config, position, first uint64) *Scheduler {
	s := &Scheduler{
		cfg:       cfg,
		position:  position,
		nextLease: first,
		leases:    map[uint64]*lease{},
		failures:  map[uint64]*Failure{},
		letters:   map[uint64]*letter{},
		members:   map[string]*member{},
		stopped:   map[*chat]struct{}{},
		lowest:    math.MaxUint64,
		endings:   endings{how: map[uint64]ending{}, floor: first},
	}
	s.chats.key = func(r ref) uint64 { return s.keyOf(s.events.at(r)) }
	return s
}

// Start ends the restoring of a scheduler, if any, and begins its work at now.
// Leases from before last at least for Config.Lease.ReconnectGrace from now, or
// Config.Lease.Duration where that is less.
func (s *Scheduler) Start(now time.Time) {
	s.live = true
	s.journal.now, s.journal.position = never, math.MaxUint64 // so that both are written
	s.Tick(now)
	s.begin(opStart)
	s.resume()
	s.applyLimits()
	for c := range s.chatsInOrder() {
		s.place(c)
	}
	for _, l := range s.leasesInOrder() {
		s.leaseTimers.set(l, l.until)
		s.await(l.member)
	}
}

// resume gives the leases time for their members to come back: nobody could
// settle or extend them while there was no scheduler.
func (s *Scheduler) resume() {
	grace := int64(min(s.cfg.Lease.ReconnectGrace, s.cfg.Lease.Duration))
	for _, l := range s.leases {
		l.until = max(l.until, min(s.now+grace, l.granted+int64(s.cfg.Lease.MaxTotal)))
	}
}

// Position is how far the log was read: everything at or before it is settled
// or known.
func (s *Scheduler) Position() uint64 { return s.position }

// Full says that as many events are held as Config.Limits.MaxPending: nothing
// should be appended until some are settled.
func (s *Scheduler) Full() bool { return s.events.live >= s.cfg.Limits.MaxPending }

// Config returns the configuration.
func (s *Scheduler) Config() Config { return s.cfg }

// Advance says that the log was read up to position, and that everything there
// that the group wants was appended.
func (s *Scheduler) Advance(position uint64) { s.position = max(s.position, position) }

// Append adds an event of the log. They come in order of sequence: one at or
// before Position does nothing.
func (s *Scheduler) Append(e Event) {
	if e.Sequence <= s.position {
		return
	}
	s.position = e.Sequence
	c := s.chat(s.key(e.Chat, e.Sequence))
	if !s.revise(c, e) {
		var flags uint8
		if e.Sequence <= s.seekEnd {
			flags = seeked
		}
		i := s.add(e, flags)
		s.events.push(&c.waiting, i)
		s.waits(c, i)
	}
	s.place(c)
}

// add stores an event, in no list yet.
func (s *Scheduler) add(e Event, flags uint8) uint32 {
	i := s.events.alloc()
	stored := s.events.at(i)
	*stored = event{
		sequence: e.Sequence,
		chat:     e.Chat,
		received: e.Received.UnixNano(),
		sent:     e.sent(),
		size:     clampSize(e.Size),
		flags:    flags,
	}
	s.events.revise(stored, revised{first: e.first()})
	return i
}

// waits notes that event i has come to wait in c.
func (s *Scheduler) waits(c *chat, i uint32) {
	s.lowest = min(s.lowest, s.events.at(i).sequence)
	if c.stoppedState() == Diverted {
		s.events.putAside(i)
	} else {
		s.events.enter(i)
	}
}

// revise lets e take the place of the event that it revises when that still
// waits in a turn that is open, and says whether it did.
func (s *Scheduler) revise(c *chat, e Event) bool {
	if e.first() == 0 || !s.turns() {
		return false
	}
	root := e.Sequence - uint64(e.first())
	for old := range s.events.in(c.waiting) {
		back := e.Sequence - s.events.place(old)
		if s.events.root(old) != root || old.flags&(closed|failed) != 0 || back > math.MaxUint32 {
			continue
		}
		s.events.revise(old, revised{})
		old.sequence = e.Sequence
		s.events.revise(old, revised{back: uint32(back), first: e.first()})
		old.sent, old.size = e.sent(), clampSize(e.Size)
		return true
	}
	return false
}

// sent is when e was sent, in Unix nanoseconds.
func (e *Event) sent() int64 {
	if e.Sent.IsZero() {
		return e.Received.UnixNano()
	}
	return e.Sent.UnixNano()
}

// first is how far back the first revision of e is; 0 when it is e, or too far
// to tell.
func (e *Event) first() uint32 {
	if e.Revises == 0 || e.Revises > e.Sequence || e.Sequence-e.Revises > math.MaxUint32 {
		return 0
	}
	return uint32(e.Sequence - e.Revises) //nolint:gosec // not more, see above
}

// clampSize returns a size that fits into an event.
func clampSize(n int) uint32 { return uint32(min(max(n, 0), math.MaxInt32)) }

// Tick sets the time. When it is less than before, everything that counts from
// the time before is moved back with it, so that nothing waits for longer.
func (s *Scheduler) Tick(now time.Time) {
	t := now.UnixNano()
	if t < s.now {
		s.begin(opRewind)
		s.journal.varint(t)
		s.journal.now = t
		s.rewind(t)
	}
	s.now = t
}

// rewind sets the time to t, which is in the past.
func (s *Scheduler) rewind(t int64) {
	d := s.now - t
	s.now = t
	for _, l := range s.leases {
		l.granted -= d
		l.until -= d
		s.receivedBy(l.events, t)
	}
	for c := range s.allChats() {
		if c.trouble != nil {
			c.trouble.until -= d
			for i := range c.trouble.refusals {
				c.trouble.refusals[i].until -= d
			}
		}
		s.receivedBy(c.waiting, t)
	}
	for _, l := range s.letters {
		s.receivedBy(list{head: l.event, tail: l.event, count: 1}, t)
	}
	for _, m := range s.members {
		m.heard -= d
		m.graceUntil -= d
	}
	s.retries.shift(d)
	s.leaseTimers.shift(d)
	s.memberTimers.shift(d)
	s.rate.full -= d
	s.redrives.full -= d
	for c := range s.chatsInOrder() {
		s.place(c)
	}
}

// receivedBy makes the events of a list received at t at the latest.
func (s *Scheduler) receivedBy(l list, t int64) {
	for e := range s.events.in(l) {
		e.received = min(e.received, t)
	}
}
