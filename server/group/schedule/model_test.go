package schedule_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// A model is what a group must do, said as plainly as possible: every event
// that the group ever read with what has become of it, and loops over all of
// them. It does not choose: it is told what was handed out, and says which rule
// that breaks (rules are those of ConsumerGroup in consumer_group.proto), or
// that something should have been handed out and was not.
type model struct {
	cfg      schedule.Config
	now      int64 // Unix nanoseconds
	position uint64
	seekEnd  uint64
	events   []*modelEvent
	chats    map[uint64]modelChat
	leases   map[uint64]modelLease
	ended    map[uint64]schedule.VerdictKind // leases that ended without an Ack; 0 is taken away
	next     uint64                          // id of the next lease
	fences   map[uint64]uint64               // the last fence of each chat
	members  map[string]modelMember
	revoked  []uint64 // since the last flush

	redriveRate int
	rate        modelRate
	redrives    modelRate
}

// A modelEvent is an event and what has become of it.
type modelEvent struct {
	schedule.Event

	place    uint64 // where it stands in its chat
	received int64
	state    modelState
	failure  *schedule.Failure
	origin   schedule.Origin
	closed   bool   // its turn was handed out
	stopper  bool   // its chat is stopped because of it
	unread   bool   // a dead letter that was never read
	lease    uint64 // when it is out
}

type modelState int

const (
	waiting modelState = iota
	out
	dead    // a dead letter, while its chat goes on
	settled // acked, discarded, dropped, skipped or replaced
)

// A modelChat is why a chat does not simply go on.
type modelChat struct {
	state      schedule.State
	until      int64            // of a retry
	refused    map[string]int64 // until when, by the members that gave it back as not theirs; never modified
	recovering bool             // something went back while earlier events were out
}

type modelLease struct {
	member         string
	chat           uint64
	fence          uint64
	attempt        int
	granted, until int64
	streaming      bool
}

type modelMember struct {
	connected      bool
	credits        schedule.Credits
	timeout, heard int64
	graceUntil     int64 // when it is not connected
}

// A modelRate is a token bucket that holds a tenth of a second's tokens.
type modelRate struct{ full int64 }

func (r *modelRate) next(perSecond int) int64 {
	if perSecond == 0 {
		return 0
	}
	return r.full - max(0, int64(100*time.Millisecond)-int64(time.Second)/int64(perSecond))
}

func (r *modelRate) take(n, perSecond int, now int64) {
	if perSecond > 0 {
		r.full = max(r.full, now) + int64(n)*int64(time.Second)/int64(perSecond)
	}
}

func newModel(cfg schedule.Config) *model {
	return &model{
		cfg: cfg, next: 1,
		chats: map[uint64]modelChat{}, leases: map[uint64]modelLease{}, ended: map[uint64]schedule.VerdictKind{},
		fences: map[uint64]uint64{}, members: map[string]modelMember{},
	}
}

// clone returns a copy that shares nothing that changes.
func (m *model) clone() *model {
	c := *m
	c.events = make([]*modelEvent, len(m.events))
	for i, e := range m.events {
		copied := *e
		c.events[i] = &copied
	}
	c.chats, c.leases, c.ended = maps.Clone(m.chats), maps.Clone(m.leases), maps.Clone(m.ended)
	c.fences, c.members, c.revoked = maps.Clone(m.fences), maps.Clone(m.members), slices.Clone(m.revoked)
	return &c
}

// key is the chat in which e is kept in order.
func (m *model) key(e *modelEvent) uint64 {
	switch m.cfg.Order {
	case schedule.None:
		return e.place
	case schedule.Total:
		return 0
	default:
		return e.Chat
	}
}

func (m *model) turns() bool { return m.cfg.Turn.Quiet > 0 && m.cfg.Order == schedule.ByChat }

// in returns the events of a chat in a state, in order of place.
func (m *model) in(key uint64, state modelState) []*modelEvent {
	var in []*modelEvent
	for _, e := range m.events {
		if e.state == state && m.key(e) == key {
			in = append(in, e)
		}
	}
	return in
}

// of returns the events of a lease, in order of place.
func (m *model) of(lease uint64) []*modelEvent {
	return m.all(func(e *modelEvent) bool { return e.state == out && e.lease == lease })
}

func (m *model) all(want func(*modelEvent) bool) []*modelEvent {
	var all []*modelEvent
	for _, e := range m.events {
		if want(e) {
			all = append(all, e)
		}
	}
	return all
}

// stopped says whether a chat is blocked or diverted.
func (m *model) stopped(key uint64) bool { return m.chats[key].state > schedule.Retrying }

// isLetter says whether e counts as a dead letter.
func (m *model) isLetter(e *modelEvent) bool {
	if e.state != waiting {
		return e.state == dead
	}
	state := m.chats[m.key(e)].state
	return state == schedule.Diverted || state == schedule.Blocked && e.stopper
}

// append reads an event of the log.
func (m *model) append(e schedule.Event) {
	m.position = e.Sequence
	m.add(e, e.Sequence <= m.seekEnd)
}

func (m *model) add(e schedule.Event, seeked bool) {
	n := &modelEvent{Event: e, place: e.Sequence, received: e.Received.UnixNano()}
	if seeked {
		n.origin = schedule.FromSeek
	}
	if m.turns() && e.Revises != 0 {
		for _, old := range m.in(m.key(n), waiting) {
			if !old.closed && old.failure == nil && cmp.Or(old.Revises, old.Sequence) == e.Revises {
				old.state = settled
				n.place, n.received, n.origin = old.place, old.received, old.origin
				break
			}
		}
	}
	m.events = append(m.events, n)
	m.sort()
}

func (m *model) sort() {
	slices.SortStableFunc(m.events, func(a, b *modelEvent) int { return cmp.Compare(a.place, b.place) })
}

// tick sets the time. A step back moves all that counts from now back, too.
func (m *model) tick(now int64) {
	back := m.now - now
	m.now = now
	if back <= 0 {
		return
	}
	for id, l := range m.leases {
		l.granted, l.until = l.granted-back, l.until-back
		m.leases[id] = l
	}
	for key, c := range m.chats {
		c.until -= back
		refused := map[string]int64{}
		for member, until := range c.refused {
			refused[member] = until - back
		}
		c.refused = refused
		m.chats[key] = c
	}
	for name, mb := range m.members {
		mb.heard, mb.graceUntil = mb.heard-back, mb.graceUntil-back
		m.members[name] = mb
	}
	for _, e := range m.events {
		e.received = min(e.received, now)
	}
	m.rate.full -= back
	m.redrives.full -= back
}

// settle says what becomes of a verdict.
func (m *model) settle(id uint64, v schedule.Verdict) schedule.Outcome {
	l, live := m.leases[id]
	if !live {
		kind, known := m.ended[id]
		switch {
		case id == 0 || id >= m.next:
			return schedule.UnknownLease
		case !known, kind == v.Kind:
			return schedule.AlreadyDone
		}
		return schedule.LeaseLost
	}
	switch v.Kind {
	case schedule.Ack:
		m.settleAll(m.of(id))
		m.end(id, schedule.Ack)
	case schedule.Nack:
		delay := m.backoff(l.attempt)
		if v.Delay != nil {
			delay = int64(*v.Delay)
		}
		m.fail(id, schedule.Nacked, v.Reason, delay)
	case schedule.Park:
		m.fail(id, schedule.Parked, v.Reason, m.backoff(l.attempt))
	case schedule.Release:
		m.giveBack(id, schedule.Release)
		if c := m.chats[l.chat]; v.NotMe && !m.stopped(l.chat) {
			refused := map[string]int64{}
			maps.Copy(refused, c.refused)
			refused[l.member] = m.now + int64(m.cfg.Lease.Duration)
			c.refused = refused
			m.chats[l.chat] = c
		}
	case schedule.Extend:
		m.extend(id, int64(cmp.Or(v.By, m.cfg.Lease.Duration)))
	}
	return schedule.Done
}

func (m *model) settleAll(events []*modelEvent) {
	for _, e := range events {
		e.state, e.failure, e.stopper = settled, nil, false
	}
}

func (m *model) extend(id uint64, by int64) {
	l := m.leases[id]
	l.until = max(l.until, min(m.now+by, l.granted+int64(m.cfg.Lease.MaxTotal)))
	m.leases[id] = l
}

func (m *model) backoff(failures int) int64 {
	b := m.cfg.Retry.Backoff
	if len(b) == 0 {
		return 0
	}
	return int64(b[min(failures, len(b))-1])
}

// end ends a lease. Its events are dealt with by the caller.
func (m *model) end(id uint64, how schedule.VerdictKind) {
	l := m.leases[id]
	delete(m.leases, id)
	if how != schedule.Ack {
		m.ended[id] = how
	}
	if c := m.chats[l.chat]; len(m.leasesOf(l.chat)) == 0 {
		c.recovering = false
		m.chats[l.chat] = c
	}
}

// leasesOf returns the ids of a chat's leases, in order.
func (m *model) leasesOf(key uint64) []uint64 {
	var ids []uint64
	for id, l := range m.leases {
		if l.chat == key {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// giveBack lets the events of a lease wait again, with those of the chat's
// leases after it: what comes next is the earliest that is not settled (rule 3).
func (m *model) giveBack(id uint64, how schedule.VerdictKind) {
	chat := m.leases[id].chat
	for _, other := range m.leasesOf(chat) {
		if other < id {
			continue
		}
		for _, e := range m.of(other) {
			e.state = waiting
		}
		if other > id {
			how = 0
			m.revoked = append(m.revoked, other)
		}
		m.end(other, how)
	}
	if c := m.chats[chat]; len(m.leasesOf(chat)) > 0 {
		c.recovering = true
		m.chats[chat] = c
	}
}

// fail ends a failed attempt (rules 4 and 5).
func (m *model) fail(id uint64, cause schedule.Cause, reason string, delay int64) {
	l, events := m.leases[id], m.of(id)
	for _, e := range events {
		e.failure = &schedule.Failure{Cause: cause, Reason: reason, Member: l.member, Attempt: l.attempt, Time: time.Unix(0, m.now)}
	}
	how := map[schedule.Cause]schedule.VerdictKind{schedule.Nacked: schedule.Nack, schedule.Parked: schedule.Park}[cause]
	if how == 0 {
		m.revoked = append(m.revoked, id)
	}
	retry := &m.cfg.Retry
	exhausted := cause == schedule.Parked || retry.MaxAttempts > 0 && l.attempt >= retry.MaxAttempts
	letters := m.all(func(e *modelEvent) bool { return e.state == dead })
	stopped := 0
	for key := range m.chats {
		if m.stopped(key) {
			stopped++
		}
	}
	switch {
	case exhausted && retry.OnExhausted == schedule.DeadLetterEvent && len(letters)+len(events) <= m.cfg.Limits.MaxDeadLetters:
		for _, e := range events {
			m.bury(e)
		}
		m.end(id, how)
	case exhausted && retry.OnExhausted != schedule.DeadLetterEvent && !m.stopped(l.chat) && stopped < m.cfg.Limits.MaxBlockedChats:
		for _, e := range events {
			e.stopper = true
		}
		m.giveBack(id, how)
		c := m.chats[l.chat]
		c.state, c.until, c.refused = schedule.Blocked, 0, nil
		if retry.OnExhausted == schedule.DivertChat {
			c.state = schedule.Diverted
		}
		m.chats[l.chat] = c
	case m.stopped(l.chat):
		m.giveBack(id, how)
	default:
		if exhausted {
			delay = m.backoff(len(retry.Backoff))
		}
		m.giveBack(id, how)
		c := m.chats[l.chat]
		c.state, c.until = schedule.Retrying, max(m.now+delay, c.until)
		m.chats[l.chat] = c
	}
}

// bury makes e a dead letter.
func (m *model) bury(e *modelEvent) {
	e.state, e.closed, e.stopper, e.origin = dead, false, false, schedule.FromLog
}

// expire does what is due: members first, by name, then leases, by time.
func (m *model) expire() (silent []string) {
	for again := true; again; {
		again = false
		for _, name := range slices.Sorted(maps.Keys(m.members)) {
			mb := m.members[name]
			switch {
			case mb.connected && mb.timeout > 0 && mb.heard+mb.timeout <= m.now:
				silent = append(silent, name)
				m.leave(name)
				again = true
			case !mb.connected && mb.graceUntil <= m.now && m.abandon(name):
				again = true
			}
		}
	}
	for {
		first, at := uint64(0), m.now+1
		for _, id := range slices.Sorted(maps.Keys(m.leases)) {
			if l := m.leases[id]; l.until < at {
				first, at = id, l.until
			}
		}
		if first == 0 {
			return silent
		}
		l := m.leases[first]
		if m.cfg.Lease.ExtendWhileConnected && m.members[l.member].connected && l.granted+int64(m.cfg.Lease.MaxTotal) > m.now {
			m.extend(first, int64(m.cfg.Lease.Duration))
			continue
		}
		m.fail(first, schedule.Expired, "", m.backoff(l.attempt))
	}
}

// leave says that a member's stream has ended.
func (m *model) leave(name string) {
	if mb, ok := m.members[name]; ok && mb.connected {
		mb.connected, mb.credits = false, schedule.Credits{}
		mb.graceUntil = m.now + int64(m.cfg.Lease.ReconnectGrace)
		m.members[name] = mb
	}
}

// abandon fails what a member has that did not come back, and says whether that
// was anything.
func (m *model) abandon(name string) bool {
	found := false
	for _, id := range slices.Sorted(maps.Keys(m.leases)) {
		if l, live := m.leases[id]; live && l.member == name && l.streaming {
			m.fail(id, schedule.Gone, "", m.backoff(l.attempt))
			found = true
		}
	}
	return found
}

// start begins after a crash: members are gone, and their leases wait for them.
func (m *model) start(now int64) {
	m.tick(now)
	m.members = map[string]modelMember{}
	m.rate, m.redrives = modelRate{}, modelRate{}
	grace := int64(min(m.cfg.Lease.ReconnectGrace, m.cfg.Lease.Duration))
	for id, l := range m.leases {
		l.until = max(l.until, min(m.now+grace, l.granted+int64(m.cfg.Lease.MaxTotal)))
		m.leases[id] = l
		if l.streaming {
			m.members[l.member] = modelMember{graceUntil: m.now + int64(m.cfg.Lease.ReconnectGrace)}
		}
	}
}

// String lists the events that are not settled, for failures.
func (m *model) String() string {
	s := fmt.Sprintf("position %d, chats %v, leases %v\n", m.position, m.chats, m.leases)
	for _, e := range m.events {
		if e.state != settled {
			s += fmt.Sprintf("  %d (place %d) chat %d: %s lease %d\n", e.Sequence, e.place, e.Chat,
				[]string{"waiting", "out", "dead"}[e.state], e.lease)
		}
	}
	return s
}
