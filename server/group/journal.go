package group

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	// maxRead is how many records are asked for at once.
	maxRead = 256

	// maxPart is how much of an entry of a journal goes into one record, in
	// bytes.
	maxPart = 64 << 10

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

// load reads the journal: the newest snapshot, nil when there is none, and the
// batches after it.
func (j *journal) load(ctx context.Context) (snapshot []byte, batches [][]byte, err error) {
	*j = journal{log: j.log}
	var parts []byte
	var next int
	j.last, err = readToEnd(ctx, j.log, 0, func(rec eventlog.Record) error {
		kind, part, of, err := parseSubject(rec.Subject)
		if err != nil {
			return err
		}
		if part == 1 {
			parts, next = nil, 1
		}
		if part != next {
			return nil // the end of something that was trimmed or never written whole
		}
		parts, next = append(parts, rec.Data...), next+1
		switch {
		case part < of:
			return nil
		case kind == kindSnapshot:
			snapshot, batches = parts, nil
			j.snapshot, j.size = len(parts), 0
		default:
			batches = append(batches, parts)
			j.size += len(parts)
		}
		next = 0
		return nil
	})
	return snapshot, batches, err
}

var errJournal = errors.New("not a record of a group's journal")

func parseSubject(subject string) (kind string, part, of int, err error) {
	fields := strings.Split(subject, ".")
	if len(fields) != 3 || fields[0] != kindBatch && fields[0] != kindSnapshot {
		return "", 0, 0, errJournal
	}
	part, err1 := strconv.Atoi(fields[1])
	of, err2 := strconv.Atoi(fields[2])
	if err1 != nil || err2 != nil {
		return "", 0, 0, errJournal
	}
	return fields[0], part, of, nil
}

// append stores an entry, and returns the sequence of its first record.
func (j *journal) append(ctx context.Context, kind string, data []byte) (uint64, error) {
	parts := slices.Collect(slices.Chunk(data, maxPart))
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

// encodeSnapshot puts the filter with which the log was read before what the
// scheduler knows.
func encodeSnapshot(filter *sluicev1.EventFilter, state []byte) ([]byte, error) {
	f, err := proto.Marshal(filter)
	if err != nil {
		return nil, err
	}
	b := binary.AppendUvarint(make([]byte, 0, len(f)+len(state)+binary.MaxVarintLen64), uint64(len(f)))
	return append(append(b, f...), state...), nil
}

func decodeSnapshot(b []byte) (*sluicev1.EventFilter, []byte, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b[max(size, 0):])) {
		return nil, nil, errJournal
	}
	b = b[size:]
	filter := &sluicev1.EventFilter{}
	if err := proto.Unmarshal(b[:n], filter); err != nil {
		return nil, nil, err
	}
	return filter, b[n:], nil
}
