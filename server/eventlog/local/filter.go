package local

import (
	"encoding/binary"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// A filter has room for filterLeast identities at first, and each further one
	// for twice as many, up to filterMost: 96 KiB to 6 MiB.
	filterLeast = 1 << 16
	filterMost  = 1 << 22

	// filterBits is how many bits a filter has for each identity, and
	// filterProbes how many of them it sets: fewer than one new identity in fifty
	// looks known.
	filterBits   = 12
	filterProbes = 7
)

// identities tell new identities from those that may be known, in memory: most that
// are looked up are new, and a look-up in the database costs more than all else
// that an append does. A million identities take 2 MB.
//
// It is the writer's. The zero value holds nothing, and says of each identity
// that it may be known until it is complete.
type identities struct {
	filters  []*filter // oldest first
	complete bool      // whatever was stored before this process is in it
}

// may reports whether id may be among the identities that were added.
func (n *identities) may(id [hashBytes]byte) bool {
	if !n.complete {
		return true
	}
	for _, f := range n.filters {
		if f.may(id) {
			return true
		}
	}
	return false
}

// add adds an identity of the time at, and lets go of filters whose identities
// are all from before oldest.
func (n *identities) add(id [hashBytes]byte, at, oldest int64) {
	for len(n.filters) > 0 && n.filters[0].newest < oldest {
		n.filters = n.filters[1:]
	}
	size := filterLeast
	if last := len(n.filters) - 1; last >= 0 {
		if f := n.filters[last]; f.room > 0 {
			f.add(id, at)
			return
		}
		size = min(2*n.filters[last].size, filterMost)
	}
	f := newFilter(size)
	f.add(id, at)
	n.filters = append(n.filters, f)
}

// A filter is a Bloom filter whose bits for one identity lie in one cache line.
type filter struct {
	lines  [][8]uint64
	size   int   // identities that it was made for
	room   int   // identities that it still has room for
	newest int64 // greatest time of an identity
}

func newFilter(size int) *filter {
	return &filter{lines: make([][8]uint64, size*filterBits/512), size: size, room: size}
}

// line returns the cache line of an identity, which is a hash, and the number
// that says which bits there.
func (f *filter) line(id [hashBytes]byte) (line *[8]uint64, probes uint64) {
	at, _ := bits.Mul64(binary.BigEndian.Uint64(id[:]), uint64(len(f.lines)))
	return &f.lines[at], binary.BigEndian.Uint64(id[8:])
}

func (f *filter) add(id [hashBytes]byte, at int64) {
	line, probes := f.line(id)
	for range filterProbes {
		line[probes>>6&7] |= 1 << (probes & 63)
		probes >>= 9
	}
	f.room--
	f.newest = max(f.newest, at)
}

func (f *filter) may(id [hashBytes]byte) bool {
	line, probes := f.line(id)
	for range filterProbes {
		if line[probes>>6&7]&(1<<(probes&63)) == 0 {
			return false
		}
		probes >>= 9
	}
	return true
}

// learn adds the identities of earlier processes to s.identities, in the background:
// until it is done, each one is looked up. Damaged ones keep it from being done.
func (s *store) learn() {
	s.engine.background.Go(func() {
		ctx, cancel := s.engine.whileOpen()
		defer cancel()
		var found identities
		number := s.entry.number
		err := s.engine.each(logKey(keyIdentity, number), logKey(keyIdentity, number+1), func(iter *pebble.Iterator) error {
			k, v := iter.Key(), iter.Value()
			if len(v) != 16 {
				return errRecord
			}
			found.add([hashBytes]byte(k[len(k)-hashBytes:]), int64(binary.BigEndian.Uint64(v[8:])), 0) //nolint:gosec // as it was encoded
			return ctx.Err()
		})
		if err != nil {
			return
		}
		_ = s.change(ctx, func(*group) error { // fails when the engine closes
			s.identities.filters = append(found.filters, s.identities.filters...)
			s.identities.complete = true
			return nil
		})
	})
}
