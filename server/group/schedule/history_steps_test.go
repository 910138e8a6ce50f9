package schedule_test

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// step is one thing that happens.
func (h *history) step(t *rapid.T) {
	steps := []func(*rapid.T){
		h.write, h.write, h.write, h.write, h.read, h.read, h.flush, h.flush, h.flush,
		h.wait, h.wait, h.wait, h.join, h.join, h.grant, h.grant, h.pull, h.pull, h.pull, h.pull,
		h.settle, h.settle, h.settle, h.settle, h.settle, h.settle, h.settle, h.settle,
		h.leave, h.heartbeat, h.redrive, h.rarely, h.damage, h.damageLease,
	}
	steps[rapid.IntRange(0, len(steps)-1).Draw(t, "step")](t)
}

// rarely is what seldom happens.
func (h *history) rarely(t *rapid.T) {
	steps := []func(*rapid.T){
		h.crash, h.crash, h.crash, h.crash, h.snapshot, h.snapshot, h.clock, h.configure, h.setFilter, h.pause,
		h.seek, h.seekChats, h.seekChats, h.truncate, h.discard, h.discard, h.cut,
	}
	steps[rapid.IntRange(0, len(steps)-1).Draw(t, "rarely")](t)
}

// write adds an event to the log.
func (h *history) write(t *rapid.T) {
	e := schedule.Event{
		Sequence: h.first + uint64(len(h.log)),
		Chat:     rapid.Uint64Range(1, chats).Draw(t, "chat"),
		Received: time.Unix(0, h.now),
		Size:     rapid.IntRange(0, 3).Draw(t, "size"),
	}
	if rapid.Bool().Draw(t, "sent") {
		e.Sent = time.Unix(0, h.now-int64(rapid.IntRange(0, 5).Draw(t, "late"))*int64(time.Second))
	}
	if n := rapid.IntRange(0, 8).Draw(t, "revises"); n > 0 && n <= min(3, len(h.log)) {
		old := h.log[len(h.log)-n]
		e.Revises, e.Chat = old.Sequence, old.Chat
		if old.Revises != 0 {
			e.Revises = old.Revises
		}
	}
	h.log = append(h.log, e)
	if rapid.Bool().Draw(t, "read") {
		h.read(t)
	}
}

// read lets the group read on.
func (h *history) read(t *rapid.T) {
	upTo := min(h.s.Position()+uint64(rapid.IntRange(1, 3).Draw(t, "n")), h.first+uint64(len(h.log))-1)
	for _, e := range h.between(h.m.position, upTo) {
		if h.damaged[e.Sequence] && !h.readDamaged(e.Sequence) {
			upTo = e.Sequence - 1 // no further
			break
		}
		if !h.damaged[e.Sequence] && h.filter.match(e) {
			h.s.Append(e)
			h.m.append(e)
		}
	}
	h.s.Advance(upTo)
	h.m.position = max(h.m.position, upTo)
}

// between returns what the log holds after a sequence up to another one.
func (h *history) between(after, upTo uint64) []schedule.Event {
	var events []schedule.Event
	for _, e := range h.log {
		if e.Sequence > after && e.Sequence <= upTo {
			events = append(events, e)
		}
	}
	return events
}

// wait lets time pass.
func (h *history) wait(t *rapid.T) {
	h.now += int64(rapid.SampledFrom([]time.Duration{
		time.Millisecond, 50 * time.Millisecond, 500 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second,
	}).Draw(t, "wait"))
	h.tick()
}

// clock sets the clock.
func (h *history) clock(t *rapid.T) {
	step := rapid.SampledFrom([]time.Duration{-48 * time.Hour, -time.Second, 48 * time.Hour}).Draw(t, "clock")
	if step < 0 {
		h.seen["clock set back"]++
	}
	h.now += int64(step)
	h.tick()
}

func (h *history) tick() {
	h.s.Tick(time.Unix(0, h.now))
	h.m.tick(h.now)
}

func (h *history) member(t *rapid.T) string { return rapid.SampledFrom(memberNames).Draw(t, "member") }

func (h *history) join(t *rapid.T) {
	name := h.member(t)
	timeout := rapid.SampledFrom([]time.Duration{0, 2 * time.Second}).Draw(t, "timeout")
	h.s.Join(name, timeout)
	h.m.members[name] = modelMember{connected: true, timeout: int64(timeout), heard: h.m.now}
	h.grantTo(t, name)
}

func (h *history) leave(t *rapid.T) {
	name := h.member(t)
	h.s.Leave(name)
	h.m.leave(name)
}

func (h *history) heartbeat(t *rapid.T) {
	name := h.member(t)
	h.s.Heartbeat(name)
	if mb, ok := h.m.members[name]; ok {
		mb.heard = h.m.now
		h.m.members[name] = mb
	}
}

// grant changes the credits of a member.
func (h *history) grant(t *rapid.T) { h.grantTo(t, h.member(t)) }

func (h *history) grantTo(t *rapid.T, name string) {
	h.setCredits(name, schedule.Credits{
		Events: rapid.IntRange(0, 4).Draw(t, "events"),
		Bytes:  rapid.SampledFrom([]int{0, 2, 100}).Draw(t, "bytes"),
	})
}

func (h *history) setCredits(name string, credits schedule.Credits) {
	h.s.Grant(name, credits)
	mb := h.m.members[name]
	mb.credits = credits
	h.m.members[name] = mb
}

// pull asks for something, and for nothing more.
func (h *history) pull(t *rapid.T) {
	name := h.member(t)
	held := h.s.Held(name)
	h.setCredits(name, schedule.Credits{Events: held.Events + rapid.IntRange(1, 3).Draw(t, "n"), Bytes: held.Bytes + 100})
	h.flush(t)
	h.setCredits(name, schedule.Credits{})
}

// settle gives a verdict on a lease: a recent one, an old one, or any number.
func (h *history) settle(t *rapid.T) {
	var id uint64
	if back := rapid.SampledFrom([]int{1, 1, 1, 1, 2, 2, 3, 4, 5, 10}).Draw(t, "back"); back <= len(h.issued) {
		id = h.issued[len(h.issued)-back]
	} else if len(h.issued) > 0 {
		id = rapid.Uint64Range(0, 20).Draw(t, "lease")
	} else {
		h.pull(t)
		return
	}
	v := schedule.Verdict{Kind: rapid.SampledFrom([]schedule.VerdictKind{
		schedule.Ack, schedule.Ack, schedule.Ack, schedule.Nack, schedule.Nack, schedule.Release, schedule.Release, schedule.Park, schedule.Extend,
	}).Draw(t, "verdict")}
	switch v.Kind { //nolint:exhaustive // the others have nothing to draw
	case schedule.Nack:
		v.Reason = rapid.SampledFrom([]string{"", "no", "not now"}).Draw(t, "reason")
		if d := rapid.SampledFrom([]time.Duration{-1, -1, 0, 2 * time.Second}).Draw(t, "delay"); d >= 0 {
			v.Delay = &d
		}
	case schedule.Release:
		v.NotMe = rapid.Bool().Draw(t, "not me")
	case schedule.Extend:
		v.By = rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "by")
	}
	got, want := h.s.Settle(id, v), h.m.settle(id, v)
	h.m.tidy()
	h.seen[[]string{"", "done", "already done", "lease lost", "unknown lease"}[got]]++
	if got != want {
		t.Fatalf("Settle(%d, %+v) = %d, want %d\n%v", id, v, got, want, h.m)
	}
}

func (h *history) selection(t *rapid.T) schedule.Selection {
	sel := schedule.Selection{All: rapid.Bool().Draw(t, "all")}
	if rapid.Bool().Draw(t, "by chat") {
		sel.Chats = []uint64{rapid.Uint64Range(1, chats).Draw(t, "chat")}
	}
	for _, l := range h.s.DeadLetters(0, 1, nil) {
		sel.Sequences = []uint64{l.Sequence}
	}
	return sel
}

func (h *history) redrive(t *rapid.T) {
	sel, perSecond := h.selection(t), rapid.SampledFrom([]int{0, 1, 20}).Draw(t, "per second")
	h.recover(sel)
	dry := h.s.Redrive(sel, perSecond, true)
	if got := h.s.Redrive(sel, perSecond, false); got != dry {
		t.Fatalf("Redrive() = %v, the dry run %v", got, dry)
	}
	h.m.redrive(sel, perSecond)
	h.m.tidy()
}

func (h *history) discard(t *rapid.T) {
	sel := h.selection(t)
	sel.All = sel.All && rapid.IntRange(0, 4).Draw(t, "really") == 0
	dry := h.s.Discard(sel, true)
	if got := h.s.Discard(sel, false); got != dry {
		t.Fatalf("Discard() = %v, the dry run %v", got, dry)
	}
	h.m.discard(sel)
	h.m.tidy()
}

func (h *history) configure(t *rapid.T) { h.setConfig(h.config(t)) }

func (h *history) pause(t *rapid.T) {
	cfg := h.s.Config()
	cfg.Paused = !cfg.Paused && rapid.Bool().Draw(t, "pause")
	h.setConfig(cfg)
}

func (h *history) setConfig(cfg schedule.Config) {
	h.s.Configure(cfg)
	h.m.configure(cfg)
	h.m.tidy()
}

// setFilter changes the filter, as its owner does: by itself in a batch.
func (h *history) setFilter(t *rapid.T) {
	h.flush(t)
	next := filter(rapid.Uint64Range(0, chats).Draw(t, "filter"))
	h.s.Drop(h.m.drop(next.match))
	h.m.goOnWithoutStopper()
	h.m.tidy()
	h.flush(t)
	h.filter = next
}

// seek moves the group to any place in the log.
func (h *history) seek(t *rapid.T) {
	next := rapid.Uint64Range(h.first, h.first+uint64(len(h.log))).Draw(t, "next")
	h.s.Seek(next)
	h.m.seek(next, nil, nil)
	h.m.tidy()
}

// seekChats moves one or two chats.
func (h *history) seekChats(t *rapid.T) {
	if h.s.Config().Order != schedule.ByChat {
		return
	}
	next := rapid.Uint64Range(h.first, h.first+uint64(len(h.log))).Draw(t, "next")
	moved := []uint64{rapid.Uint64Range(1, chats).Draw(t, "chat"), rapid.Uint64Range(1, chats).Draw(t, "chat")}
	var events []schedule.Event
	var damaged []uint64
	for _, e := range h.between(next-1, h.m.position) {
		switch {
		case h.damaged[e.Sequence]:
			damaged = append(damaged, e.Sequence)
		case h.filter.match(e) && slices.Contains(moved, e.Chat):
			events = append(events, e)
		}
	}
	h.s.SeekChats(moved, next, events)
	h.m.seek(next, moved, events)
	for _, n := range damaged { // whose chats nobody knows
		h.s.Damage(n, n)
		h.m.damage(n, n)
	}
	h.m.tidy()
}

// truncate lets retention remove the beginning of the log. Replaying from
// before that is another test's.
func (h *history) truncate(t *rapid.T) {
	if len(h.log) == 0 {
		return
	}
	n := rapid.IntRange(1, len(h.log)).Draw(t, "truncate")
	h.first, h.log = h.first+uint64(n), h.log[n:]
	h.s.Truncate(h.first)
	h.m.truncate(h.first)
	h.m.tidy()
	h.flush(t)
	h.snapshots, h.entries = [][]byte{h.s.Snapshot()}, [][]entry{nil}
}

func (h *history) snapshot(t *rapid.T) {
	h.flush(t)
	h.snapshots, h.entries = append(h.snapshots, h.s.Snapshot()), append(h.entries, nil)
}
