package schedule

import "time"

// Config is what a group is to do. The scheduler fills in no defaults.
type Config struct {
	Order  Order
	Lease  Lease
	Retry  Retry
	Turn   Turn
	Limits Limits

	// Paused hands nothing out. Leases go on.
	Paused bool
}

// Order is what is kept in order.
type Order uint8

// The orders. ByChat is the zero.
const (
	ByChat Order = iota // each chat by itself
	None                // each event is a chat of its own
	Total               // all events are one chat
)

// Lease is how long a delivery stays with a member.
type Lease struct {
	Duration       time.Duration // until it runs out; positive
	MaxTotal       time.Duration // with all extensions; at least Duration
	ReconnectGrace time.Duration // after the member's stream broke

	// ExtendWhileConnected extends leases of connected members by themselves.
	ExtendWhileConnected bool
}

// Retry is what follows a failed attempt.
type Retry struct {
	Backoff     []time.Duration // by number of failures; the last one repeats
	MaxAttempts int             // 0 or less is without bound
	OnExhausted OnExhausted
}

// OnExhausted is what happens when the last attempt failed.
type OnExhausted uint8

// What can happen. DeadLetterEvent is the zero.
const (
	DeadLetterEvent OnExhausted = iota // the chat goes on without the event
	DivertChat                         // it and all behind it become dead letters
	BlockChat                          // the chat stops
)

// Turn collects a chat's events. Used with ByChat only.
type Turn struct {
	Quiet     time.Duration // ends a turn after the last event; 0 is no turns
	MaxWait   time.Duration // ends it after the first event; 0 is without bound
	MaxEvents int           // ends it at so many; at least 1
	MaxBytes  int           // holds no more than these, unless one event does; at least 1
}

// Limits bound the group. None may be 0 but MaxPerSecond, which then is without
// bound.
type Limits struct {
	MaxOutstanding  int // events that are out
	MaxPerChat      int // leases of one chat; at most 65535
	MaxPerSecond    int // events handed out
	MaxBlockedChats int // chats that are blocked or diverted
	MaxDeadLetters  int // dead letters, those of diverted chats apart
	MaxPending      int // events held, wherever they are
}

// turns says whether events are delivered in turns.
func (s *Scheduler) turns() bool { return s.cfg.Turn.Quiet > 0 && s.cfg.Order == ByChat }

// perChat is how many leases of one chat may be out.
func (s *Scheduler) perChat() int {
	if s.turns() {
		return 1
	}
	return s.cfg.Limits.MaxPerChat
}

// backoff is how long to wait after so many failures.
func (r *Retry) backoff(failures int) time.Duration {
	if len(r.Backoff) == 0 {
		return 0
	}
	return r.Backoff[min(max(failures, 1), len(r.Backoff))-1]
}

// key is the number of the chat in which an event is kept in order.
func (s *Scheduler) key(chat, place uint64) uint64 {
	switch s.cfg.Order {
	case None:
		return place
	case Total:
		return 0
	default:
		return chat
	}
}

// keyOf is the key of the chat in which e belongs.
func (s *Scheduler) keyOf(e *event) uint64 { return s.key(e.chat, s.events.place(e)) }

// Configure changes the configuration. What is out stays out, under the terms
// it was handed out on, unless the order changes: then everything is taken
// back, blocked chats go on, and diverted events become dead letters.
func (s *Scheduler) Configure(cfg Config) {
	s.begin(opConfigure)
	s.journal.config(cfg)
	s.configure(cfg)
}

func (s *Scheduler) configure(cfg Config) {
	if cfg.Order != s.cfg.Order {
		s.reorder(cfg)
	}
	s.cfg = cfg
	s.applyLimits()
	for c := range s.chatsInOrder() {
		s.place(c)
	}
}

// reorder puts every event that waits or is out into the chat where it belongs
// under the new configuration.
func (s *Scheduler) reorder(cfg Config) {
	for _, l := range s.leasesInOrder() {
		s.revoke(l)
	}
	var all list
	for c := range s.chatsInOrder() {
		s.unstop(c, s.position+1)
		for c.waiting.head != 0 {
			s.events.push(&all, s.events.pop(&c.waiting))
		}
		s.place(c) // which removes it
	}
	s.cfg = cfg
	s.events.sort(&all)
	for all.head != 0 {
		i := s.events.pop(&all)
		e := s.events.at(i)
		e.flags &^= closed
		s.events.push(&s.chat(s.keyOf(e)).waiting, i)
	}
}

// applyLimits tells the buckets their rates.
func (s *Scheduler) applyLimits() {
	s.rate.rate = int64(s.cfg.Limits.MaxPerSecond)
	s.redrives.rate = int64(s.redriveRate)
}

// A bucket lets a number of events pass a second, in bursts of a tenth of it.
// The zero lets all pass.
type bucket struct {
	rate int64 // events a second; 0 is without bound
	full int64 // when everything that passed is paid off
}

// burst is how much time may be taken in advance.
const burst = int64(100 * time.Millisecond)

// next is when an event may pass.
func (b *bucket) next() int64 {
	if b.rate == 0 {
		return 0
	}
	return b.full - max(0, burst-int64(time.Second)/b.rate)
}

// take lets n events pass at now.
func (b *bucket) take(n int, now int64) {
	if b.rate > 0 {
		b.full = max(b.full, now) + int64(n)*int64(time.Second)/b.rate
	}
}
