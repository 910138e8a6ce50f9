package group

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

// A stored is an entry of a journal, as it was read.
type stored struct {
	first, last uint64 // its records
	data        []byte // nil is no entry
}

// A history is what a journal says: the newest snapshot, and the batches after
// it.
type history struct {
	snapshot stored
	batches  []stored
	lost     uint64 // the first record of the end that was removed; 0 when none was
}

var (
	errJournal = errors.New("not a record of a group's journal")
	errMissing = errors.New("records are missing")
	errPartial = errors.New("an entry is not whole")
	errNoStart = errors.New("there is no snapshot before it")
)

// A journalError reports a journal that does not say what the group has done.
type journalError struct {
	log         string
	first, last uint64 // the records that are damaged
	err         error

	// What the last snapshot before says, if there is one that can be read.
	known            bool
	position, oldest uint64
}

func (e *journalError) Error() string {
	return fmt.Sprintf("records %d to %d of log %s: %v", e.first, e.last, e.log, e.err)
}

func (e *journalError) Unwrap() error { return e.err }

// status is what calls on the group return.
func (e *journalError) status(group string) error {
	known := "how far it had read the log is not known"
	metadata := map[string]string{
		"group": group, "log": e.log,
		"first_sequence": strconv.FormatUint(e.first, 10), "last_sequence": strconv.FormatUint(e.last, 10),
	}
	if e.known {
		known = fmt.Sprintf("its last snapshot says that it had read the log up to %d, and settled all before %d", e.position, e.oldest)
		metadata["position"], metadata["oldest_sequence"] = strconv.FormatUint(e.position, 10), strconv.FormatUint(e.oldest, 10)
	}
	return &apierror.Error{
		Code:   codes.DataLoss,
		Reason: sluicev1.ErrorReason_ERROR_REASON_EVENT_DAMAGED,
		Message: fmt.Sprintf("the consumer group stands still: records %d to %d of its journal %s are damaged, so that nobody knows what it has settled; "+
			"restore them, or delete the group and create it again with a start position (%s)", e.first, e.last, e.log, known),
		Metadata: metadata,
		Err:      e.err,
	}
}

// broken returns the error for damaged records. snapshot is the last one before.
func (j *journal) broken(first, last uint64, err error, snapshot stored) error {
	e := &journalError{log: j.log.Name(), first: first, last: last, err: err}
	if saved, err := decodeSnapshot(snapshot.data); err == nil {
		e.known = true
		e.position, e.oldest = saved.scheduler.Position(), saved.scheduler.Position()+1
		if st := saved.scheduler.Status(); st.OldestSequence > 0 {
			e.oldest = st.OldestSequence
		}
	}
	return e
}

// decode returns what a snapshot holds.
func (j *journal) decode(snapshot stored) (*saved, error) {
	saved, err := decodeSnapshot(snapshot.data)
	if err != nil {
		return nil, j.broken(snapshot.first, snapshot.last, err, stored{})
	}
	return saved, nil
}

// load reads the journal. It returns a *journalError rather than less than all
// that was stored. Only the end may be gone, when the operator has accepted that.
func (j *journal) load(ctx context.Context) (*history, error) {
	*j = journal{log: j.log}
	f := folding{}
	var err error
	j.last, err = readToEnd(ctx, j.log, 1, f.add, func(d *eventlog.DamagedError) error {
		f.lose(d.First, d.Last, d.Err)
		f.next = d.Last + 1
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case f.damage == nil && f.out.snapshot.data == nil && len(f.out.batches) > 0:
		b := f.out.batches[0]
		f.lose(b.first, b.last, errNoStart)
	case max(f.next, 1) <= j.last:
		f.out.lost = max(f.next, 1)
	}
	if d := f.damage; d != nil {
		return nil, j.broken(d.First, d.Last, d.Err, f.out.snapshot)
	}
	for _, b := range f.out.batches {
		j.size += len(b.data)
	}
	j.snapshot = len(f.out.snapshot.data)
	return &f.out, nil
}

// A folding puts the records of a journal together. A snapshot says all: whatever
// was wrong before it does not matter.
type folding struct {
	out    history
	damage *eventlog.DamagedError // the first since the last snapshot
	next   uint64                 // sequence of the next record; 0 before the first

	// The entry that is read now.
	kind  string
	of    int    // its parts
	part  int    // the next of them; 0 is none
	odd   uint64 // the first record of one that is not whole; 0 is none
	entry stored
}

// add takes the next record.
func (f *folding) add(rec eventlog.Record) error {
	if f.next > 0 && rec.Sequence > f.next {
		f.lose(f.next, rec.Sequence-1, errMissing)
	}
	f.next = rec.Sequence + 1
	kind, part, of, err := parseSubject(rec.Subject)
	if err != nil {
		f.lose(rec.Sequence, rec.Sequence, err)
		return nil
	}
	if part == 1 {
		if f.odd > 0 && kind == kindBatch {
			f.lose(f.odd, rec.Sequence-1, errPartial)
		}
		f.kind, f.of, f.part, f.odd = kind, of, 1, rec.Sequence
		f.entry = stored{first: rec.Sequence}
	}
	if part != f.part || kind != f.kind || of != f.of {
		// The end of something that was given up. All goes on with a snapshot then.
		if f.part = 0; f.odd == 0 {
			f.odd = rec.Sequence
		}
		return nil
	}
	f.entry.data, f.entry.last = append(f.entry.data, rec.Data...), rec.Sequence
	if f.part++; part < of {
		return nil
	}
	f.part, f.odd = 0, 0
	if kind == kindSnapshot {
		f.out, f.damage = history{snapshot: f.entry}, nil
	} else {
		f.out.batches = append(f.out.batches, f.entry)
	}
	return nil
}

// lose notes that records are not there, or not what they should be.
func (f *folding) lose(first, last uint64, err error) {
	f.part = 0
	if f.damage == nil {
		f.damage = &eventlog.DamagedError{First: first, Last: last, Err: err}
	}
}

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
