package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/failpoint"
)

// A store is one log. It implements eventlog.Store.
type store struct {
	engine *Engine
	name   string

	first    atomic.Uint64 // oldest sequence that was not removed, moved before anything is removed
	removing atomic.Bool   // Remove has begun

	// The writer's, and before that of who opens the engine.
	cfg          eventlog.LogConfig
	entry        logEntry
	next         state     // after all that was applied, durable or not
	sum          uint32    // checksum of the record at next.last; 0 when it is not known
	base         uint64    // next.total as it was before the record at next.first
	since        time.Time // when that record was stored
	deleted      uint64    // records after next.first that Delete removed
	deletedBytes uint64
	forgotten    uint64 // buckets of identities before it are removed
	identities   identities
	restoring    bool          // damaged identities are being written anew, or were
	made         *eventlog.Log // nil until the log is opened

	gone atomic.Bool // removed, set before the records go

	log *eventlog.Log // made, once everybody may use it; the engine's mu guards it

	mu       sync.Mutex
	seen     eventlog.State           // what is durable
	damaged  []*eventlog.DamagedError // what reads have met: to read it again takes Pebble a second
	rebuilds map[uint64]struct{}      // buckets of the key index that are not complete
}

// open makes the Log over s, unless that was done. It is the writer's.
func (s *store) open(g *group, cfg eventlog.LogConfig) error {
	if s.made != nil {
		return nil
	}
	s.cfg = cfg
	if err := s.measure(); err != nil {
		return err
	}
	if err := s.resumeRebuilds(); err != nil {
		return err
	}
	if g != nil && int64(cfg.DedupeWindow) > maxBuckets*s.entry.window {
		if err := s.widen(g, int64(cfg.DedupeWindow)); err != nil {
			return err
		}
	}
	view := s.view()
	s.mu.Lock()
	s.seen = view
	s.mu.Unlock()
	if s.identities.complete = s.next.last == 0; !s.identities.complete && s.engine.marks != nil {
		s.learn()
	}
	s.made = eventlog.NewLog(cfg, epochText(s.entry.epoch), view.Last, s, s.engine.options)
	return nil
}

// measure reads what the state does not tell of the log. It is the writer's.
func (s *store) measure() (err error) {
	s.base = s.next.total
	if err := s.rebase(s.next.first, s.next.last); err != nil {
		return err
	}
	s.deleted, s.deletedBytes, err = s.countRemoved(s.next.first, s.next.last+1)
	return err
}

// rebase finds out how many bytes the log had taken before the record at first,
// and when that was stored. Of records that are gone or damaged the next is as
// good; without one, nothing changes.
func (s *store) rebase(first, last uint64) error {
	if first > last {
		s.base, s.since = s.next.total, time.Time{}
		return nil
	}
	r, found, err := s.firstFrom(first, last)
	if found {
		s.base, s.since = r.total, r.Time
	}
	return err
}

// countRemoved returns how many of the records from first on and before end
// Delete removed or were lost, and the bytes of those that were deleted.
func (s *store) countRemoved(first, end uint64) (records, bytes uint64, err error) {
	number := s.entry.number
	err = s.engine.each(sequenceKey(keyDeleted, number, first), sequenceKey(keyDeleted, number, end), func(iter *pebble.Iterator) error {
		records++
		if v := iter.Value(); len(v) == 8 {
			bytes += binary.BigEndian.Uint64(v)
		}
		return nil
	})
	if err == nil {
		err = s.engine.each(logKey(keyLost, number), sequenceKey(keyLost, number, end), func(iter *pebble.Iterator) error {
			from, to := max(first, sequenceOf(iter.Key())), min(end, binary.BigEndian.Uint64(iter.Value())+1)
			records += to - min(from, to)
			return nil
		})
	}
	if isDamage(err) {
		err = nil // a count is not worth more; readers meet the damage
	}
	return records, bytes, err
}

// view returns the extent of the log after all that was applied. It is the
// writer's.
func (s *store) view() eventlog.State {
	v := eventlog.State{First: s.next.first, Last: s.next.last, Since: s.since}
	if s.next.last >= s.next.first {
		v.Count = s.next.last - s.next.first + 1 - s.deleted
		v.Bytes = s.held(s.next.total)
	}
	if v.Count == 0 {
		v.First, v.Since = s.next.last+1, time.Time{}
	}
	return v
}

// held returns how many bytes the log holds once it has taken total.
func (s *store) held(total uint64) uint64 {
	return total - min(total, s.base+s.deletedBytes)
}

// publish shows readers what is durable now. It is the writer's.
func (s *store) publish(c *change) {
	s.mu.Lock()
	s.seen = c.view
	s.mu.Unlock()
	l := s.opened()
	if l == nil {
		return
	}
	if c.removes { // whoever asked for it may have left
		l.Forget()
	}
	l.Advance(c.records, c.state.last)
	if cfg := l.Config(); cfg.DropOldest && cfg.MaxBytes > 0 && c.view.Bytes > uint64(cfg.MaxBytes) {
		s.engine.sweepSoon()
	}
}

// State implements eventlog.Store.
func (s *store) State() eventlog.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// End implements eventlog.Store: nobody else appends.
func (s *store) End(context.Context) (uint64, error) {
	if err := s.engine.closedErr(); err != nil && s.engine.marks != nil {
		return 0, err
	}
	return s.State().Last, nil
}

// Append implements eventlog.Store.
func (s *store) Append(ctx context.Context, r eventlog.Record) (eventlog.Appended, error) {
	if len(r.Subject) > maxSubject {
		return eventlog.Appended{}, fmt.Errorf("eventlog: a subject of %d bytes is over the limit of %d", len(r.Subject), maxSubject)
	}
	if s.engine.short.Load() {
		return eventlog.Appended{}, fmt.Errorf("%w: the disk is short of space", eventlog.ErrFull)
	}
	o := &op{store: s, record: r}
	if err := s.engine.submit(ctx, o); err != nil {
		return eventlog.Appended{}, err
	}
	return o.outcome, nil
}

// Delete implements eventlog.Store.
func (s *store) Delete(ctx context.Context, sequence uint64) error {
	return s.engine.submit(ctx, &op{do: func(g *group, _ *op) error { return s.delete(g, sequence) }})
}

// delete removes one record. It is the writer's.
func (s *store) delete(g *group, sequence uint64) error {
	if s.gone.Load() {
		return eventlog.ErrClosed
	}
	c := g.of(s)
	if sequence < c.state.first {
		return eventlog.ErrNotFound
	}
	next, err := s.skipRemoved(sequence, sequence)
	if err != nil && !isDamage(err) {
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	if next > sequence {
		return eventlog.ErrNotFound
	}
	if sequence == c.state.first { // the oldest one: the log begins later then
		return s.trim(g, sequence+1)
	}
	v, _, err := s.engine.get(sequenceKey(keyRecord, s.entry.number, sequence))
	if err != nil && !isDamage(err) { // what nobody can read may go all the more
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	size := uint64(len(v))
	s.forgetDamage(sequence, sequence)
	must(g.batch.Set(sequenceKey(keyDeleted, s.entry.number, sequence), binary.BigEndian.AppendUint64(nil, size), nil))
	must(g.batch.Delete(sequenceKey(keyRecord, s.entry.number, sequence), nil))
	c.touched, c.removes = true, true
	s.deleted++
	s.deletedBytes += size
	return failpoint.Hit("during-delete")
}

// forgetDamage has damage among these records be looked for again, since some of
// them go.
func (s *store) forgetDamage(first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged = slices.DeleteFunc(s.damaged, func(d *eventlog.DamagedError) bool { return d.First <= last && first <= d.Last })
}

// Trim implements eventlog.Store.
func (s *store) Trim(ctx context.Context, sequence uint64) error {
	return s.engine.submit(ctx, &op{do: func(g *group, _ *op) error { return s.trim(g, sequence) }})
}

// trim removes every record before sequence. It is the writer's.
func (s *store) trim(g *group, sequence uint64) error {
	if s.gone.Load() {
		return eventlog.ErrClosed
	}
	c := g.of(s)
	sequence = min(sequence, c.state.last+1)
	before := c.state.first
	if sequence <= before {
		return nil
	}
	sequence, err := s.skipRemoved(sequence, c.state.last)
	if err != nil && !isDamage(err) {
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	deleted, deletedBytes, err := s.countRemoved(before, sequence)
	if err == nil {
		err = s.rebase(sequence, c.state.last)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	s.deleted -= min(s.deleted, deleted)
	s.deletedBytes -= min(s.deletedBytes, deletedBytes)
	s.first.Store(sequence) // readers must know before the records are gone
	s.forgetDamage(0, sequence-1)
	c.touched, c.removes, c.state.first = true, true, sequence
	number := s.entry.number
	for _, kind := range []byte{keyRecord, keyDeleted, keyLost} { // no lost range goes beyond sequence
		must(g.batch.DeleteRange(logKey(kind, number), sequenceKey(kind, number, sequence), nil))
	}
	for _, kind := range []byte{keyIndex, keyRebuild} {
		must(g.batch.DeleteRange(logKey(kind, number), sequenceKey(kind, number, sequence>>indexBits), nil))
	}
	return failpoint.Hit("during-trim")
}
