package cluster

import (
	"context"
	"errors"
	"slices"

	"github.com/sluicegate/sluice/server/eventlog"
)

// firstWindow is how many sequences ReadKey looks at first when it goes back.
const firstWindow = 256

// A source returns up to limit records of one key, from the one at from on, and
// whether there are more.
type source func(ctx context.Context, from uint64, limit int) (records []eventlog.Record, more bool, err error)

// ReadKey implements eventlog.Store.
//
// What a replica lacks cannot be seen in an answer that skips most records
// anyway. So it is asked how many records the key has, as the leader is: where
// they differ, the leader is asked for the records, too, one by one.
func (s *store) ReadKey(ctx context.Context, key string, from uint64, limit int, reverse bool) ([]eventlog.Record, error) {
	if err := s.engine.usable(); err != nil {
		return nil, err
	}
	filter := s.cfg.Name + "." + keyToken(key) + ".>"
	durable := s.log.Durable()
	nearest, err := s.read(ctx, s.nearest(filter), durable, from, limit, reverse)
	if err == nil {
		var whole bool
		if whole, err = s.whole(ctx, filter); err == nil && whole {
			return nearest, nil
		}
	}
	if err != nil && !errors.Is(err, errNoReplica) {
		return nil, s.engine.cause(err)
	}
	records, err := s.read(ctx, s.leading(filter), durable, from, limit, reverse)
	if err != nil {
		return nil, s.engine.cause(err)
	}
	s.missed(slices.DeleteFunc(slices.Clone(records), func(r eventlog.Record) bool {
		return lagging(r) || slices.ContainsFunc(nearest, func(o eventlog.Record) bool { return o.Sequence == r.Sequence })
	}))
	return records, nil
}

// whole says whether the nearest replica has as many records of a key as the
// leader has.
func (s *store) whole(ctx context.Context, filter string) (bool, error) {
	if s.engine.cfg.Replicas == 1 {
		return true, nil // it is the leader
	}
	records, count, err := s.direct(ctx, getRequest{Seq: 1, NextFor: filter, Batch: 1})
	if err != nil {
		return false, err
	}
	count += uint64(len(records))
	info, err := s.info(ctx, infoRequest{Subjects: filter})
	for _, n := range info.State.Subjects {
		count -= n
	}
	return count == 0, err
}

// nearest returns records from whichever replica answers.
func (s *store) nearest(filter string) source {
	return func(ctx context.Context, from uint64, limit int) ([]eventlog.Record, bool, error) {
		records, after, err := s.direct(ctx, getRequest{
			Seq: from, NextFor: filter, Batch: min(limit, maxFetch), MaxBytes: maxFetchBytes,
		})
		return records, after >= uint64(len(records)) && len(records) > 0, err
	}
}

// leading returns records from the stream's leader.
func (s *store) leading(filter string) source {
	return func(ctx context.Context, from uint64, _ int) ([]eventlog.Record, bool, error) {
		r, found, err := s.fromLeader(ctx, getRequest{Seq: from, NextFor: filter})
		if err != nil || !found {
			return nil, false, err
		}
		return []eventlog.Record{r}, true, nil
	}
}

// read reads records of one key in order or, in reverse, in windows that grow
// while they hold too little: JetStream searches forwards only.
func (s *store) read(ctx context.Context, of source, durable, from uint64, limit int, reverse bool) ([]eventlog.Record, error) {
	if !reverse {
		return readBetween(ctx, of, max(from, 1), durable, limit)
	}
	first := max(s.State().First, 1)
	var found []eventlog.Record // newest first
	last := min(from, durable)
	for window := uint64(firstWindow); last >= first && len(found) < limit; window *= 4 {
		start := max(first, last-min(last, window)+1)
		part, err := readBetween(ctx, of, start, last, int(window)) //nolint:gosec // as many as there are
		if err != nil {
			return nil, err
		}
		slices.Reverse(part)
		found = append(found, part...)
		last = start - 1
	}
	return found[:min(len(found), limit)], nil
}

// readBetween reads records of one key from first to last, at most limit.
func readBetween(ctx context.Context, of source, first, last uint64, limit int) (found []eventlog.Record, err error) {
	for more := true; more && first <= last && len(found) < limit; {
		var part []eventlog.Record
		if part, more, err = of(ctx, first, limit-len(found)); err != nil {
			return nil, err
		}
		for _, r := range part {
			if r.Sequence > last {
				return found, nil
			}
			found, first = append(found, r), r.Sequence+1
		}
	}
	return found, nil
}
