package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/failpoint"
)

// minBucket is the least width of a bucket of identities, and maxBuckets how
// many of them a look-up may read.
const (
	minBucket  = time.Hour
	maxBuckets = 8
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
	gone         bool   // removed

	dropped bool // removed, as the syncer knows

	opening sync.Mutex    // held while log is made
	log     *eventlog.Log // nil until the log is opened

	mu      sync.Mutex
	seen    eventlog.State           // what is durable
	damaged []*eventlog.DamagedError // what reads have met: to read it again takes Pebble a second
}

// open makes the Log over s. Opening again changes nothing.
func (s *store) open(ctx context.Context, cfg eventlog.LogConfig) error {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.log != nil {
		return nil
	}
	var view eventlog.State
	configure := func(g *group, _ *op) (err error) {
		s.cfg = cfg
		if view, err = s.measure(); err != nil || g == nil {
			return err
		}
		if int64(cfg.DedupeWindow) > maxBuckets*s.entry.window {
			return s.widen(g, int64(cfg.DedupeWindow))
		}
		return nil
	}
	var err error
	if s.engine.marks == nil { // read-only: there is no writer
		err = configure(nil, nil)
	} else {
		bounded, cancel := context.WithTimeout(ctx, s.engine.cfg.CommitTimeout)
		defer cancel()
		err = s.engine.submit(bounded, &op{do: configure})
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.seen = view
	s.mu.Unlock()
	log := eventlog.NewLog(cfg, epochText(s.entry.epoch), view.Last, s, s.engine.options)
	s.engine.mu.Lock()
	s.log = log
	s.engine.mu.Unlock()
	return nil
}

// measure reads what the state does not tell of the log. It is the writer's.
func (s *store) measure() (eventlog.State, error) {
	if err := s.rebase(s.next.first, s.next.last); err != nil {
		return eventlog.State{}, err
	}
	var err error
	s.deleted, s.deletedBytes, err = s.countDeleted(s.next.first, s.next.last+1)
	return s.view(), err
}

// rebase finds out how many bytes the log had taken before the record at first,
// and when that was stored. Of records that are gone or damaged the next is as
// good.
func (s *store) rebase(first, last uint64) error {
	s.base, s.since = s.next.total, time.Time{}
	if first > last {
		return nil
	}
	r, found, err := s.firstFrom(first, last)
	if found {
		s.base, s.since = r.total, r.Time
	}
	return err
}

// countDeleted returns how many of the records from first on and before end
// Delete removed, and their bytes.
func (s *store) countDeleted(first, end uint64) (records, bytes uint64, err error) {
	iter, err := s.iterate(keyDeleted, first, end)
	if err != nil {
		return 0, 0, err
	}
	for iter.First(); iter.Valid(); iter.Next() {
		records++
		if v := iter.Value(); len(v) == 8 {
			bytes += binary.BigEndian.Uint64(v)
		}
	}
	err = closeIter(iter, nil)
	if isDamage(err) {
		err = nil // a count is not worth more; readers meet the damage
	}
	return records, bytes, err
}

// iterate returns an iterator over the keys of one kind that end in a sequence
// from first on and before end.
func (s *store) iterate(kind byte, first, end uint64) (*pebble.Iterator, error) {
	return s.engine.db.NewIter(&pebble.IterOptions{
		LowerBound: sequenceKey(kind, s.entry.number, first),
		UpperBound: sequenceKey(kind, s.entry.number, end),
	})
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

// publish shows readers what is durable now. It is the syncer's.
func (s *store) publish(c *change) {
	s.mu.Lock()
	s.seen = c.view
	s.mu.Unlock()
	s.engine.mu.Lock()
	log := s.log
	s.engine.mu.Unlock()
	if log == nil {
		return
	}
	log.Advance(c.records, c.state.last)
	if cfg := log.Config(); cfg.DropOldest && cfg.MaxBytes > 0 && c.view.Bytes > uint64(cfg.MaxBytes) {
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
	if s.gone {
		return eventlog.ErrClosed
	}
	c := g.of(s)
	if sequence < c.state.first {
		return eventlog.ErrNotFound
	}
	next, err := s.skipRemoved(keyDeleted, sequence, sequence)
	if err != nil && !isDamage(err) {
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	if next > sequence {
		return eventlog.ErrNotFound
	}
	if sequence == c.state.first { // the oldest one: the log begins later then
		return s.trim(g, sequence+1)
	}
	size := uint64(0)
	v, closer, err := s.engine.db.Get(sequenceKey(keyRecord, s.entry.number, sequence))
	switch {
	case err == nil:
		size = uint64(len(v))
		err = closer.Close()
	case isNotFound(err), isDamage(err): // nobody can read it: all the more it may go
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	s.forgetDamage()
	must(g.batch.Set(sequenceKey(keyDeleted, s.entry.number, sequence), binary.BigEndian.AppendUint64(nil, size), nil))
	must(g.batch.Delete(sequenceKey(keyRecord, s.entry.number, sequence), nil))
	c.touched = true
	s.deleted++
	s.deletedBytes += size
	return failpoint.Hit("during-delete")
}

// forgetDamage has damage be looked for again, now that some of it may be gone.
func (s *store) forgetDamage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged = nil
}

// Trim implements eventlog.Store.
func (s *store) Trim(ctx context.Context, sequence uint64) error {
	return s.engine.submit(ctx, &op{do: func(g *group, _ *op) error { return s.trim(g, sequence) }})
}

// trim removes every record before sequence. It is the writer's.
func (s *store) trim(g *group, sequence uint64) error {
	if s.gone {
		return eventlog.ErrClosed
	}
	c := g.of(s)
	sequence = min(sequence, c.state.last+1)
	before := c.state.first
	if sequence <= before {
		return nil
	}
	sequence, err := s.skipRemoved(keyDeleted, sequence, c.state.last)
	if err != nil && !isDamage(err) {
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	deleted, deletedBytes, err := s.countDeleted(before, sequence)
	if err == nil {
		err = s.rebase(sequence, c.state.last)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	s.deleted -= min(s.deleted, deleted)
	s.deletedBytes -= min(s.deletedBytes, deletedBytes)
	s.first.Store(sequence) // readers must know before the records are gone
	c.touched, c.state.first = true, sequence
	number := s.entry.number
	for _, kind := range []byte{keyRecord, keyDeleted, keyLost} {
		must(g.batch.DeleteRange(logKey(kind, number), sequenceKey(kind, number, sequence), nil))
	}
	must(g.batch.DeleteRange(logKey(keyIndex, number), sequenceKey(keyIndex, number, sequence>>indexBits), nil))
	return failpoint.Hit("during-trim")
}

// widen gives the identities buckets of another width. It is the writer's.
func (s *store) widen(g *group, width int64) error {
	lower, upper := logKey(keyIdentity, s.entry.number), logKey(keyIdentity, s.entry.number+1)
	iter, err := s.engine.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	s.entry.window = width
	must(g.batch.Set(nameKey(s.name), s.entry.encode(), nil))
	must(g.batch.DeleteRange(lower, upper, nil))
	for iter.First(); iter.Valid(); iter.Next() {
		k, v := iter.Key(), iter.Value()
		at := int64(binary.BigEndian.Uint64(v[8:])) //nolint:gosec // as it was encoded
		must(g.batch.Set(identityKey(s.entry.number, s.bucket(at), [hashBytes]byte(k[len(k)-hashBytes:])), v, nil))
	}
	g.of(s).touched = true
	if err = closeIter(iter, nil); isDamage(err) {
		s.engine.reportIdentities(err)
		return nil
	}
	return err
}
