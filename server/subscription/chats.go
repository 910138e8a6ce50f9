package subscription

import (
	"context"
	"errors"
	"slices"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	// maxIndexed is the most chat keys whose events are read by the index, and
	// minIndexed the fewest records among which they are looked for in it: fewer
	// are read as soon, and the newest are in memory.
	maxIndexed = 16
	minIndexed = 4096

	// minChunk is the fewest records of a chat that are asked for at once.
	minChunk = 8
)

// indexed returns the chats whose events are to be found by the index among width
// records; nil when all records are to be looked at.
func (s *selector) indexed(width uint64) []string {
	if len(s.filter.chatKeys) > maxIndexed || width < s.service.minIndexed {
		return nil
	}
	return s.filter.chatKeys
}

// A chatReader reads the records of a few chats in the order of the log, or in
// reverse, by the log's index.
type chatReader struct {
	log     *eventlog.Log
	reverse bool
	last    uint64 // where it ends
	chunk   int    // how many records of a chat are asked for at once
	queues  []chatQueue
}

// A chatQueue is what comes next of one chat.
type chatQueue struct {
	key     string
	from    uint64 // where the next read begins; 0 for the end
	records []eventlog.Record
	damaged *eventlog.DamagedError // what is behind records, if that is known
}

// newChatReader returns a reader of the records from the one at from to the one at
// last, which comes before it in reverse.
func newChatReader(log *eventlog.Log, keys []string, from, last uint64, reverse bool) *chatReader {
	c := &chatReader{log: log, reverse: reverse, last: last, chunk: max(maxBatch/len(keys), minChunk), queues: make([]chatQueue, len(keys))}
	for i, key := range keys {
		c.queues[i] = chatQueue{key: key, from: from}
	}
	return c
}

// next returns the next record; false when there is none. A *eventlog.DamagedError
// is about the record that would come next, and stays the answer. The other errors
// are those of eventlog.Log.ReadKey; next may be called again.
func (c *chatReader) next(ctx context.Context) (eventlog.Record, bool, error) {
	q, err := c.head(ctx)
	if q == nil {
		return eventlog.Record{}, false, err
	}
	return q.take(), true, nil
}

// head returns the chat whose first record comes next; nil with an error, or when
// there is none.
func (c *chatReader) head(ctx context.Context) (*chatQueue, error) {
	var first *chatQueue
	for i := range c.queues {
		q := &c.queues[i]
		if err := c.fill(ctx, q); err != nil {
			return nil, err
		}
		if at := q.at(); at != 0 && (first == nil || c.before(at, first.at())) {
			first = q
		}
	}
	if first != nil && len(first.records) == 0 {
		return nil, first.damaged
	}
	return first, nil
}

// take returns the first record, and lets go of it.
func (q *chatQueue) take() eventlog.Record {
	rec := q.records[0]
	q.records = q.records[1:]
	return rec
}

// fill reads on in a chat of which nothing is at hand.
func (c *chatReader) fill(ctx context.Context, q *chatQueue) error {
	if q.at() != 0 || q.from == 0 {
		return nil
	}
	records, err := c.log.ReadKey(ctx, q.key, q.from, c.chunk, c.reverse)
	if errors.As(err, &q.damaged) {
		err = nil
		if c.before(c.last, q.damaged.First) {
			q.damaged = nil
		}
	}
	if err != nil {
		return err
	}
	q.from = 0
	if n := len(records); n > 0 {
		if q.from = records[n-1].Sequence + 1; c.reverse {
			q.from -= 2
		}
		if behind := slices.IndexFunc(records, func(r eventlog.Record) bool { return c.before(c.last, r.Sequence) }); behind >= 0 {
			records, q.from = records[:behind], 0
		}
	}
	q.records = records
	return nil
}

// before returns whether the record at a comes before the one at b.
func (c *chatReader) before(a, b uint64) bool {
	if c.reverse {
		return a > b
	}
	return a < b
}

// at returns where what comes next is in the log; 0 when that is not known, or
// there is nothing.
func (q *chatQueue) at() uint64 {
	switch {
	case len(q.records) > 0:
		return q.records[0].Sequence
	case q.damaged != nil:
		return q.damaged.First
	}
	return 0
}

// batch returns the next records, as many as a read of the log returns; none at
// the end. The errors are those of next.
func (c *chatReader) batch(ctx context.Context) ([]eventlog.Record, error) {
	var records []eventlog.Record
	q, err := c.head(ctx)
	for bytes := 0; q != nil && len(records) < maxBatch; q, err = c.head(ctx) {
		if bytes += len(q.records[0].Data); len(records) > 0 && bytes > eventlog.MaxReadBytes {
			break
		}
		records = append(records, q.take())
	}
	c.trim()
	if len(records) > 0 { // what is wrong behind them is met again
		return records, nil
	}
	return nil, err
}

// trim lets go of records that were read ahead when they are large: who waits for
// a client to read should hold no more than a read of the log returns.
func (c *chatReader) trim() {
	bytes := 0
	for i := range c.queues {
		q := &c.queues[i]
		for _, r := range q.records {
			bytes += len(r.Data)
		}
		if bytes > eventlog.MaxReadBytes && len(q.records) > 0 {
			q.from, q.records, q.damaged = q.records[0].Sequence, nil, nil
		}
	}
}
