package eventlog

import (
	"context"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxFetch and maxFetchBytes bound one request for records: the server
	// serves reads and writes of a stream in turn.
	maxFetch      = 256
	maxFetchBytes = 1 << 20

	// maxTail and maxTailBytes bound the records kept for readers that keep up.
	maxTail      = 8192
	maxTailBytes = 8 << 20
)

// A Reader reads a log by position. It holds nothing but the position, so it
// costs nothing while it is not used, slows nobody, and needs no closing. It is
// not safe for concurrent use.
type Reader struct {
	log      *Log
	position uint64
	anywhere bool // the first read may start after a gap
}

// Read returns a reader whose first record is the one at from, or, for 0, the
// oldest one held.
func (l *Log) Read(from uint64) *Reader {
	r := &Reader{log: l}
	r.Seek(from)
	return r
}

// Seek moves r so that its next record is the one at from, or, for 0, the
// oldest one held.
func (r *Reader) Seek(from uint64) {
	r.anywhere = from == 0
	r.position = max(from, 1) - 1
}

// Position returns how far r is: every record at or before it was returned or
// is not in the log any more. r has caught up when Position is the log's
// Durable.
func (r *Reader) Position() uint64 { return r.position }

// Next returns the next durable records, at most limit, and waits for the first
// one. It returns none, and nil, when all that was durable ahead of r had been
// removed: r has moved then.
//
// It returns the error of ctx when ctx ends first; a *TruncatedError when
// retention has removed records that r has not seen, whereupon Seek to its
// First goes on; ErrUnavailable when the storage cannot be read now, whereupon
// Next may be called again; ErrClosed. No error moves r.
func (r *Reader) Next(ctx context.Context, limit int) ([]Record, error) {
	durable, err := r.log.wait(ctx, r.position)
	if err != nil {
		return nil, err
	}
	limit = int(min(uint64(max(limit, 1)), durable-r.position, maxFetch))
	records := r.log.recent(r.position+1, limit)
	if records == nil {
		if records, err = r.fetch(ctx, limit, durable); err != nil {
			return nil, err
		}
	}
	r.position = durable // if nothing is left before it
	if len(records) > 0 {
		r.anywhere = false
		r.position = records[len(records)-1].Sequence
	}
	return records, nil
}

// fetch asks the storage for up to limit records after r's position, and none
// after durable.
func (r *Reader) fetch(ctx context.Context, limit int, durable uint64) ([]Record, error) {
	n, err := r.log.engine.running(ctx)
	if err != nil {
		return nil, err
	}
	records, err := n.fetches.request(ctx, r.log.cfg.Name, server.JSApiMsgGetRequest{
		Seq: r.position + 1, Batch: limit, MaxBytes: maxFetchBytes,
	})
	if err != nil {
		return nil, err
	}
	if next := r.position + 1; !r.anywhere && (len(records) == 0 || records[0].Sequence > next) {
		// Either somebody removed single records, or retention has passed.
		state, err := r.log.State(ctx)
		if err != nil {
			return nil, err
		}
		if next < state.First {
			return nil, &TruncatedError{Asked: next, First: state.First}
		}
	}
	for len(records) > 0 && records[len(records)-1].Sequence > durable {
		records = records[:len(records)-1] // written, but not synced yet
	}
	return records, nil
}

// recent returns up to limit of the newest records, from the one at first on;
// nil when they are not at hand.
func (l *Log) recent(first uint64, limit int) []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.from(first, limit, l.durable.Load())
}

// A tail is the newest records of a log without a gap, oldest first.
type tail struct {
	records []Record
	bytes   int
}

// push adds a record. A record that does not follow the one before starts the
// tail anew.
func (t *tail) push(r Record) {
	if n := len(t.records); n > 0 && t.records[n-1].Sequence+1 != r.Sequence {
		*t = tail{}
	}
	t.records = append(t.records, r)
	t.bytes += len(r.Data)
	drop := 0
	for t.bytes > maxTailBytes || len(t.records)-drop > maxTail {
		t.bytes -= len(t.records[drop].Data)
		drop++
	}
	clear(t.records[:drop])
	t.records = t.records[drop:]
}

// from returns up to limit records from the one at first on, none after
// durable; nil when the tail does not hold them.
func (t *tail) from(first uint64, limit int, durable uint64) []Record {
	if len(t.records) == 0 || first < t.records[0].Sequence {
		return nil
	}
	i := first - t.records[0].Sequence
	if i >= uint64(len(t.records)) {
		return nil
	}
	limit = min(limit, len(t.records)-int(i), int(durable-first+1)) //nolint:gosec // small
	return append([]Record(nil), t.records[i:int(i)+limit]...)      //nolint:gosec // small
}
