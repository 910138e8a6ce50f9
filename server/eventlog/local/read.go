package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	// maxSlab bounds what is kept of a read while any of its records is.
	maxSlab = 64 << 10

	// maxProbe is how many records in a row are looked at to find where damage
	// ends. Longer damage is reported in parts.
	maxProbe  = 4096
	probeTime = time.Second

	// maxKnownDamage bounds what is remembered of damage.
	maxKnownDamage = 1000
)

var errKnown = errors.New("a read has found it damaged before")

var errMissing = errors.New("the record is missing, and nothing has removed it")

func isNotFound(err error) bool { return errors.Is(err, pebble.ErrNotFound) }

// isDamage reports whether err says that what is on the disk is not what was
// written, rather than that the disk cannot be read now.
func isDamage(err error) bool {
	return pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist) || errors.Is(err, errMissing) ||
		errors.Is(err, errChecksum) || errors.Is(err, errRecord)
}

// each calls visit for each key from lower on and before upper, until visit
// returns an error. ErrStop is none.
func (e *Engine) each(lower, upper []byte, visit func(*pebble.Iterator) error) error {
	return e.walk(lower, upper, (*pebble.Iterator).First, (*pebble.Iterator).Next, visit)
}

// walk is each from any place and in any direction.
func (e *Engine) walk(lower, upper []byte, begin, step func(*pebble.Iterator) bool, visit func(*pebble.Iterator) error) error {
	iter, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	for valid := begin(iter); valid && err == nil; valid = step(iter) {
		err = visit(iter)
	}
	if err == nil {
		err = iter.Error()
	}
	if cerr := iter.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, eventlog.ErrStop) {
		return nil
	}
	return err
}

// get returns the value under key. Unlike Pebble's Get it reads no filter, so
// what is damaged there does not matter.
func (e *Engine) get(key []byte) (value []byte, found bool, err error) {
	err = e.each(key, append(slices.Clone(key), 0), func(iter *pebble.Iterator) error {
		v, err := iter.ValueAndErr()
		if value, found = slices.Clone(v), err == nil; found {
			err = eventlog.ErrStop // to look for a next one could meet damage behind this one
		}
		return err
	})
	return value, found && err == nil, err
}

// A part is what one read of a log has found.
type part struct {
	records []eventlog.Record
	through uint64
}

// Fetch implements eventlog.Store.
func (s *store) Fetch(ctx context.Context, from, to uint64, limit int) ([]eventlog.Record, uint64, error) {
	if from < to {
		select {
		case s.engine.scans <- struct{}{}:
			defer func() { <-s.engine.scans }()
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	p, err := read(ctx, s.engine, func() (part, error) { return s.fetch(from, to, limit) })
	return p.records, p.through, s.readErr(err)
}

// readErr returns what a reader should see of err.
func (s *store) readErr(err error) error {
	var gone *eventlog.TruncatedError
	var damaged *eventlog.DamagedError
	switch {
	case err == nil, errors.As(err, &gone), errors.As(err, &damaged), errors.Is(err, eventlog.ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: read log %s: %w", eventlog.ErrUnavailable, s.name, err)
}

// fetch reads records from the one at from on. What it misses is explained by a
// removal, or it is damage.
func (s *store) fetch(from, to uint64, limit int) (part, error) {
	if first := s.first.Load(); from < first {
		return part{}, &eventlog.TruncatedError{Asked: from, First: first}
	}
	if known := s.knownDamage(from); known != nil {
		return part{}, known
	}
	p := part{through: from - 1, records: make([]eventlog.Record, 0, min(limit, 256))}
	var slab []byte
	bytes, subject, full := 0, "", false
	number := s.entry.number
	err := s.engine.each(sequenceKey(keyRecord, number, from), sequenceKey(keyRecord, number, to+1), func(iter *pebble.Iterator) error {
		if full = len(p.records) >= limit; full {
			return eventlog.ErrStop
		}
		sequence := sequenceOf(iter.Key())
		if err := s.explainHole(p.through+1, sequence-1); err != nil {
			return err
		}
		value, err := iter.ValueAndErr()
		if err != nil {
			return err
		}
		if full = len(p.records) > 0 && bytes+len(value) > eventlog.MaxReadBytes; full {
			return eventlog.ErrStop
		}
		if cap(slab)-len(slab) < len(value) { // one piece of memory for several records
			slab = make([]byte, 0, max(len(value), min(maxSlab, len(value)*(limit-len(p.records)))))
		}
		slab = append(slab, value...)
		r, err := decodeRecord(sequence, slab[len(slab)-len(value):len(slab):len(slab)], subject)
		if err != nil {
			return err
		}
		p.records = append(p.records, r.Record)
		p.through, subject = sequence, r.Subject
		bytes += len(value)
		return nil
	})
	if err == nil && !full {
		if err = s.explainHole(p.through+1, to); err == nil {
			p.through = to
		}
	}
	switch {
	case err == nil:
		return p, nil
	case len(p.records) > 0: // the rest comes with the next read
		return p, nil
	case isDamage(err):
		return s.damage(from, to, err)
	}
	return part{}, err
}

// explainHole returns nil when each record from the one at first to the one at
// last was removed.
func (s *store) explainHole(first, last uint64) error {
	if first > last {
		return nil
	}
	next, err := s.skipRemoved(first, last)
	switch held := s.first.Load(); {
	case s.gone.Load():
		return eventlog.ErrClosed
	case first < held: // retention has passed meanwhile
		return &eventlog.TruncatedError{Asked: first, First: held}
	case err != nil:
		return err
	case next <= last && next < s.first.Load():
		return &eventlog.TruncatedError{Asked: next, First: s.first.Load()}
	case next <= last:
		return fmt.Errorf("sequence %d: %w", next, errMissing)
	}
	return nil
}

// skipRemoved returns the first sequence from next on, up to last+1, that was
// neither deleted nor lost.
func (s *store) skipRemoved(next, last uint64) (uint64, error) {
	number := s.entry.number
	for {
		before := next
		for _, kind := range []byte{keyDeleted, keyLost} {
			// A lost range begins before what it covers.
			begin := func(iter *pebble.Iterator) bool {
				return iter.SeekLT(sequenceKey(kind, number, next+1)) || iter.First()
			}
			err := s.engine.walk(logKey(kind, number), sequenceKey(kind, number, last+1), begin, (*pebble.Iterator).Next, func(iter *pebble.Iterator) error {
				from := sequenceOf(iter.Key())
				to := from
				if kind == keyLost {
					to = binary.BigEndian.Uint64(iter.Value())
				}
				if from > next || next > last {
					return eventlog.ErrStop
				}
				next = max(next, to+1)
				return nil
			})
			if err != nil {
				return next, err
			}
		}
		if next == before || next > last {
			return next, nil
		}
	}
}

// damage looks how far what cannot be read at from goes, record by record, so
// that none that can be read is passed over. Pebble takes long over a block
// whose checksum is wrong: it looks for the bit. So the look ends after
// probeTime; what is behind is found by the next read.
func (s *store) damage(from, to uint64, cause error) (part, error) {
	p, err := s.probe(from)
	if err == nil || !isDamage(err) {
		return p, err
	}
	last := from
	for began := time.Now(); last < to && last-from < maxProbe && time.Since(began) < probeTime; last++ {
		if _, err := s.probe(last + 1); err == nil || !isDamage(err) {
			break
		}
	}
	d := &eventlog.DamagedError{Log: s.name, First: from, Last: last, Err: errors.New(firstLine(cause))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.damaged) < maxKnownDamage {
		s.damaged = append(s.damaged, d)
	}
	return part{}, d
}

// knownDamage returns the rest of damage that was met before; nil when the record
// at sequence is not known to be damaged.
func (s *store) knownDamage(sequence uint64) *eventlog.DamagedError {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.damaged {
		if d.First <= sequence && sequence <= d.Last {
			rest := *d
			rest.First = sequence
			return &rest
		}
	}
	return nil
}

// probe reads the record at sequence alone.
func (s *store) probe(sequence uint64) (part, error) {
	v, found, err := s.engine.get(sequenceKey(keyRecord, s.entry.number, sequence))
	if err == nil && !found {
		return part{through: sequence}, s.explainHole(sequence, sequence)
	}
	var r stored
	if err == nil {
		r, err = decodeRecord(sequence, v, "")
	}
	switch {
	case err == nil:
		return part{records: []eventlog.Record{r.Record}, through: sequence}, nil
	case isDamage(err) && s.explainHole(sequence, sequence) == nil: // it was removed, and may be damaged
		return part{through: sequence}, nil
	}
	return part{}, err
}

// firstFrom returns the first record from first on that can be read, up to the
// one at last, or, behind damage whose end is not known, one of the first; found
// is false when there is none within reach.
func (s *store) firstFrom(first, last uint64) (r stored, found bool, err error) {
	number := s.entry.number
	step := uint64(1) // over damage: to look into the same block again takes as long as the first time
	for began := time.Now(); first <= last && time.Since(began) < 4*probeTime; {
		if d := s.knownDamage(first); d != nil {
			first = d.Last + 1
			continue
		}
		at := last
		err := s.engine.each(sequenceKey(keyRecord, number, first), sequenceKey(keyRecord, number, last+1), func(iter *pebble.Iterator) error {
			at = sequenceOf(iter.Key())
			value, err := iter.ValueAndErr()
			if err == nil {
				r, err = decodeRecord(at, slices.Clone(value), "")
			}
			if err == nil {
				found, err = true, eventlog.ErrStop
			}
			return err
		})
		switch {
		case err == nil:
			return r, found, nil
		case !isDamage(err):
			return r, false, err
		case at < last:
			first = at
		}
		first += step
		step *= 2
	}
	return r, false, nil
}

// SequenceAt implements eventlog.Store. Times grow with sequences.
func (s *store) SequenceAt(ctx context.Context, t time.Time) (uint64, error) {
	sequence, err := read(ctx, s.engine, func() (uint64, error) {
		return s.search(func(r stored) bool { return !r.Time.Before(t) })
	})
	return sequence, s.readErr(err)
}

// search returns the sequence of the first durable record for which reached
// returns true, as it does for all that follow; Last+1 when there is none.
func (s *store) search(reached func(stored) bool) (uint64, error) {
	state := s.State()
	var failure error
	n := sort.Search(int(state.Last+1-min(state.First, state.Last+1)), func(i int) bool { //nolint:gosec // fits
		if failure != nil {
			return true
		}
		r, found, err := s.firstFrom(state.First+uint64(i), state.Last) //nolint:gosec // not negative
		failure = err
		return !found || reached(r)
	})
	if failure != nil {
		return 0, failure
	}
	return state.First + uint64(n), nil //nolint:gosec // not negative
}
