package local

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
)

// rebuildChunk is how many records a rebuild of the key index reads at a time.
const rebuildChunk = 1024

// ReadKey implements eventlog.Store.
func (s *store) ReadKey(ctx context.Context, key string, from uint64, limit int, reverse bool) ([]eventlog.Record, error) {
	records, err := read(ctx, s.engine, func() (records []eventlog.Record, err error) {
		bytes := 0
		err = s.find(ctx, eventlog.HashKey(key), from, reverse, func(sequence uint64) (more bool, err error) {
			if s.knownDamage(sequence) != nil {
				return false, s.damagedAt(sequence, errKnown)
			}
			p, err := s.probe(sequence) // none when it was removed
			var gone *eventlog.TruncatedError
			switch {
			case errors.As(err, &gone):
			case isDamage(err):
				return false, s.damagedAt(sequence, err)
			case err != nil:
				return false, err
			}
			for _, r := range p.records {
				if bytes += len(r.Data); len(records) > 0 && bytes > eventlog.MaxReadBytes {
					return false, nil
				}
				records = append(records, r)
			}
			return len(records) < limit, nil
		})
		if len(records) > 0 {
			return records, nil // what follows comes with the next read
		}
		return nil, err
	})
	return records, s.readErr(err)
}

func (s *store) damagedAt(sequence uint64, err error) error {
	return &eventlog.DamagedError{Log: s.name, First: sequence, Last: sequence, Err: err}
}

// A search is for the records of one key in one bucket of the index.
type search struct {
	hash      eventlog.KeyHash
	low, high uint64 // what is left to look at
	reverse   bool
	visit     func(uint64) (bool, error)
	ended     bool // visit wants no more
}

// find calls visit for each sequence that the index has under a key's hash,
// removed ones among them, until it returns false or an error.
func (s *store) find(ctx context.Context, hash eventlog.KeyHash, from uint64, reverse bool, visit func(uint64) (bool, error)) error {
	state := s.State()
	first, last := max(from, state.First), state.Last
	if reverse {
		first, last = state.First, min(from, state.Last)
	}
	for first <= last {
		// The part of the range that lies in one bucket.
		q := search{hash: hash, low: first, high: min(last, first|(1<<indexBits-1)), reverse: reverse, visit: visit}
		if reverse {
			q.low, q.high = max(first, last&^(1<<indexBits-1)), last
		}
		low, high := q.low, q.high
		if err := s.findIn(ctx, &q); err != nil || q.ended {
			return err
		}
		if first = high + 1; reverse {
			first, last = state.First, low-1 // low is at least 1
		}
	}
	return nil
}

// findIn looks into the index or, while that is being rebuilt, at the records
// themselves.
func (s *store) findIn(ctx context.Context, q *search) error {
	complete, err := s.findIndexed(q)
	switch {
	case complete, err != nil && !isDamage(err), errors.As(err, new(*eventlog.DamagedError)): // of a record
		return err
	case err != nil:
		s.rebuildSoon(q.low>>indexBits, err)
	}
	return s.findUnindexed(ctx, q)
}

// findIndexed reads the index. It returns false when that is being rebuilt.
func (s *store) findIndexed(q *search) (complete bool, err error) {
	begin, step := q.direction()
	complete = true
	begun := func(iter *pebble.Iterator) bool {
		// The iterator sees what was there before; a rebuild says so first.
		complete = !s.rebuilding(q.low >> indexBits)
		return complete && begin(iter)
	}
	lower, upper := indexKey(s.entry.number, q.hash, q.low), append(indexKey(s.entry.number, q.hash, q.high), 0)
	err = s.engine.walk(lower, upper, begun, step, func(iter *pebble.Iterator) error {
		return q.found(sequenceOf(iter.Key()))
	})
	return complete && err == nil, err
}

// findUnindexed reads all records.
func (s *store) findUnindexed(ctx context.Context, q *search) error {
	if q.low > q.high {
		return nil
	}
	begin, step := q.direction()
	next := q.low
	lower, upper := sequenceKey(keyRecord, s.entry.number, q.low), sequenceKey(keyRecord, s.entry.number, q.high+1)
	err := s.engine.walk(lower, upper, begin, step, func(iter *pebble.Iterator) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		next = sequenceOf(iter.Key())
		value, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		if r, err := decodeRecord(next, value, ""); err != nil || r.KeyHash != q.hash {
			return err
		}
		return q.found(next)
	})
	if isDamage(err) && !errors.As(err, new(*eventlog.DamagedError)) {
		err = s.damagedAt(next, err) // it may be one of the key's
	}
	return err
}

// direction returns how an iterator goes through the range.
func (q *search) direction() (begin, step func(*pebble.Iterator) bool) {
	if q.reverse {
		return (*pebble.Iterator).Last, (*pebble.Iterator).Prev
	}
	return (*pebble.Iterator).First, (*pebble.Iterator).Next
}

// found visits one record.
func (q *search) found(sequence uint64) error {
	more, err := q.visit(sequence)
	if q.low = sequence + 1; q.reverse {
		q.high = sequence - 1
	}
	if err == nil && !more {
		q.ended = true
		err = eventlog.ErrStop
	}
	return err
}

// rebuilding reports whether a bucket of the index is not complete.
func (s *store) rebuilding(bucket uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.rebuilds[bucket]
	return ok
}

// rebuildSoon makes a bucket of the index anew, in the background, unless that
// is under way.
func (s *store) rebuildSoon(bucket uint64, cause error) {
	if s.engine.marks == nil { // read-only
		return
	}
	if !s.incomplete(bucket) {
		return
	}
	s.engine.logger.Error("the key index is damaged and is made anew; until then a chat is found by reading the log",
		"log", s.name, "first_sequence", bucket<<indexBits, "last_sequence", (bucket+1)<<indexBits-1, "err", firstLine(cause))
	s.startRebuild(bucket)
}

// incomplete has look-ups read the records of a bucket from now on. It returns
// false when they do already.
func (s *store) incomplete(bucket uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.rebuilds[bucket]; again {
		return false
	}
	if s.rebuilds == nil {
		s.rebuilds = make(map[uint64]struct{})
	}
	s.rebuilds[bucket] = struct{}{}
	return true
}

// startRebuild rebuilds a bucket of the index, until the engine closes.
func (s *store) startRebuild(bucket uint64) {
	s.engine.background.Go(func() {
		ctx, cancel := s.engine.whileOpen()
		defer cancel()
		switch err := s.rebuild(ctx, bucket); {
		case err == nil:
			s.engine.logger.Info("a part of the key index was made anew", "log", s.name)
		case s.engine.closedErr() == nil && !s.gone.Load():
			s.engine.logger.Error("a part of the key index could not be made anew; the next start tries again", "log", s.name, "err", firstLine(err))
		}
	})
}

// rebuild removes a bucket of the index and writes it anew from the records. A
// key of the bucket's own says for that long that the index is not complete. What
// is damaged is cut out of the tables: under a mere DeleteRange, look-ups and
// compactions would still meet it.
func (s *store) rebuild(ctx context.Context, bucket uint64) error {
	number := s.entry.number
	flag := sequenceKey(keyRebuild, number, bucket)
	err := s.change(ctx, func(g *group) error { return g.batch.Set(flag, nil, nil) })
	var last uint64 // what comes later finds its own way into the index
	if err == nil {
		err = s.change(ctx, func(*group) error {
			last = min(s.next.last, (bucket+1)<<indexBits-1)
			return s.engine.db.Excise(ctx, pebble.KeyRange{
				Start: sequenceKey(keyIndex, number, bucket), End: sequenceKey(keyIndex, number, bucket+1),
			})
		})
	}
	for next := max(bucket<<indexBits, s.first.Load(), 1); err == nil && next <= last; {
		var keys [][]byte
		next, err = s.eachOf(next, last, func(r stored) {
			if r.KeyHash != (eventlog.KeyHash{}) {
				keys = append(keys, indexKey(number, r.KeyHash, r.Sequence))
			}
		})
		if err != nil {
			err = fmt.Errorf("read record %d: %w", next, err)
		} else {
			err = s.change(ctx, func(g *group) error {
				for _, key := range keys {
					must(g.batch.Set(key, nil, nil))
				}
				return nil
			})
		}
	}
	if err == nil {
		err = s.change(ctx, func(g *group) error { return g.batch.Delete(flag, nil) })
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rebuilds, bucket)
	return nil
}

// change has the writer change what leads to the log's records.
func (s *store) change(ctx context.Context, do func(*group) error) error {
	return s.engine.submit(ctx, &op{do: func(g *group, _ *op) error {
		if s.gone.Load() {
			return eventlog.ErrClosed
		}
		return do(g)
	}})
}

// eachOf calls visit for the first records from the one at from on, up to the one
// at last, and returns where to go on. With an error that is the record which
// cannot be read.
func (s *store) eachOf(from, last uint64, visit func(stored)) (next uint64, err error) {
	number, read := s.entry.number, 0
	next = from
	err = s.engine.each(sequenceKey(keyRecord, number, from), sequenceKey(keyRecord, number, last+1), func(iter *pebble.Iterator) error {
		if read++; read > rebuildChunk {
			return eventlog.ErrStop
		}
		next = sequenceOf(iter.Key())
		value, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		r, err := decodeRecord(next, value, "")
		if err != nil {
			return err
		}
		visit(r)
		next++
		return nil
	})
	if err == nil && read <= rebuildChunk {
		next = last + 1
	}
	return next, err
}

// resumeRebuilds goes on with what an earlier process did not finish. It is the
// writer's, or of who opens the log for reading.
func (s *store) resumeRebuilds() error {
	number := s.entry.number
	err := s.engine.each(logKey(keyRebuild, number), sequenceKey(keyRebuild, number, math.MaxUint64), func(iter *pebble.Iterator) error {
		if bucket := sequenceOf(iter.Key()); s.incomplete(bucket) && s.engine.marks != nil {
			s.startRebuild(bucket)
		}
		return nil
	})
	if isDamage(err) { // any of them may be incomplete
		for bucket := s.next.first >> indexBits; bucket <= s.next.last>>indexBits; bucket++ {
			s.rebuildSoon(bucket, err)
		}
		return nil
	}
	return err
}
