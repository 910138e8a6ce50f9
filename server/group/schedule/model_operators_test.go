package schedule_test

import (
	"slices"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// goOn ends that a chat is stopped.
func (m *model) goOn(key uint64) {
	if m.stopped(key) {
		m.chats[key] = modelChat{recovering: m.chats[key].recovering}
	}
}

// unstop is goOn, where what was diverted before a sequence stays dead.
func (m *model) unstop(key, before uint64) {
	for _, e := range m.in(key, waiting) {
		switch {
		case m.chats[key].state == schedule.Diverted && e.Sequence < before:
			m.bury(e)
		case e.stopper:
			e.stopper, e.failure = false, nil
		}
	}
	m.goOn(key)
}

// redrive lets dead letters wait again, and the whole of a chat that is stopped
// (rule 6), with no failures.
func (m *model) redrive(sel schedule.Selection, perSecond int) {
	var chats []uint64
	for _, e := range m.events {
		if m.isLetter(e) && !e.unread && selects(sel, e) {
			chats = append(chats, m.key(e))
		}
	}
	for _, e := range m.events {
		if m.isLetter(e) && !e.unread && (selects(sel, e) || e.state == waiting && slices.Contains(chats, m.key(e))) {
			e.state, e.origin, e.failure, e.stopper = waiting, schedule.FromRedrive, nil, false
		}
	}
	for _, key := range chats {
		m.goOn(key)
	}
	m.redriveRate = perSecond
}

// discard settles dead letters. A chat goes on when nothing that stopped it is
// left.
func (m *model) discard(sel schedule.Selection) {
	m.settleAll(m.all(func(e *modelEvent) bool { return m.isLetter(e) && selects(sel, e) }))
	m.goOnWithoutStopper()
}

func (m *model) goOnWithoutStopper() {
	for key := range m.chats {
		if !slices.ContainsFunc(m.in(key, waiting), func(e *modelEvent) bool { return e.stopper }) {
			m.goOn(key)
		}
	}
}

func selects(sel schedule.Selection, e *modelEvent) bool {
	return sel.All || slices.Contains(sel.Sequences, e.Sequence) || !e.unread && slices.Contains(sel.Chats, e.Chat)
}

// drop settles events that wait and no longer match the filter.
func (m *model) drop(match func(schedule.Event) bool) (dropped []uint64) {
	for _, e := range m.events {
		if e.state == waiting && !m.isLetter(e) && !match(e.Event) {
			dropped = append(dropped, e.Sequence)
			m.settleAll([]*modelEvent{e})
		}
	}
	return dropped
}

// truncate settles what waits or is dead before a sequence.
func (m *model) truncate(first uint64) {
	m.position = max(m.position, first-1)
	m.settleAll(m.all(func(e *modelEvent) bool {
		return (e.state == waiting || e.state == dead) && e.Sequence < first
	}))
	m.goOnWithoutStopper()
}

// seek moves chats, or with nil the group, to a sequence.
func (m *model) seek(next uint64, chats []uint64, events []schedule.Event) {
	moved := func(e *modelEvent) bool { return chats == nil || !e.unread && slices.Contains(chats, e.Chat) }
	for _, e := range m.all(func(e *modelEvent) bool { return e.state == out && moved(e) }) {
		e.state = waiting
		if _, live := m.leases[e.lease]; live {
			m.revoked = append(m.revoked, e.lease)
			m.end(e.lease, 0)
		}
	}
	for _, e := range m.all(func(e *modelEvent) bool { return e.state == waiting && moved(e) }) {
		m.unstop(m.key(e), next)
	}
	m.settleAll(m.all(func(e *modelEvent) bool {
		return moved(e) && (e.state == waiting || e.state == dead && e.Sequence >= next)
	}))
	if chats == nil {
		m.seekEnd, m.position = max(m.seekEnd, m.position), next-1
	}
	m.tidy()
	for _, e := range events {
		if old := m.find(e.Sequence); old != nil && old.unread {
			m.settleAll([]*modelEvent{old})
		}
		m.add(e, true)
	}
}

// configure changes the configuration. With another order all is taken back.
func (m *model) configure(cfg schedule.Config) {
	if cfg.Order != m.cfg.Order {
		for id := range m.leases {
			for _, e := range m.of(id) {
				e.state = waiting
			}
			m.revoked = append(m.revoked, id)
			m.end(id, 0)
		}
		for key := range m.chats {
			m.unstop(key, m.position+1)
		}
		clear(m.chats)
		clear(m.fences) // chats are others now; leases grow all the same
		for _, e := range m.events {
			e.closed = e.closed && e.state != waiting
		}
	}
	m.cfg = cfg
}
