package local

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

// append puts a record into g, unless it is there already. It is the writer's.
func (s *store) append(g *group, o *op) error {
	if s.gone.Load() {
		return eventlog.ErrClosed
	}
	c := g.of(s)
	r := &stored{Record: o.record, total: c.state.total}
	if r.Sequence > 0 && r.Sequence != c.state.last+1 {
		return eventlog.ErrConflict
	}
	at := max(g.now, c.state.time)
	if r.ID != "" {
		s.forget(g, at)
		r.id = hashOf(r.ID)
		first, found, err := s.lookUp(g, r.id, at)
		if err != nil {
			return err
		}
		if found {
			o.outcome = eventlog.Appended{Sequence: first, Duplicate: true}
			return nil
		}
	}
	r.KeyHash = eventlog.HashKey(r.Key)
	size := recordSize(&r.Record)
	if s.cfg.MaxBytes > 0 && !s.cfg.DropOldest && s.held(c.state.total)+uint64(size) > uint64(s.cfg.MaxBytes) { //nolint:gosec // not negative
		return fmt.Errorf("%w: log %s holds its max_bytes", eventlog.ErrFull, s.name)
	}
	r.Sequence, r.Time = c.state.last+1, time.Unix(0, at).UTC()
	if c.state.first > c.state.last { // the log is empty
		s.base, s.since = c.state.total, r.Time
	}
	s.put(g, r, size)
	c.touched = true
	c.state.last, c.state.time = r.Sequence, at
	c.state.total += uint64(size) //nolint:gosec // not negative
	c.sum = r.sum
	c.records = append(c.records, eventlog.Record{Sequence: r.Sequence, Time: r.Time, Subject: r.Subject, KeyHash: r.KeyHash, Data: r.Data})
	g.records++
	o.outcome = eventlog.Appended{Sequence: r.Sequence}
	return nil
}

// put writes a record and what leads to it to the group's batch.
func (s *store) put(g *group, r *stored, size int) {
	number := s.entry.number
	key := sequenceKey(keyRecord, number, r.Sequence)
	set := g.batch.SetDeferred(len(key), size)
	copy(set.Key, key)
	encodeRecord(set.Value, r)
	r.sum = binary.BigEndian.Uint32(set.Value)
	must(set.Finish())
	if r.ID != "" {
		s.setIdentity(g, r)
		if g.ids == nil {
			g.ids = make(map[identity]uint64)
		}
		g.ids[identity{number, r.id}] = r.Sequence
	}
	if r.Key != "" {
		must(g.batch.Set(indexKey(number, r.KeyHash, r.Sequence), nil, nil))
	}
}

// setIdentity writes the identity of a record to the group's batch.
func (s *store) setIdentity(g *group, r *stored) {
	at := r.Time.UnixNano()
	var v [16]byte
	binary.BigEndian.PutUint64(v[:], r.Sequence)
	binary.BigEndian.PutUint64(v[8:], uint64(at))
	must(g.batch.Set(identityKey(s.entry.number, s.bucket(at), r.id), v[:], nil))
	s.identities.add(r.id, at, at-int64(s.cfg.DedupeWindow))
}

// must is for errors that cannot be: a batch in memory takes what it is given.
func must(err error) {
	if err != nil {
		panic(err) //nolint:forbidigo // a bug in the caller
	}
}
