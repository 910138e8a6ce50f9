package group

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
)

const (
	// maxPart is how much of an entry of a journal goes into one record, in
	// bytes, where the log takes so much. Each is a sync: a million events that wait
	// are 20 of them.
	maxPart = 1 << 20

	// maxJournal and maxBehind are how many bytes of journal, and how many
	// events of the log, a restart reads after a snapshot: about a tenth of a
	// second of work.
	maxJournal = 512 << 10
	maxBehind  = 50_000
)

// The kinds of entries of a journal: what a scheduler has changed, and all it
// knows. An entry takes one record or more, with the subjects
// "<kind>.<part>.<parts>".
const (
	kindBatch    = "journal"
	kindSnapshot = "snapshot"
)

// A journal is the log of one group. One goroutine at a time may use it.
//
// Each record is stored right behind those that are known, or not at all, and
// then eventlog.ErrConflict says that there are others: of a gateway that leads
// the group by now, or an append of our own whose outcome was unknown.
type journal struct {
	log      *eventlog.Log
	last     uint64 // sequence of the newest record that is known
	size     int    // bytes of batches since the newest snapshot
	snapshot int    // bytes of the newest snapshot
}

// append stores an entry, and returns the sequence of its first record.
func (j *journal) append(ctx context.Context, kind string, data []byte) (uint64, error) {
	parts := slices.Collect(slices.Chunk(data, min(maxPart, j.log.MaxRecord())))
	first := j.last + 1
	for i, part := range parts {
		if err := j.log.AppendAt(ctx, j.last+1, eventlog.Record{
			Subject: fmt.Sprintf("%s.%d.%d", kind, i+1, len(parts)), Data: part,
		}); err != nil {
			return 0, err
		}
		j.last++
	}
	return first, nil
}

// batch stores what a scheduler has changed.
func (j *journal) batch(ctx context.Context, data []byte) error {
	_, err := j.append(ctx, kindBatch, data)
	j.size += len(data)
	return err
}

// replace stores all that a scheduler knows, and forgets everything before.
func (j *journal) replace(ctx context.Context, data []byte) error {
	first, err := j.append(ctx, kindSnapshot, data)
	if err != nil {
		return err
	}
	j.snapshot, j.size = len(data), 0
	return j.log.Trim(ctx, first)
}

// due says whether it is time for a snapshot.
func (j *journal) due() bool { return j.size > max(maxJournal, 2*j.snapshot) }

// encodeSnapshot puts the filter with which the log was read, and the log's
// epoch, before what the scheduler knows.
func encodeSnapshot(filter *sluicev1.EventFilter, epoch string, state []byte) ([]byte, error) {
	f, err := proto.Marshal(filter)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(f)+len(epoch)+len(state)+2*binary.MaxVarintLen64)
	for _, part := range [][]byte{f, []byte(epoch)} {
		b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
	}
	return append(b, state...), nil
}

// A saved is what a snapshot holds.
type saved struct {
	filter    *sluicev1.EventFilter
	epoch     string
	scheduler *schedule.Scheduler
}

func decodeSnapshot(b []byte) (*saved, error) {
	var parts [2][]byte
	for i := range parts {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b[max(size, 0):])) {
			return nil, errJournal
		}
		b = b[size:]
		parts[i], b = b[:n], b[n:]
	}
	out := &saved{filter: &sluicev1.EventFilter{}, epoch: string(parts[1])}
	if err := proto.Unmarshal(parts[0], out.filter); err != nil {
		return nil, err
	}
	var err error
	out.scheduler, err = schedule.Restore(b)
	return out, err
}
