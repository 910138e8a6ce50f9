package local

import (
	"encoding/binary"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// A state is how far a log goes. It is stored as a merge of what each batch of
// changes says: all numbers but counted only grow, and merge to the greatest;
// counted is how many batches were merged. So counted equals changes exactly
// when no batch is missing, neither at the end nor in the middle.
type state struct {
	first   uint64 // oldest sequence that was not removed; 1 at the beginning
	last    uint64 // newest sequence
	total   uint64 // bytes of all records ever appended
	changes uint64 // batches that have changed the log, by the writer's own count
	counted uint64 // the same, by the database's
	time    int64  // when the newest record was stored, Unix nanoseconds
}

const stateBytes = 6 * 8

func (s state) encode() []byte {
	b := make([]byte, 0, stateBytes)
	for _, n := range []uint64{s.first, s.last, s.total, s.changes, s.counted, uint64(s.time)} { //nolint:gosec // as it is decoded
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func decodeState(b []byte) (state, error) {
	if len(b) != stateBytes {
		return state{}, errMeta
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return state{first: n(0), last: n(1), total: n(2), changes: n(3), counted: n(4), time: int64(n(5))}, nil //nolint:gosec // as it was encoded
}

// delta is what a batch says: where s ends, and that it counts as one.
func (s state) delta() state {
	s.counted = 1
	return s
}

// merger merges states.
var merger = &pebble.Merger{
	Name: "sluice.state.1",
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		m := &merging{}
		return m, m.add(value)
	},
}

// A merging is a merge under way. The order of operands does not matter.
type merging struct{ sum state }

func (m *merging) add(value []byte) error {
	s, err := decodeState(value)
	if err != nil {
		return err
	}
	m.sum.first = max(m.sum.first, s.first)
	m.sum.last = max(m.sum.last, s.last)
	m.sum.total = max(m.sum.total, s.total)
	m.sum.changes = max(m.sum.changes, s.changes)
	m.sum.time = max(m.sum.time, s.time)
	m.sum.counted += s.counted
	return nil
}

// MergeNewer implements pebble.ValueMerger.
func (m *merging) MergeNewer(value []byte) error { return m.add(value) }

// MergeOlder implements pebble.ValueMerger.
func (m *merging) MergeOlder(value []byte) error { return m.add(value) }

// Finish implements pebble.ValueMerger.
func (m *merging) Finish(bool) ([]byte, io.Closer, error) { return m.sum.encode(), nil, nil }
