package group

import (
	"context"
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
// what the others get. A record that is not on it is read from the log, which on one
// machine makes an event that is settled a fifth more expensive. It is safe for
// concurrent use, and no read waits for another.
type shelf struct {
	log *eventlog.Log

	mu      sync.Mutex
	records map[uint64]eventlog.Record
	order   []uint64 // the keys of records, as they came
	bytes   int
}

func newShelf(log *eventlog.Log) *shelf {
	return &shelf{log: log, records: map[uint64]eventlog.Record{}}
}

// A found is what the log has of some events. What is in neither was removed.
type found struct {
	records map[uint64]eventlog.Record // by sequence
	damaged map[uint64]error           // those that cannot be read, and why
}

// put keeps records, and drops those that came first where there are too many.
func (s *shelf) put(records ...eventlog.Record) {
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
func (s *shelf) take(sequences []uint64, found found) (missing []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sequence := range sequences {
		if rec, ok := s.records[sequence]; ok {
			found.records[sequence] = rec
		} else {
			missing = append(missing, sequence)
		}
	}
	return missing
}

// get returns what is at hand, or what the log has, of those events, all of which
// were durable. The error is that the log could not be asked.
func (s *shelf) get(ctx context.Context, sequences []uint64) (found, error) {
	out := found{records: make(map[uint64]eventlog.Record, len(sequences)), damaged: map[uint64]error{}}
	missing := s.take(sequences, out)
	if len(missing) == 0 {
		return out, nil
	}
	slices.Sort(missing)
	var mu sync.Mutex // held for out
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxReads)
	for len(missing) > 0 {
		span := missing[:near(missing)]
		missing = missing[len(span):]
		g.Go(func() error { return s.read(ctx, span, &mu, out) })
	}
	if err := g.Wait(); err != nil {
		return found{}, err
	}
	return out, nil
}

// read adds to out what the log has of the events of span, and puts on the shelf
// what lies between.
func (s *shelf) read(ctx context.Context, span []uint64, mu *sync.Mutex, out found) error {
	return scan(ctx, s.log, span[0], span[len(span)-1], func(rec eventlog.Record) error {
		s.put(rec)
		if _, ok := slices.BinarySearch(span, rec.Sequence); ok {
			mu.Lock()
			defer mu.Unlock()
			out.records[rec.Sequence] = rec
		}
		return nil
	}, func(d *eventlog.DamagedError) error {
		mu.Lock()
		defer mu.Unlock()
		for _, sequence := range span {
			if d.First <= sequence && sequence <= d.Last {
				out.damaged[sequence] = d.Err
			}
		}
		return nil
	})
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
