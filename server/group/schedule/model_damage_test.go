package schedule_test

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// damage says that events of the log cannot be read. None of them is lost: those
// that the group does not hold become dead letters of no chat.
func (m *model) damage(first, last uint64) {
	for n := first; n <= last; n++ {
		if slices.ContainsFunc(m.events, func(e *modelEvent) bool { return e.state != settled && (e.Sequence == n || e.place == n) }) {
			continue
		}
		m.events = append(m.events, &modelEvent{
			Event: schedule.Event{Sequence: n, Received: time.Unix(0, m.now)}, place: n, received: m.now,
			state: dead, unread: true, failure: &schedule.Failure{Cause: schedule.Damaged, Time: time.Unix(0, m.now)},
		})
	}
	m.sort()
	m.position = max(m.position, last)
}

// damageLease says that events that are out cannot be read: they become dead
// letters, and that costs nobody an attempt.
func (m *model) damageLease(id uint64, sequences []uint64) {
	l, live := m.leases[id]
	if !live {
		return
	}
	var damaged []*modelEvent
	all := m.of(id)
	for _, e := range all {
		if slices.Contains(sequences, e.Sequence) {
			e.failure = &schedule.Failure{Cause: schedule.Damaged, Attempt: l.attempt - 1, Time: time.Unix(0, m.now)}
			damaged = append(damaged, e)
		}
	}
	letters := m.all(func(e *modelEvent) bool { return e.state == dead })
	switch {
	case len(damaged) == 0:
	case len(letters)+len(damaged) > m.cfg.Limits.MaxDeadLetters:
		m.giveBack(id, 0)
		if c := m.chats[l.chat]; !m.stopped(l.chat) {
			delay := max(int64(time.Second), m.backoff(len(m.cfg.Retry.Backoff)))
			c.state, c.until = schedule.Retrying, max(m.now+delay, c.until)
			m.chats[l.chat] = c
		}
	default:
		for _, e := range damaged {
			m.bury(e)
		}
		if len(damaged) == len(all) {
			m.end(id, 0)
		}
	}
}

// recover says what dead letters are that could not be read.
func (m *model) recover(events []schedule.Event) {
	for _, now := range events {
		if e := m.find(now.Sequence); e != nil && e.state == dead && e.unread {
			e.Event, e.received, e.unread = now, now.Received.UnixNano(), false
		}
	}
}

// cut says that the log has lost its end.
func (m *model) cut(end uint64) {
	gone := func(e *modelEvent) bool { return e.Sequence > end && e.state != settled }
	for _, e := range m.all(func(e *modelEvent) bool { return e.state == out && gone(e) }) {
		if _, live := m.leases[e.lease]; live {
			for _, other := range m.of(e.lease) {
				other.state = waiting
			}
			m.revoked = append(m.revoked, e.lease)
			m.end(e.lease, 0)
		}
	}
	m.settleAll(m.all(gone))
	m.goOnWithoutStopper()
	m.position, m.seekEnd = min(m.position, end), min(m.seekEnd, end)
}

// damage makes a part of the log unreadable, or readable again.
func (h *history) damage(t *rapid.T) {
	if len(h.log) == 0 {
		return
	}
	if rapid.Bool().Draw(t, "repair") {
		clear(h.damaged)
		return
	}
	back := rapid.SampledFrom([]int{1, 1, 2, 3, 10, 30}).Draw(t, "damaged")
	first := h.log[len(h.log)-min(back, len(h.log))].Sequence
	for n := range rapid.Uint64Range(1, 4).Draw(t, "n") {
		h.damaged[first+n] = true
	}
}

// readDamaged has the group hear that it cannot read an event, if there is room
// for it among the dead letters.
func (h *history) readDamaged(sequence uint64) bool {
	if h.s.RoomForLetters() == 0 {
		h.seen["no room to read on"]++
		return false
	}
	h.s.Advance(sequence - 1)
	h.s.Damage(sequence, sequence)
	h.m.damage(sequence, sequence)
	h.seen["damaged, read"]++
	return true
}

// damageLease finds that some events of a lease cannot be read.
func (h *history) damageLease(t *rapid.T) {
	if len(h.issued) == 0 {
		return
	}
	id := h.issued[len(h.issued)-min(len(h.issued), rapid.IntRange(1, 3).Draw(t, "back"))]
	for _, other := range h.issued[max(0, len(h.issued)-5):] { // rather a turn
		if len(h.m.of(other)) > len(h.m.of(id)) {
			id = other
		}
	}
	var sequences []uint64
	for _, e := range h.m.of(id) {
		if rapid.Bool().Draw(t, "damaged") {
			sequences = append(sequences, e.Sequence)
		}
	}
	before := len(h.m.of(id))
	h.m.damageLease(id, sequences)
	h.m.tidy()
	letters, live := h.s.DamageLease(id, sequences)
	if _, want := h.m.leases[id]; live != want {
		t.Fatalf("DamageLease(%d, %v): out is %v, want %v", id, sequences, live, want)
	}
	switch {
	case letters == 0 && len(sequences) > 0:
		h.seen["damaged, no room"]++
	case letters > 0 && letters < before:
		h.seen["damaged, a part of a turn"]++
	case letters > 0:
		h.seen["damaged, out"]++
	}
}

// recover reads again what could not be read.
func (h *history) recover(sel schedule.Selection) {
	var events []schedule.Event
	for _, n := range h.s.Unread(sel) {
		if !h.damaged[n] {
			events = append(events, h.between(n-1, n)...)
		}
	}
	h.s.Recover(events)
	h.m.recover(events)
	h.seen["readable again"] += len(events)
}

// cut loses the end of the log, and all that was written since. Replaying from
// before that is another test's.
func (h *history) cut(t *rapid.T) {
	if len(h.log) == 0 {
		return
	}
	n := rapid.IntRange(0, min(3, len(h.log))).Draw(t, "lost")
	h.log = h.log[:len(h.log)-n]
	end := h.first + uint64(len(h.log)) - 1
	for sequence := range h.damaged {
		if sequence > end {
			delete(h.damaged, sequence)
		}
	}
	h.s.Cut(end)
	h.m.cut(end)
	h.m.tidy()
	h.flush(t)
	h.snapshots, h.entries = [][]byte{h.s.Snapshot()}, [][]entry{nil}
}
