package subscription

import (
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// passRemoved goes on with the oldest record held, if that is wanted.
func (st *stream) passRemoved(gone *eventlog.TruncatedError) error {
	switch {
	case st.earliest:
		st.reader.Seek(gone.First)
		st.position, st.behind = gone.First-1, true
		return nil
	case st.skipGaps:
		return st.pass(st.position+1, gone.First-1, sluicev1.GapReason_GAP_REASON_REMOVED)
	}
	return gone
}

// passDamaged goes on behind what cannot be read, if that is wanted.
func (st *stream) passDamaged(damaged *eventlog.DamagedError) error {
	if !st.skipGaps {
		return damaged
	}
	return st.pass(max(damaged.First, st.position+1), damaged.Last, sluicev1.GapReason_GAP_REASON_DAMAGED)
}

// pass sends what is pending, and then the gap from first to last, as far as the
// stream goes. It moves the reader behind the gap, unless it is already.
func (st *stream) pass(first, last uint64, why sluicev1.GapReason) error {
	if err := st.flush(); err != nil {
		return err
	}
	if st.stop.time.IsZero() {
		last = min(last, st.stop.sequence-1)
	}
	st.position, st.behind, st.earliest = last, true, false
	if st.reader.Position() < last {
		st.reader.Seek(last + 1)
	}
	if first > last {
		return nil // it is all behind the stop
	}
	return st.send(&sluicev1.SubscribeResponse{
		Frame: &sluicev1.SubscribeResponse_Gap{Gap: &sluicev1.Gap{FirstSequence: first, LastSequence: last, Reason: why}},
	})
}
