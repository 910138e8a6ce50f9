package group

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	// maxShelf is how many bytes of records all groups together keep at hand.
	maxShelf = 16 << 20

	// maxReads is how many reads of the log for the shelf are under way at once.
	maxReads = 16

	// maxGap is how far apart two records may be that one read gets.
	maxGap = 16
)

// A shelf keeps records that were read lately: what a group has just read to
// know of it is usually handed out next, and what one member gets lies beside
// what the others get. A record that is not on it is read from the log. It is
// safe for concurrent use.
type shelf struct {
	log     *eventlog.Log
	reading chan struct{} // one place: who reads holds it, so that others find what was read

	mu      sync.Mutex
	records map[uint64]eventlog.Record
	order   []uint64 // the keys of records, as they came
	bytes   int
}

func newShelf(log *eventlog.Log) *shelf {
	return &shelf{log: log, reading: make(chan struct{}, 1), records: map[uint64]eventlog.Record{}}
}

// put keeps records, and drops those that came first where there are too many.
func (s *shelf) put(records []eventlog.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rec := range records {
		if _, ok := s.records[rec.Sequence]; ok {
			continue
		}
		s.records[rec.Sequence] = rec
		s.order = append(s.order, rec.Sequence)
		s.bytes += len(rec.Data)
	}
	for s.bytes > maxShelf {
		s.bytes -= len(s.records[s.order[0]].Data)
		delete(s.records, s.order[0])
		s.order = s.order[1:]
	}
}

// take adds to found what is at hand, and returns the rest.
func (s *shelf) take(sequences []uint64, found map[uint64]eventlog.Record) (missing []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sequence := range sequences {
		if rec, ok := s.records[sequence]; ok {
			found[sequence] = rec
		} else {
			missing = append(missing, sequence)
		}
	}
	return missing
}

// get returns the records of those sequences, all of which were durable, that
// are at hand or that the log still holds.
func (s *shelf) get(ctx context.Context, sequences []uint64) (map[uint64]eventlog.Record, error) {
	found := make(map[uint64]eventlog.Record, len(sequences))
	missing := s.take(sequences, found)
	if len(missing) == 0 {
		return found, nil
	}
	select {
	case s.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.reading }()
	missing = s.take(missing, found)
	slices.Sort(missing)
	var mu sync.Mutex // held for found
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxReads)
	for len(missing) > 0 {
		span := missing[:near(missing)]
		missing = missing[len(span):]
		g.Go(func() error {
			return readSpan(ctx, s.log, span[0], span[len(span)-1], func(records []eventlog.Record) {
				s.put(records)
				mu.Lock()
				defer mu.Unlock()
				for _, rec := range records {
					if _, ok := slices.BinarySearch(span, rec.Sequence); ok {
						found[rec.Sequence] = rec
					}
				}
			})
		})
	}
	return found, g.Wait()
}

// near returns how many of sequences, which are in order, lie so close together
// that it is best to read all between them: what lies between is what other
// members get at the same time.
func near(sequences []uint64) int {
	n := 1
	for n < len(sequences) && sequences[n]-sequences[n-1] <= maxGap {
		n++
	}
	return n
}

// readSpan calls visit for the records from the one at first to the one at last
// that the log still holds. last must be durable.
func readSpan(ctx context.Context, events *eventlog.Log, first, last uint64, visit func([]eventlog.Record)) error {
	r := events.Read(1)
	r.Seek(first)
	for r.Position() < last {
		records, err := r.Next(ctx, int(min(last-r.Position(), maxRead)))
		var gone *eventlog.TruncatedError
		switch {
		case errors.As(err, &gone):
			r.Seek(gone.First)
		case err != nil:
			return err
		}
		for len(records) > 0 && records[len(records)-1].Sequence > last { // there are holes in the log
			records = records[:len(records)-1]
		}
		visit(records)
	}
	return nil
}
