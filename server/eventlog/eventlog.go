// Package eventlog is the durable, append-only storage behind the gateway. It
// owns the embedded NATS server, or the connection to a NATS cluster, and the
// JetStream streams in it, each of which it presents as a Log. It is the only
// package that imports NATS, and it knows nothing of what is in a record.
//
// The promise, on which everything else rests: when Append returns nil, the
// record is on stable storage, and no reader is shown a record before it is.
package eventlog

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	// ErrFull reports that a log is at its MaxBytes, or that the disk has less
	// than Config.MinFree left. The log takes records again once retention or
	// the operator has freed space, so retrying can help.
	ErrFull = errors.New("eventlog: full")

	// ErrUnavailable reports that the storage cannot be used now, or that the
	// outcome of an append is unknown: the record may or may not be stored.
	// Appending it again under the same ID is safe.
	ErrUnavailable = errors.New("eventlog: unavailable")

	// ErrClosed reports the use of an Engine after Close. Retrying cannot help.
	ErrClosed = errors.New("eventlog: closed")

	// ErrConflict reports that a conditional append was not made: the log does
	// not end where it was expected to.
	ErrConflict = errors.New("eventlog: the log has grown meanwhile")

	// ErrNotFound reports that a log does not hold a record: removed, or not
	// durable yet.
	ErrNotFound = errors.New("eventlog: no such record")
)

// A TruncatedError reports a read from before the oldest record still held.
type TruncatedError struct {
	Asked uint64 // sequence the reader wanted
	First uint64 // oldest sequence still held
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("eventlog: record %d was removed, the oldest held is %d", e.Asked, e.First)
}

// A DataLossError reports that the storage holds less than it once
// acknowledged, or something else. Open returns it unless
// Config.AcceptDataLoss is set.
type DataLossError struct {
	Log       string // name of the log
	Want      uint64 // highest sequence that was acknowledged
	Have      uint64 // highest sequence that was recovered
	Corrupted bool   // Have reaches Want, but the records are not the same
}

func (e *DataLossError) Error() string {
	if e.Corrupted {
		return fmt.Sprintf("eventlog: log %s: the records up to %d are not those that were acknowledged", e.Log, e.Want)
	}
	return fmt.Sprintf("eventlog: log %s: %d records were acknowledged, only %d were recovered", e.Log, e.Want, e.Have)
}

// Config says how to open an Engine.
type Config struct {
	// Dir is the data directory of the embedded server. It is created when
	// missing. Required unless URL is set.
	Dir string

	// URL is an external NATS server or cluster ("nats://…", several separated
	// by commas). Unset means embedded.
	URL string

	// Credentials is the path of a NATS credentials file; external only.
	Credentials string

	// Replicas is the number of copies of each stream; external only. 0 means
	// 3.
	Replicas int

	// Sync is how the embedded server makes records durable. Unset is
	// SyncGroup where the system has syncfs, else SyncAlways.
	Sync SyncMode

	// CommitTimeout bounds an Append. 0 means 3 s.
	CommitTimeout time.Duration

	// MaxRecord is the largest Record.Data, in bytes. 0 means 1 MiB.
	MaxRecord int

	// MinFree is how many bytes the disk must have left for Append to try;
	// embedded only. 0 means no bound.
	MinFree uint64

	// AcceptDataLoss opens logs that hold less than they once acknowledged, and
	// starts a new epoch for them.
	AcceptDataLoss bool

	// Logger takes what the embedded server says, too. nil means no logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer
}

// SyncMode is how the embedded server makes records durable.
type SyncMode string

const (
	// SyncGroup lets many appends share one syncfs of the data directory that
	// began after each of them was written.
	SyncGroup SyncMode = "group"

	// SyncAlways has the embedded server sync each record by itself.
	SyncAlways SyncMode = "always"
)

// LogConfig says how to open a Log.
type LogConfig struct {
	// Name is the stream's name: upper-case letters, digits and underscores.
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

	// Exclusive says that one gateway at a time uses the log, and calls End
	// before it reads: what others append is not followed, and that another removes
	// the log is no failure. Embedded it changes nothing.
	Exclusive bool
}

// A Record is an entry of a Log.
type Record struct {
	// Sequence is the position, from 1. Set by reads.
	Sequence uint64

	// Time is when the record was stored, by the storage's clock. Set by reads.
	Time time.Time

	// Subject labels the record with a few low-cardinality tokens, separated by
	// dots, of letters, digits, "_", "-" and "~". Required.
	Subject string

	// ID makes appending idempotent: within the log's DedupeWindow, a second
	// record with the same ID is not stored. At most 64 printable ASCII bytes
	// without spaces. "" means no such check. Not set by reads.
	ID string

	// Data is the content. After a read it is shared: do not modify it.
	Data []byte
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
