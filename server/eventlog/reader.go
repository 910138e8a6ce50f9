package eventlog

import (
	"context"
	"errors"
	"slices"
	"time"
)

// A Reader reads a log by position. It holds nothing but the position, so it
// costs nothing while it is not used, slows nobody, and needs no closing. It is
// not safe for concurrent use.
type Reader struct {
	log      *Log
	position uint64
	anywhere bool // the first read starts with the oldest record held
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

// Position returns how far r is: every record at or before it was returned, was
// removed, or was passed over with Seek. r has caught up when Position is the
// log's Durable.
func (r *Reader) Position() uint64 { return r.position }

// Next returns the next durable records, at most limit and MaxReadBytes, and
// waits for the first one. It returns none, and nil, when all that was durable
// ahead of r had been removed by Delete: r has moved then.
//
// It returns the error of ctx when ctx ends first; a *TruncatedError when
// retention has removed records that r has not seen, whereupon Seek to its
// First goes on; a *DamagedError when the next records cannot be read,
// whereupon Seek to its Last+1 goes on without them; ErrUnavailable when the
// storage cannot be read now, whereupon Next may be called again; ErrClosed. No
// error moves r.
func (r *Reader) Next(ctx context.Context, limit int) ([]Record, error) {
	for {
		durable, err := r.log.wait(ctx, r.position)
		if err != nil {
			return nil, err
		}
		limit = int(min(uint64(max(limit, 1)), durable-r.position, maxRead))
		records := r.log.recent(r.position+1, limit, durable)
		through := r.position + uint64(len(records))
		if records == nil {
			records, through, err = r.log.fetch(ctx, r.position+1, durable, limit)
		}
		var gone *TruncatedError
		if r.anywhere && errors.As(err, &gone) {
			r.position = gone.First - 1
			continue
		}
		if err != nil {
			return nil, err
		}
		r.position, r.anywhere = through, false
		return records, nil
	}
}

// Scan calls visit for each record from the one at first to the one at last that
// the log holds, in order, until visit returns an error. ErrStop from visit ends
// the scan without an error. last must be durable.
//
// A *DamagedError ends it, too: whoever can do without those records scans on
// from its Last+1. The other errors are those of Reader.Next, but never a
// *TruncatedError: what retention removes is passed over.
func (l *Log) Scan(ctx context.Context, first, last uint64, visit func(Record) error) error {
	r := l.Read(max(first, 1))
	for r.position < last {
		records, err := r.Next(ctx, int(min(last-r.position, maxBatch)))
		var gone *TruncatedError
		switch {
		case errors.As(err, &gone):
			r.Seek(gone.First)
			continue
		case err != nil:
			return err
		}
		for _, rec := range records {
			if rec.Sequence > last {
				return nil
			}
			if err := visit(rec); errors.Is(err, ErrStop) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// maxBatch is how many records Scan and Follow ask for at once.
const maxBatch = 256

// A Step is the next part of a log, as Follow finds it. Every sequence after the
// step before, up to Position, is in Records, was removed, or is in Damaged.
type Step struct {
	Records  []Record
	Position uint64
	First    uint64        // the oldest record held, when retention was faster than the reader; else 0
	Damaged  *DamagedError // what cannot be read; else nil
}

// Follow calls visit for one part of the log after the other, from the record at
// from on or, for 0, the oldest one held, and goes on with new records as they
// become durable. While the storage cannot be read it waits and tries again. It
// returns the error of ctx or visit, or ErrClosed.
func (l *Log) Follow(ctx context.Context, from uint64, visit func(Step) error) error {
	r := l.Read(from)
	for {
		records, err := r.Next(ctx, maxBatch)
		step := Step{Records: records}
		var gone *TruncatedError
		switch {
		case err == nil:
		case errors.As(err, &gone):
			r.Seek(gone.First)
			step.First = gone.First
		case errors.As(err, &step.Damaged):
			r.Seek(step.Damaged.Last + 1)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrClosed):
			return err
		default:
			if err := Pause(ctx, retryDelay); err != nil {
				return err
			}
			continue
		}
		step.Position = r.position
		if err := visit(step); err != nil {
			return err
		}
	}
}

// retryDelay is how long Follow waits before it asks a storage again that could
// not be read.
const retryDelay = 100 * time.Millisecond

// Pause waits for d, or returns the error of ctx.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Last returns the newest n durable records, oldest first; fewer when the log
// holds fewer. The errors are those of Scan.
func (l *Log) Last(ctx context.Context, n int) ([]Record, error) {
	var found []Record
	end := l.Durable()
	for first := l.State().First; len(found) < n && end >= first && end > 0; {
		from := max(first, end-min(uint64(max(n-len(found), 64)), end)+1)
		var part []Record
		err := l.Scan(ctx, from, end, func(r Record) error {
			part = append(part, r)
			return nil
		})
		if err != nil {
			return nil, err
		}
		found = append(part, found...)
		end = from - 1
	}
	return slices.Clone(found[max(0, len(found)-n):]), nil
}
