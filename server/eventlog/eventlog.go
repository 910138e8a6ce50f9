// Package eventlog is the durable, append-only storage behind the gateway: its
// contract, and what the two engines that keep it share. Package local keeps
// logs in a Pebble database on this machine, package cluster in NATS JetStream.
// It knows nothing of what is in a record.
//
// # The contract
//
//   - When Append returns nil, the record is on stable storage, and no reader is
//     shown a record before it is.
//   - Nothing is a removal but a removal: what is below State.First, and what
//     Delete removed. A read that finds any other sequence missing or unreadable
//     returns an error. It is never taken for the end of the log.
//   - Nothing waits for ever: every call ends with its context, and reads end by
//     themselves after a few seconds.
//   - A start that is refused changes no file.
package eventlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrFull reports that a log is at its MaxBytes, or that the disk is short
	// of space. The log takes records again once retention or the operator has
	// freed some, so retrying can help.
	ErrFull = errors.New("eventlog: full")

	// ErrUnavailable reports that the storage cannot be used now, or that the
	// outcome of an append is unknown: the record may or may not be stored.
	// Appending it again under the same ID is safe.
	ErrUnavailable = errors.New("eventlog: unavailable")

	// ErrClosed reports the use of an engine after Close. Retrying cannot help.
	ErrClosed = errors.New("eventlog: closed")

	// ErrConflict reports that a conditional append was not made: the log does
	// not end where it was expected to.
	ErrConflict = errors.New("eventlog: the log has grown meanwhile")

	// ErrNotFound reports that a log does not hold a record: it was removed, or
	// is not durable yet.
	ErrNotFound = errors.New("eventlog: no such record")

	// ErrStop is returned by a visit function to end a Scan early.
	ErrStop = errors.New("eventlog: stop")
)

// A TruncatedError reports a read from before the oldest record still held.
type TruncatedError struct {
	Asked uint64 // sequence the reader wanted
	First uint64 // oldest sequence still held
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("eventlog: record %d was removed, the oldest held is %d", e.Asked, e.First)
}

// A DamagedError reports records that were stored and not removed, and cannot be
// read: their bytes are damaged, or gone. Whoever can do without them reads on
// after Last.
type DamagedError struct {
	Log         string
	First, Last uint64
	Err         error // what the storage said
}

func (e *DamagedError) Error() string {
	if e.First == e.Last {
		return fmt.Sprintf("eventlog: record %d of log %s is damaged: %v", e.First, e.Log, e.Err)
	}
	return fmt.Sprintf("eventlog: records %d to %d of log %s are damaged: %v", e.First, e.Last, e.Log, e.Err)
}

// Unwrap returns what the storage said.
func (e *DamagedError) Unwrap() error { return e.Err }

// A DataLossError reports that the storage holds less than it acknowledged, or
// something else. Opening an engine returns it unless data loss is accepted.
type DataLossError struct {
	Log    string // name of the log; "" when all are concerned
	Want   uint64 // newest sequence that was acknowledged; 0 when that is not known
	Have   uint64 // newest sequence that was found
	Reason string // what is wrong, as a clause
}

func (e *DataLossError) Error() string {
	switch {
	case e.Log == "":
		return "eventlog: " + e.Reason
	case e.Want > e.Have:
		return fmt.Sprintf("eventlog: log %s: records up to %d were acknowledged, only those up to %d are there: %s",
			e.Log, e.Want, e.Have, e.Reason)
	}
	return fmt.Sprintf("eventlog: log %s: %s", e.Log, e.Reason)
}

// An Engine is the storage that logs live in. It is safe for concurrent use.
type Engine interface {
	// Log opens the log that cfg names, and creates it when there is none. A log
	// that is open already is returned as it is.
	Log(ctx context.Context, cfg LogConfig) (*Log, error)

	// Logs returns the names of the logs that there are, sorted.
	Logs(ctx context.Context) ([]string, error)

	// Remove deletes the log of that name with all its records, for good. A log
	// that is not there is no error. Nobody may use the Log any more.
	Remove(ctx context.Context, name string) error

	// Err returns nil while appends can be taken, and else why not. It costs
	// nothing and never waits.
	Err() error

	// Failed is closed when the engine can never take an append again in this
	// process: then Err says why, and the process should end.
	Failed() <-chan struct{}

	// Close makes what was appended durable and closes the storage, as long as
	// ctx lasts. Appends and reads return ErrClosed from then on.
	Close(ctx context.Context) error
}

// LogConfig says how to open a Log.
type LogConfig struct {
	// Name of the log: upper-case letters, digits and underscores.
	Name string

	// DedupeWindow is how long a Record.ID is remembered. 0 means 2 minutes.
	DedupeWindow time.Duration

	// MaxAge is how long records are kept. 0 means for ever.
	MaxAge time.Duration

	// MaxBytes is how many bytes the log may hold. 0 means no bound.
	MaxBytes int64

	// DropOldest removes the oldest records at MaxBytes; otherwise Append
	// returns ErrFull.
	DropOldest bool

	// Deletes says that records are removed by Delete or Trim. Where several
	// gateways share the log, each then reads it from the storage only: what it
	// has in memory may have been removed by another.
	Deletes bool

	// Exclusive says that one gateway at a time uses the log, and calls End
	// before it reads: what others append is not followed, that another removes
	// the log is no failure, and no record is kept in memory for readers.
	Exclusive bool
}

// A Record is an entry of a Log.
type Record struct {
	// Sequence is the position, from 1. Set by reads.
	Sequence uint64

	// Time is when the record was stored, by the storage's clock; it never goes
	// back within a log. Set by reads.
	Time time.Time

	// Subject labels the record with a few low-cardinality tokens, separated by
	// dots, of letters, digits, "_", "-" and "~". Required.
	Subject string

	// Key groups records for ReadKey, such as those of one chat. "" means none.
	// Not set by reads, which set KeyHash.
	Key string

	// KeyHash is HashKey of Key. Set by reads.
	KeyHash KeyHash

	// ID makes appending idempotent: within the log's DedupeWindow, a second
	// record with the same ID is not stored. At most 64 printable ASCII bytes
	// without spaces. "" means no such check. Not set by reads.
	ID string

	// Data is the content. After a read it is shared: do not modify it.
	Data []byte
}

// A KeyHash stands for a Record.Key: 128 bits of its SHA-256. The zero value
// stands for none.
type KeyHash [16]byte

// HashKey returns what stands for key.
func HashKey(key string) KeyHash {
	if key == "" {
		return KeyHash{}
	}
	sum := sha256.Sum256([]byte(key))
	return KeyHash(sum[:16])
}

// MaxReadBytes is the most bytes of data that one read returns, unless they are of
// one record.
const MaxReadBytes = 256 << 10

// Bound returns the first of records, as many as one read returns: at most limit and
// MaxReadBytes.
func Bound(records []Record, limit int) []Record {
	bytes := 0
	for n, r := range records {
		if bytes += len(r.Data); n == limit || n > 0 && bytes > MaxReadBytes {
			return records[:n]
		}
	}
	return records
}

// Appended is the outcome of an Append.
type Appended struct {
	// Sequence is where the record is; the first record with its ID when
	// Duplicate.
	Sequence uint64

	// Duplicate says that a record with the same ID was there before, and that
	// it is durable now.
	Duplicate bool
}

// State is the extent of a Log.
type State struct {
	First uint64    // oldest sequence held; Last+1 when nothing is held
	Last  uint64    // newest durable sequence; 0 when there was none, ever
	Count uint64    // records held
	Bytes uint64    // bytes held
	Since time.Time // when the oldest record was stored; zero when none is held
}

// A Store is what an engine does for one log. Only Log calls it, after it has
// checked arguments and bounded ctx. It is safe for concurrent use.
type Store interface {
	// Append is Log.Append or, when r.Sequence is set, Log.AppendAt. Before it
	// returns nil for a record that is new it has called Log.Advance.
	Append(ctx context.Context, r Record) (Appended, error)

	// Fetch returns records from the one at from to the one at to, which is
	// durable: the first ones, in order, at most limit and MaxReadBytes.
	// Every sequence from from to through is in records or was removed; through
	// is at least from when err is nil. The error is a *TruncatedError, or a
	// *DamagedError when the record at from is damaged.
	Fetch(ctx context.Context, from, to uint64, limit int) (records []Record, through uint64, err error)

	// ReadKey is Log.ReadKey.
	ReadKey(ctx context.Context, key string, from uint64, limit int, reverse bool) ([]Record, error)

	// SequenceAt is Log.SequenceAt.
	SequenceAt(ctx context.Context, t time.Time) (uint64, error)

	// Delete is Log.Delete.
	Delete(ctx context.Context, sequence uint64) error

	// Trim is Log.Trim.
	Trim(ctx context.Context, sequence uint64) error

	// End is Log.End.
	End(ctx context.Context) (uint64, error)

	// State is Log.State.
	State() State
}
