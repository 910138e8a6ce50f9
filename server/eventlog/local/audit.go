package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"

	"github.com/cockroachdb/pebble/v2"
)

// Audit holds what leads to a log's records, identities and the key index,
// against the records, and returns what is wrong with them and with the log's
// mark, in a sentence each. It reads all records that can be read, beside those
// who read them for their content.
func (e *Engine) Audit(ctx context.Context, name string) (problems []string, err error) {
	s := e.known(name)
	if s == nil {
		return nil, fmt.Errorf("there is no log %s", name)
	}
	a := &audit{store: s, seed: maphash.MakeSeed()}
	if err := a.records(ctx); err != nil {
		return nil, err
	}
	if len(a.problems) > 0 {
		return a.problems, nil // the records say no more what should be there
	}
	if err := a.leads(ctx); err != nil {
		return nil, err
	}
	first, second, err := e.readMarks()
	if err != nil {
		return nil, err
	}
	m, at := s.markIn(newer(first, second))
	reason, err := s.compare(m, at >= 0)
	if reason != "" {
		a.problems = append(a.problems, reason)
	}
	return a.problems, err
}

// An audit sums a hash of each pair of a sequence and what should lead to it: the
// sums of two sets are equal when the sets are.
type audit struct {
	store    *store
	seed     maphash.Seed
	newest   int64 // time of the newest record
	keys     uint64
	ids      map[[hashBytes]byte]uint64 // the newest record of each identity in the dedupe window
	problems []string
}

func (a *audit) hash(b []byte, sequence uint64) uint64 {
	return maphash.Bytes(a.seed, binary.BigEndian.AppendUint64(append([]byte(nil), b...), sequence))
}

// auditEvery is after how many keys the context is looked at.
const auditEvery = 1024

// each calls visit for all keys of one kind of the log, and passes over damage.
func (a *audit) each(ctx context.Context, kind byte, visit func(*pebble.Iterator)) error {
	number, n := a.store.entry.number, 0
	err := a.store.engine.each(logKey(kind, number), logKey(kind, number+1), func(iter *pebble.Iterator) error {
		if n++; n%auditEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		visit(iter)
		return nil
	})
	if isDamage(err) {
		a.problems = append(a.problems, fmt.Sprintf("what leads to its records (%c) is damaged: %s", kind, firstLine(err)))
		return nil
	}
	return err
}

// records sums what should lead to the records.
func (a *audit) records(ctx context.Context) error {
	a.ids = make(map[[hashBytes]byte]uint64)
	a.newest = a.store.next.time
	width := a.store.entry.window
	oldest := a.newest / width * width // what is in an older bucket may have been forgotten
	return a.each(ctx, keyRecord, func(iter *pebble.Iterator) {
		v, err := iter.ValueAndErr()
		if err != nil {
			return
		}
		sequence := sequenceOf(iter.Key())
		if _, err := decodeRecord(sequence, v, ""); err != nil {
			return // who reads the content says so
		}
		flags, rest := v[20], v[recordHead:]
		if flags&hasID != 0 {
			if int64(binary.BigEndian.Uint64(v[4:])) >= oldest { //nolint:gosec // as it was encoded
				a.ids[[hashBytes]byte(rest[:hashBytes])] = sequence // one that came again after the window replaces the first
			}
			rest = rest[hashBytes:]
		}
		if flags&hasKey != 0 {
			a.keys += a.hash(rest[:hashBytes], sequence)
		}
	})
}

// leads holds the identities and the index against these sums.
func (a *audit) leads(ctx context.Context) error {
	s := a.store
	deleted := make(map[uint64]bool)
	if err := a.each(ctx, keyDeleted, func(iter *pebble.Iterator) { deleted[sequenceOf(iter.Key())] = true }); err != nil {
		return err
	}
	err := a.each(ctx, keyLost, func(iter *pebble.Iterator) {
		for sequence := sequenceOf(iter.Key()); sequence <= binary.BigEndian.Uint64(iter.Value()); sequence++ {
			deleted[sequence] = true
		}
	})
	if err != nil {
		return err
	}
	gone := func(sequence uint64) bool {
		return sequence < s.next.first || deleted[sequence]
	}
	keys := uint64(0)
	err = a.each(ctx, keyIndex, func(iter *pebble.Iterator) {
		k := iter.Key()
		if sequence := sequenceOf(k); !gone(sequence) {
			keys += a.hash(k[len(k)-8-hashBytes:len(k)-8], sequence)
		}
	})
	if err != nil {
		return err
	}
	wrong := 0
	err = a.each(ctx, keyIdentity, func(iter *pebble.Iterator) {
		k, v := iter.Key(), iter.Value()
		if len(v) != 16 {
			wrong++
			return
		}
		id, sequence := [hashBytes]byte(k[len(k)-hashBytes:]), binary.BigEndian.Uint64(v)
		switch want, ok := a.ids[id]; {
		case sequence > s.next.last, ok && sequence > want && !gone(sequence):
			wrong++
		case ok && sequence == want:
			delete(a.ids, id)
		}
	})
	if keys != a.keys {
		a.problems = append(a.problems, "the key index is not that of the records")
	}
	if wrong > 0 {
		a.problems = append(a.problems, fmt.Sprintf("%d identities lead to a wrong record", wrong))
	}
	if len(a.ids) > 0 {
		a.problems = append(a.problems, fmt.Sprintf("%d records of the dedupe window have no identity: they would be stored twice", len(a.ids)))
	}
	return err
}
