package schedule_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// flush does what is due and compares what the scheduler made of it. It returns
// what is wrong with that.
func (m *model) flush(o *schedule.Output) error {
	silent := m.expire()
	if !slices.Equal(o.Silent, silent) {
		return fmt.Errorf("silent members are %v, want %v", o.Silent, silent)
	}
	var revoked []uint64
	for _, r := range o.Revoked {
		revoked = append(revoked, r.Lease)
	}
	slices.Sort(revoked)
	slices.Sort(m.revoked)
	if !slices.Equal(revoked, m.revoked) {
		return fmt.Errorf("revoked leases are %v, want %v", revoked, m.revoked)
	}
	m.revoked = nil
	for i := range o.Deliveries {
		if err := m.deliver(&o.Deliveries[i]); err != nil {
			return fmt.Errorf("delivery %+v: %w", o.Deliveries[i], err)
		}
	}
	m.tidy()
	wake, err := m.complete()
	if err != nil {
		return err
	}
	if wake < math.MaxInt64 && (o.Wake.IsZero() || o.Wake.UnixNano() > wake) {
		return fmt.Errorf("wakes at %v, want %v at the latest", o.Wake, time.Unix(0, wake))
	}
	return nil
}

// tidy forgets what kept a chat of which nothing waits and nothing is out.
func (m *model) tidy() {
	for key := range m.chats {
		if len(m.in(key, waiting)) == 0 && len(m.in(key, out)) == 0 {
			delete(m.chats, key)
		}
	}
}

// deliver checks that what was handed out may be, and takes note of it.
func (m *model) deliver(d *schedule.Delivery) error {
	var events []*modelEvent
	for _, n := range d.Sequences {
		e := m.find(n)
		switch {
		case e == nil || e.state == settled:
			return fmt.Errorf("rule 3: %d comes again, which is settled", n)
		case e.state == out:
			return fmt.Errorf("rule 2: %d is out", n)
		case e.state == dead:
			return fmt.Errorf("rule 5: %d is a dead letter", n)
		}
		events = append(events, e)
	}
	key := m.key(events[0])
	chat, leases := m.chats[key], m.leasesOf(key)
	for _, id := range leases {
		if m.leases[id].member != d.Member {
			return fmt.Errorf("rule 2: %s has events of the chat", m.leases[id].member)
		}
	}
	if m.stopped(key) {
		return fmt.Errorf("rules 5 and 6: the chat is stopped")
	}
	if chat.recovering {
		return fmt.Errorf("rule 3: something went back before what is out was settled")
	}
	unit := m.unit(key)
	inTurn := slices.Clone(unit)
	slices.SortStableFunc(inTurn, func(a, b *modelEvent) int { return cmp.Compare(m.sent(a), m.sent(b)) })
	if !slices.Equal(events, inTurn) {
		return fmt.Errorf("rule 1: the next events of the chat are %v", sequences(inTurn))
	}
	if at, ok := m.due(key); !ok || at > m.now {
		return fmt.Errorf("rule 4, turns and limits: due is %d, %v at %d", at, ok, m.now)
	}
	if !m.mayTake(d.Member, key) {
		return fmt.Errorf("%s may not take it", d.Member)
	}
	if m.closed() != "" {
		return fmt.Errorf("nothing may be handed out: %s", m.closed())
	}
	if m.throttled(key) {
		return fmt.Errorf("redriven too fast")
	}
	if want := m.attempt(unit); d.Attempt != want {
		return fmt.Errorf("attempt is %d, want %d", d.Attempt, want)
	}
	if err := checkFailure(d, unit); err != nil {
		return err
	}
	origin := schedule.FromLog
	for _, e := range unit {
		origin = max(origin, e.origin)
	}
	if d.Origin != origin {
		return fmt.Errorf("origin is %d, want %d", d.Origin, origin)
	}
	switch {
	case d.Lease != m.next:
		return fmt.Errorf("lease is %d, want %d", d.Lease, m.next)
	case len(leases) > 0 && d.Fence != m.leases[leases[0]].fence:
		return fmt.Errorf("rule 7: fence is %d, but the chat did not change hands", d.Fence)
	case len(leases) == 0 && d.Fence <= m.fences[key]:
		return fmt.Errorf("rule 7: fence is %d, and was %d before", d.Fence, m.fences[key])
	}
	until := m.now + int64(min(m.cfg.Lease.Duration, m.cfg.Lease.MaxTotal))
	if d.Until.UnixNano() != until {
		return fmt.Errorf("lease ends at %v, want %v", d.Until, time.Unix(0, until))
	}

	m.next++
	m.leases[d.Lease] = modelLease{
		member: d.Member, chat: key, fence: d.Fence, attempt: d.Attempt, granted: m.now, until: until,
		streaming: m.members[d.Member].connected,
	}
	m.fences[key] = d.Fence
	for _, e := range unit {
		e.state, e.lease, e.closed = out, d.Lease, e.closed || m.turns()
	}
	m.rate.take(len(unit), m.cfg.Limits.MaxPerSecond, m.now)
	if origin == schedule.FromRedrive {
		m.redrives.take(len(unit), m.redriveRate, m.now)
	}
	m.chats[key] = modelChat{refused: chat.refused}
	return nil
}

func (m *model) find(sequence uint64) *modelEvent {
	// A seek lets an event come again: the last one is meant.
	var found *modelEvent
	for _, e := range m.events {
		if e.Sequence == sequence && (found == nil || e.state != settled) {
			found = e
		}
	}
	return found
}

func sequences(events []*modelEvent) []uint64 {
	var all []uint64
	for _, e := range events {
		all = append(all, e.Sequence)
	}
	return all
}

func (m *model) sent(e *modelEvent) int64 {
	if e.Sent.IsZero() {
		return e.Received.UnixNano()
	}
	return e.Sent.UnixNano()
}

// unit is what comes next of a chat: its first waiting event, or the turn that
// it begins.
func (m *model) unit(key uint64) []*modelEvent {
	events := m.in(key, waiting)
	if !m.turns() || len(events) == 0 {
		return events[:min(1, len(events))]
	}
	bytes := 0
	for i, e := range events {
		bytes += e.Size
		if e.closed != events[0].closed || i == m.cfg.Turn.MaxEvents || i > 0 && bytes > m.cfg.Turn.MaxBytes {
			return events[:i]
		}
	}
	return events
}

func (m *model) attempt(unit []*modelEvent) int {
	attempt := 1
	for _, e := range unit {
		if e.failure != nil {
			attempt = max(attempt, 1+e.failure.Attempt)
		}
	}
	return attempt
}

func checkFailure(d *schedule.Delivery, unit []*modelEvent) error {
	if d.Failure == nil {
		if d.Attempt > 1 {
			return fmt.Errorf("no failure")
		}
		return nil
	}
	for _, e := range unit {
		if e.failure != nil && *e.failure == *d.Failure {
			return nil
		}
	}
	return fmt.Errorf("failure is %+v", d.Failure)
}

// due is from when on something of a chat can be handed out; false when that
// takes more than time.
func (m *model) due(key uint64) (int64, bool) {
	events, leases, chat := m.in(key, waiting), len(m.leasesOf(key)), m.chats[key]
	perChat := m.cfg.Limits.MaxPerChat
	if m.turns() {
		perChat = 1
	}
	if len(events) == 0 || m.stopped(key) || leases >= perChat && leases > 0 {
		return 0, false
	}
	if leases > 0 && (chat.recovering || events[0].origin == schedule.FromRedrive) {
		return 0, false
	}
	at := chat.until
	grows := !slices.ContainsFunc(events, func(e *modelEvent) bool { return e.closed })
	if m.turns() && grows && len(events) < m.cfg.Turn.MaxEvents {
		end := events[len(events)-1].received + int64(m.cfg.Turn.Quiet)
		if m.cfg.Turn.MaxWait > 0 {
			end = min(end, events[0].received+int64(m.cfg.Turn.MaxWait))
		}
		at = max(at, end)
	}
	return at, true
}

// refused says whether a member must not have a chat now.
func (m *model) refused(key uint64, member string) bool { return m.chats[key].refused[member] > m.now }

// refusedUntil is when the first who must not have a chat may; false when
// everybody may.
func (m *model) refusedUntil(key uint64) (first int64, ok bool) {
	for _, until := range m.chats[key].refused {
		if until > m.now && (!ok || until < first) {
			first, ok = until, true
		}
	}
	return first, ok
}

// mayTake says whether a member has credit left and may have a chat.
func (m *model) mayTake(member string, key uint64) bool {
	held, credits := m.held(member), m.members[member].credits
	leases := m.leasesOf(key)
	if len(leases) > 0 && m.leases[leases[0]].member != member {
		return false
	}
	return held.Events < credits.Events && held.Bytes < credits.Bytes && (len(leases) > 0 || !m.refused(key, member))
}

// held is what a member has.
func (m *model) held(member string) (held schedule.Credits) {
	for _, e := range m.events {
		if e.state == out && m.leases[e.lease].member == member {
			held.Events++
			held.Bytes += e.Size
		}
	}
	return held
}

// closed is why nothing at all may be handed out now; "" is no reason.
func (m *model) closed() string {
	outstanding := len(m.all(func(e *modelEvent) bool { return e.state == out }))
	switch {
	case m.cfg.Paused:
		return "paused"
	case outstanding >= m.cfg.Limits.MaxOutstanding:
		return "max_outstanding_events"
	case m.rate.next(m.cfg.Limits.MaxPerSecond) > m.now:
		return "max_events_per_second"
	}
	return ""
}

// throttled says whether a chat waits for its turn among the redriven.
func (m *model) throttled(key uint64) bool {
	events := m.in(key, waiting)
	_, refused := m.refusedUntil(key)
	return events[0].origin == schedule.FromRedrive && !refused && len(m.leasesOf(key)) == 0 &&
		m.redrives.next(m.redriveRate) > m.now
}

// complete checks that nothing was left that could have been handed out (rule
// 4: a chat delays only itself), and returns when there is more to do.
func (m *model) complete() (wake int64, err error) {
	wake = math.MaxInt64
	for _, l := range m.leases {
		wake = min(wake, l.until)
	}
	for _, mb := range m.members {
		if mb.connected && mb.timeout > 0 {
			wake = min(wake, mb.heard+mb.timeout)
		}
	}
	seen := map[uint64]bool{}
	for _, e := range m.events {
		key := m.key(e)
		if e.state != waiting || seen[key] {
			continue
		}
		seen[key] = true
		at, ok := m.due(key)
		if ok && at > m.now {
			wake = min(wake, at)
		}
		if !ok || at > m.now {
			continue
		}
		if first, ok := m.refusedUntil(key); ok && len(m.leasesOf(key)) == 0 {
			wake = min(wake, first)
		}
		for member := range m.members {
			switch closed := m.closed(); {
			case !m.mayTake(member, key), closed != "" && closed != "max_events_per_second":
			case closed != "":
				wake = min(wake, m.rate.next(m.cfg.Limits.MaxPerSecond))
			case m.throttled(key):
				wake = min(wake, m.redrives.next(m.redriveRate))
			default:
				return 0, fmt.Errorf("rule 4: %v were not handed out, which %s could have\n%v",
					sequences(m.unit(key)), member, m)
			}
		}
	}
	return wake, nil
}
