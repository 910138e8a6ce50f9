package cluster

import "slices"

// removals are what is known to be removed from a log. As nothing comes back,
// what is known stays true.
type removals struct {
	first   uint64   // everything before it
	deleted []uint64 // sorted, none before first

	listed, listedFirst uint64 // how many the leader listed, and its first then
}

// below takes down that everything before first is removed.
func (r *removals) below(first uint64) {
	if first <= r.first {
		return
	}
	r.first = first
	i, _ := slices.BinarySearch(r.deleted, first)
	r.deleted = slices.Delete(r.deleted, 0, i)
}

// add takes down that the record at sequence is removed.
func (r *removals) add(sequence uint64) {
	if i, found := slices.BinarySearch(r.deleted, sequence); !found && sequence >= r.first {
		r.deleted = slices.Insert(r.deleted, i, sequence)
	}
}

// set takes down which records the leader lists as deleted, without those that
// it knows to have lost. Both are in order.
func (r *removals) set(deleted, lost []uint64, first uint64) {
	r.listed, r.listedFirst = uint64(len(deleted)), first
	r.deleted = slices.DeleteFunc(slices.Clone(deleted), func(sequence uint64) bool {
		_, found := slices.BinarySearch(lost, sequence)
		return found || sequence < r.first
	})
}

// skip returns the first sequence from the one at first on that is not known to
// be removed.
func (r *removals) skip(first uint64) uint64 {
	first = max(first, r.first)
	i, _ := slices.BinarySearch(r.deleted, first)
	for ; i < len(r.deleted) && r.deleted[i] == first; i++ {
		first++
	}
	return first
}
