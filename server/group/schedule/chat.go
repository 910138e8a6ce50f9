package schedule

import "slices"

// A chat is a conversation, or with another order than ByChat whatever takes
// its place, of which events wait or are out. An idle chat is none: it costs
// nothing.
type chat struct {
	key     uint64
	waiting list     // events that are not out
	leases  *lease   // the first of a ring of those that are, by place; nil is none
	trouble *trouble // why it does not simply go on; nil is no reason

	ref        ref   // in Scheduler.chats
	next, prev ref   // in its queue
	timer      int32 // in Scheduler.chatTimers
	retry      int32 // in Scheduler.retries
	out        uint16
	in         whichQueue
	flags      uint8
}

// The flags of a chat.
const (
	// recovering: an event went back while earlier ones were out. Nothing more
	// is handed out until those are settled.
	recovering uint8 = 1 << iota

	// reopened: some events that wait are of a turn that was out.
	reopened
)

// A trouble is what keeps a chat from going on.
type trouble struct {
	until    int64     // a retry waits for this; 0 is no retry
	refusals []refusal // by member; those that are over go when it is handed out
	shun     *shun     // the one whose queue it is in, when that is inShunned
	state    State     // why it does not go on; Running for refusals alone
	stoppers int       // how many of its events are marked as what stopped it
	since    int64
}

// A retry is a chat in Scheduler.retries.
type retry chat

func (r *retry) slot() *int32 { return &r.retry }
func (r *retry) rank() uint64 { return r.key }

// setTrouble sets why c does not simply go on; nil is no reason.
func (s *Scheduler) setTrouble(c *chat, t *trouble) {
	s.retries.remove((*retry)(c))
	delete(s.stopped, c)
	c.trouble = t
	switch {
	case t == nil, t.state == Running:
	case t.state == Retrying:
		s.retries.set((*retry)(c), t.until)
	default:
		s.stopped[c] = struct{}{}
	}
}

// State is why a chat does not go on.
type State uint8

// The states. Running is the zero.
const (
	Running  State = iota
	Retrying       // it waits for its next attempt
	Diverted       // its events go to the dead letters
	Blocked        // it is stopped
)

func (c *chat) slot() *int32 { return &c.timer }
func (c *chat) rank() uint64 { return c.key }

// stoppedState is Diverted, Blocked, or Running for neither.
func (c *chat) stoppedState() State {
	if c.trouble == nil || c.trouble.state == Retrying {
		return Running
	}
	return c.trouble.state
}

// chat returns the chat of that key, which is made if need be.
func (s *Scheduler) chat(key uint64) *chat {
	c := s.lookup(key)
	if c == nil {
		c = &chat{key: key}
		s.chats.add(c)
	}
	return c
}

// lookup returns the chat of that key; nil when there is none.
func (s *Scheduler) lookup(key uint64) *chat {
	if r := s.chats.get(key); r != 0 {
		return s.unfold(r)
	}
	return nil
}

// due is from when on the next delivery of c can be made; false when that takes
// more than time.
func (s *Scheduler) due(c *chat) (int64, bool) {
	if c.waiting.head == 0 || c.stoppedState() != Running {
		return 0, false
	}
	head := s.events.at(c.waiting.head)
	if c.leases != nil && (c.flags&recovering != 0 || head.flags&redriven != 0 || int(c.out) >= s.perChat()) {
		return 0, false
	}
	var at int64
	if c.trouble != nil {
		at = c.trouble.until
		if len(c.trouble.refusals) >= maxRefusals {
			at = max(at, firstEnd(c.trouble.refusals))
		}
	}
	if s.turns() && head.flags&closed == 0 {
		at = max(at, s.turnEnd(c))
	}
	return at, true
}

// turnEnd is when the turn that c's waiting events make is complete.
func (s *Scheduler) turnEnd(c *chat) int64 {
	t := &s.cfg.Turn
	if int(c.waiting.count) >= t.MaxEvents || c.flags&reopened != 0 {
		return 0 // it cannot grow
	}
	end := s.events.at(c.waiting.tail).received + int64(t.Quiet)
	if t.MaxWait > 0 {
		end = min(end, s.events.at(c.waiting.head).received+int64(t.MaxWait))
	}
	return end
}

// reopen takes reopened from c when no event that waits was in a turn.
func (s *Scheduler) reopen(c *chat) {
	if c.flags&reopened == 0 {
		return
	}
	for e := range s.events.in(c.waiting) {
		if e.flags&closed != 0 {
			return
		}
	}
	c.flags &^= reopened
}

// unit is how many of c's waiting events, of which there are some, go into its
// next delivery.
func (s *Scheduler) unit(c *chat) int {
	if !s.turns() {
		return 1
	}
	n, bytes := 0, 0
	which := s.events.at(c.waiting.head).flags & closed
	for e := range s.events.in(c.waiting) {
		bytes += int(e.size)
		if n == s.cfg.Turn.MaxEvents || e.flags&closed != which || n > 0 && bytes > s.cfg.Turn.MaxBytes {
			break
		}
		n++
	}
	return n
}

// place puts c where it is found again when it can go on: in a queue, among the
// timers, or nowhere. Called after every change to c, which may be folded
// afterwards.
func (s *Scheduler) place(c *chat) {
	if c.waiting.head == 0 && c.leases == nil {
		s.dequeue(c)
		s.chatTimers.remove(c)
		s.setTrouble(c, nil)
		s.chats.remove(c)
		return
	}
	if !s.live {
		s.fold(c)
		return
	}
	at, ok := s.due(c)
	switch {
	case !ok:
		s.dequeue(c)
		s.chatTimers.remove(c)
	case at > s.now:
		s.dequeue(c)
		s.chatTimers.set(c, at)
	default:
		s.chatTimers.remove(c)
		s.enqueue(c)
		s.fold(c)
	}
}

// enqueue puts c, which can go on, into the queue of those who may take it.
func (s *Scheduler) enqueue(c *chat) {
	in := inReady
	var shunned *shun
	switch refusals := c.refusals(s.now); {
	case c.leases != nil:
		in = inMember
	case len(refusals) > 0:
		in, shunned = inShunned, s.shun(refusals)
		s.chatTimers.set(c, firstEnd(refusals))
	case s.redriveRate > 0 && s.events.at(c.waiting.head).flags&redriven != 0:
		in = inRedriving
	}
	if c.in == in && (shunned == nil || shunned == c.trouble.shun) {
		return
	}
	s.dequeue(c)
	c.in = in
	if shunned != nil {
		c.trouble.shun = shunned
	}
	s.push(s.queueOf(c), c.ref)
	s.queued++
}

// dequeue takes c out of its queue, if it is in one.
func (s *Scheduler) dequeue(c *chat) {
	if c.in == inNone {
		return
	}
	q := s.queueOf(c)
	s.remove(q, c.ref)
	if c.in == inShunned && q.first == 0 {
		s.shunned = slices.DeleteFunc(s.shunned, func(o *shun) bool { return &o.queue == q })
	}
	c.in = inNone
	s.queued--
}

// whichQueue says in which queue a chat is.
type whichQueue uint8

const (
	inNone      whichQueue = iota
	inReady                // Scheduler.ready
	inRedriving            // Scheduler.redriving
	inShunned              // the one of trouble.shun
	inMember               // the one of the member that has the chat's leases
)

// queueOf returns the queue that c is in.
func (s *Scheduler) queueOf(c *chat) *queue {
	switch c.in {
	case inRedriving:
		return &s.redriving
	case inShunned:
		return &c.trouble.shun.queue
	case inMember:
		return &c.leases.member.waiting
	default:
		return &s.ready
	}
}
