package eventlogtest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A history is a log under test, and the slice that says what must be in it.
type history struct {
	t       testing.TB // of which contexts are
	harness *Harness
	cfg     eventlog.LogConfig
	log     *eventlog.Log

	records []eventlog.Record // all that were stored, ever
	removed map[uint64]bool   // by Delete
	first   uint64            // nothing before it is held
	ids     map[string]uint64
}

// testHistories runs random calls against a log and its model.
func testHistories(t *testing.T, h Harness) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &history{t: t, harness: &h, removed: map[uint64]bool{}, first: 1, ids: map[string]uint64{}}
		m.cfg = eventlog.LogConfig{Name: newName(), DedupeWindow: time.Hour, Deletes: true}
		if rapid.Bool().Draw(rt, "bounded") {
			m.cfg.MaxBytes, m.cfg.DropOldest = maxHistory, true
		}
		m.log = h.open(t, m.cfg)
		defer func() {
			if err := h.Engine.Remove(ctxOf(t), m.cfg.Name); err != nil {
				rt.Errorf("Remove() = %v", err)
			}
		}()
		actions := map[string]func(*rapid.T){
			"append":   m.append,
			"appendAt": m.appendAt,
			"delete":   m.delete,
			"trim":     m.trim,
			"forget":   func(*rapid.T) { m.log.Forget() },
			"get":      m.get,
			"read":     m.read,
			"readKey":  m.readKey,
			"last":     m.last,
			"reopen":   func(rt *rapid.T) { m.restart(rt, h.Reopen) },
		}
		if h.Crash != nil {
			actions["crash"] = func(rt *rapid.T) { m.restart(rt, h.Crash) }
		}
		rt.Repeat(actions)
		m.whole(rt)
	})
}

// held says whether the log must hold the record at sequence.
func (m *history) held(sequence uint64) bool {
	return sequence >= m.first && sequence <= m.end() && !m.removed[sequence]
}

// end returns the newest sequence.
func (m *history) end() uint64 { return uint64(len(m.records)) }

// between returns the records held from first to last.
func (m *history) between(first, last uint64) (held []eventlog.Record) {
	for sequence := max(first, m.first); sequence <= min(last, m.end()); sequence++ {
		if m.held(sequence) {
			held = append(held, m.records[sequence-1])
		}
	}
	return held
}

// oldest returns the oldest sequence held, or the one after the end.
func (m *history) oldest() uint64 {
	for sequence := m.first; sequence <= m.end(); sequence++ {
		if m.held(sequence) {
			return sequence
		}
	}
	return m.end() + 1
}

// settle holds the log's extent against the model's, and takes over what
// retention has removed: all that is certain is that it was the oldest.
func (m *history) settle(rt *rapid.T) {
	var s eventlog.State
	until(m.t, func() bool {
		end, err := m.log.End(ctxOf(m.t))
		if err != nil || end != m.end() || m.log.Durable() != end {
			rt.Fatalf("End() = %d, %v, durable %d, want %d", end, err, m.log.Durable(), m.end())
		}
		s = m.log.State()
		return !m.cfg.DropOldest || s.Bytes <= maxHistory
	})
	oldest := m.oldest()
	gone := m.cfg.DropOldest && s.First > oldest && (s.First <= m.end() || oldest > m.end())
	if s.First != oldest && !gone {
		rt.Fatalf("State() = %+v, want %d to be the oldest held, up to %d", s, oldest, m.end())
	}
	m.first = max(m.first, s.First)
}

// maxHistory is how many bytes the log of a history may hold, if that is
// bounded.
const maxHistory = 3000

// draw returns a record to append.
func (m *history) draw(rt *rapid.T) eventlog.Record {
	data := fmt.Sprintf("%d:", m.end()+1)
	for len(data) < rapid.SampledFrom([]int{0, 10, 500}).Draw(rt, "size") {
		data += "x"
	}
	return eventlog.Record{
		Subject: rapid.SampledFrom([]string{"s", "a.b", "a.c~1.-"}).Draw(rt, "subject"),
		Key:     rapid.SampledFrom([]string{"", "k", "l"}).Draw(rt, "key"),
		Data:    []byte(data),
	}
}

func (m *history) append(rt *rapid.T) {
	r := m.draw(rt)
	r.ID = rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(rt, "id")
	a, err := m.log.Append(ctxOf(m.t), r)
	if err != nil {
		rt.Fatalf("Append() = %v", err)
	}
	wanted := eventlog.Appended{Sequence: m.end() + 1}
	if at := m.ids[r.ID]; at > 0 {
		wanted = eventlog.Appended{Sequence: at, Duplicate: true}
	}
	if a != wanted {
		rt.Fatalf("Append(%s) = %+v, want %+v", r.ID, a, wanted)
	}
	if a.Duplicate {
		return
	}
	m.stored(r)
}

func (m *history) stored(r eventlog.Record) {
	r.Sequence = m.end() + 1
	if r.ID != "" {
		m.ids[r.ID] = r.Sequence
	}
	m.records = append(m.records, r)
}

func (m *history) appendAt(rt *rapid.T) {
	r := m.draw(rt)
	at := m.end() + uint64(rapid.IntRange(0, 2).Draw(rt, "at")) //nolint:gosec // small
	if at == 0 {
		return
	}
	switch err := m.log.AppendAt(ctxOf(m.t), at, r); {
	case at == m.end()+1 && err == nil:
		m.stored(r)
	case at == m.end()+1 || !errors.Is(err, eventlog.ErrConflict):
		rt.Fatalf("AppendAt(%d) = %v with the end at %d", at, err, m.end())
	}
}

// any draws a sequence in the log, or right beside it.
func (m *history) any(rt *rapid.T) uint64 {
	return rapid.Uint64Range(0, m.end()+2).Draw(rt, "sequence")
}

func (m *history) delete(rt *rapid.T) {
	m.settle(rt)
	sequence := m.any(rt)
	err := m.log.Delete(ctxOf(m.t), sequence)
	if m.held(sequence) && err == nil {
		m.removed[sequence] = true
		return
	}
	if m.held(sequence) || !errors.Is(err, eventlog.ErrNotFound) {
		rt.Fatalf("Delete(%d) = %v, held: %v", sequence, err, m.held(sequence))
	}
}

func (m *history) trim(rt *rapid.T) {
	sequence := m.any(rt)
	if err := m.log.Trim(ctxOf(m.t), sequence); err != nil {
		rt.Fatalf("Trim(%d) = %v", sequence, err)
	}
	m.first = max(m.first, min(sequence, m.end()+1))
}

func (m *history) restart(rt *rapid.T, restart func() eventlog.Engine) {
	epoch := m.log.Epoch()
	m.harness.Engine = restart()
	m.log = m.harness.open(m.t, m.cfg)
	if m.log.Epoch() != epoch {
		rt.Fatalf("epoch %s became %s", epoch, m.log.Epoch())
	}
	m.settle(rt)
}

func (m *history) get(rt *rapid.T) {
	m.settle(rt)
	sequence := m.any(rt)
	r, err := m.log.Get(ctxOf(m.t), sequence)
	switch {
	case m.held(sequence) && (err != nil || string(r.Data) != string(m.records[sequence-1].Data)):
		rt.Fatalf("Get(%d) = %q, %v, want %q", sequence, r.Data, err, m.records[sequence-1].Data)
	case !m.held(sequence) && !errors.Is(err, eventlog.ErrNotFound):
		// What retention removed may be in memory still.
		if err != nil || !m.cfg.DropOldest || m.removed[sequence] || sequence == 0 || sequence > m.end() {
			rt.Fatalf("Get(%d) = %q, %v, want ErrNotFound", sequence, r.Data, err)
		}
	}
}

// read reads a few records from somewhere on.
func (m *history) read(rt *rapid.T) {
	m.settle(rt)
	from, limit := m.any(rt), rapid.IntRange(1, 5).Draw(rt, "limit")
	if from > m.end() || len(m.between(max(from, 1), m.end())) == 0 {
		return // there is nothing, for which Next may wait
	}
	r := m.log.Read(from)
	records, err := r.Next(ctxOf(m.t), limit)
	var gone *eventlog.TruncatedError
	if errors.As(err, &gone) && from > 0 && from < m.first {
		if gone.Asked != from || gone.First != m.first {
			rt.Fatalf("Next() from %d = %v, the first is %d", from, err, m.first)
		}
		return
	}
	if err == nil && from > 0 && from < m.first && m.cfg.DropOldest {
		return // from memory
	}
	held := m.between(from, r.Position())
	if err != nil || r.Position() < max(from, 1) || !same(records, held) || len(records) > limit {
		rt.Fatalf("Next(%d) from %d = %q, %v, position %d, want %q", limit, from, contents(records), err, r.Position(), contents(held))
	}
}

func (m *history) readKey(rt *rapid.T) {
	m.settle(rt)
	key := rapid.SampledFrom([]string{"k", "l", "m"}).Draw(rt, "of")
	from, limit, reverse := m.any(rt), rapid.IntRange(1, 5).Draw(rt, "limit"), rapid.Bool().Draw(rt, "reverse")
	records, err := m.log.ReadKey(ctxOf(m.t), key, from, limit, reverse)
	held := m.between(from, m.end())
	if reverse {
		held = m.between(0, m.end())
		if from > 0 {
			held = m.between(0, from)
		}
		slices.Reverse(held)
	}
	held = slices.DeleteFunc(held, func(r eventlog.Record) bool { return r.Key != key })
	if err != nil || !same(records, held[:min(len(held), limit)]) {
		rt.Fatalf("ReadKey(%s, %d, %d, %v) = %q, %v, want the first of %q", key, from, limit, reverse, contents(records), err, contents(held))
	}
}

func (m *history) last(rt *rapid.T) {
	m.settle(rt)
	n := rapid.IntRange(1, 10).Draw(rt, "n")
	records, err := m.log.Last(ctxOf(m.t), n)
	held := m.between(0, m.end())
	if err != nil || !same(records, held[max(0, len(held)-n):]) {
		rt.Fatalf("Last(%d) = %q, %v, want the last of %q", n, contents(records), err, contents(held))
	}
}

// whole compares all that the log holds with the model.
func (m *history) whole(rt *rapid.T) {
	m.settle(rt)
	m.log.Forget()
	var records []eventlog.Record
	err := m.log.Scan(ctxOf(m.t), 0, m.end(), func(r eventlog.Record) error {
		records = append(records, r)
		return nil
	})
	held := m.between(0, m.end())
	if err != nil || !same(records, held) {
		rt.Fatalf("Scan() = %q, %v, want %q", contents(records), err, contents(held))
	}
	if s := m.log.State(); s.Count != uint64(len(held)) || s.Last != m.end() {
		rt.Fatalf("State() = %+v, want %d records of %d to %d", s, len(held), m.oldest(), m.end())
	}
}

// same says whether two lists hold the same records.
func same(got, held []eventlog.Record) bool {
	return slices.EqualFunc(got, held, func(a, b eventlog.Record) bool {
		return a.Sequence == b.Sequence && a.Subject == b.Subject && a.KeyHash == eventlog.HashKey(b.Key) && string(a.Data) == string(b.Data)
	})
}
