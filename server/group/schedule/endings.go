package schedule

// An ending is how a lease ended.
type ending uint8

const (
	acked    ending = iota + 1
	nacked          // by Nack
	released        // by Release
	parked          // by Park
	lost            // it ran out, or was taken back
)

// endings are how leases ended: the newest maxEndings that did not end with an
// Ack. All others that were issued were acked, back to floor.
type endings struct {
	how   map[uint64]ending
	order []uint64 // the keys of how, in the order in which they ended
	floor uint64   // leases before it may have been forgotten
}

const maxEndings = 1 << 16

// add remembers how a lease ended.
func (e *endings) add(id uint64, how ending) {
	if how == acked {
		return
	}
	e.how[id] = how
	e.order = append(e.order, id)
	if len(e.order) > maxEndings {
		oldest := e.order[0]
		e.order = e.order[1:]
		delete(e.how, oldest)
		e.floor = max(e.floor, oldest+1)
	}
}

// outcome is what a verdict on a lease that is not out comes to, when next is
// the first that was not issued.
func (e *endings) outcome(id uint64, kind VerdictKind, next uint64) Outcome {
	how, known := e.how[id]
	switch {
	case id == 0 || id >= next || !known && id < e.floor:
		return UnknownLease
	case !known,
		how == nacked && kind == Nack,
		how == released && kind == Release,
		how == parked && kind == Park:
		return AlreadyDone
	}
	return LeaseLost
}
