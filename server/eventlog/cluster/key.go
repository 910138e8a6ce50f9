package cluster

import (
	"cmp"
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
// anyway. So the leader is asked how many records the key has: if one answer of
// a replica has as many, that is it. Else the leader is asked for them, one by
// one, unless it lacks some itself.
func (s *store) ReadKey(ctx context.Context, key string, from uint64, limit int, reverse bool) ([]eventlog.Record, error) {
	if err := s.engine.usable(); err != nil {
		return nil, err
	}
	filter := s.cfg.Name + "." + keyToken(key) + ".>"
	durable := s.log.Durable()
	if s.engine.cfg.Replicas == 1 { // it is the leader
		records, err := s.read(ctx, s.nearest(filter), durable, from, limit, reverse)
		return records, s.engine.cause(err)
	}
	info, err := s.info(ctx, infoRequest{Subjects: filter})
	if err != nil {
		return nil, s.engine.cause(err)
	}
	if s.hurt(info) {
		records, err := s.merged(ctx, filter, durable, from, limit, reverse)
		return records, s.engine.cause(err)
	}
	all, whole, err := s.all(ctx, filter, info)
	if err != nil {
		return nil, s.engine.cause(err)
	}
	of := s.leading(filter)
	if whole {
		of = among(all)
	}
	records, err := s.read(ctx, of, durable, from, limit, reverse)
	if err == nil && !whole && len(all) > 0 {
		s.missed(slices.DeleteFunc(slices.Clone(records), func(r eventlog.Record) bool {
			_, found := search(all, r.Sequence)
			return found || r.Sequence > all[len(all)-1].Sequence || lagging(r)
		}))
	}
	return records, s.engine.cause(err)
}

// maxKey and maxKeyBytes bound how much of a key is asked for at once.
const (
	maxKey      = 1000
	maxKeyBytes = 1 << 20
)

// all returns the records of a key that one replica answers with, and whether
// those are as many as the leader has.
func (s *store) all(ctx context.Context, filter string, info streamInfo) ([]eventlog.Record, bool, error) {
	count := uint64(0)
	for _, n := range info.State.Subjects {
		count += n
	}
	if count == 0 || count > maxKey {
		return nil, count == 0, nil
	}
	records, _, err := s.direct(ctx, getRequest{Seq: 1, NextFor: filter, Batch: maxKey, MaxBytes: maxKeyBytes})
	if errors.Is(err, errNoReplica) {
		return nil, false, nil // the leader may answer
	}
	known, _ := search(records, info.State.Last+1)
	return records, uint64(known) == count, err //nolint:gosec // not negative
}

// hurt says whether the leader itself lacks what nobody removed.
func (s *store) hurt(info streamInfo) bool {
	return len(info.State.Lost.Sequences) > 0 || info.State.NumDeleted > 0 && !s.cfg.Deletes
}

// merged returns what any replica has of a key, for when the leader is no
// measure: it asks as often as it takes for each of them to have answered.
func (s *store) merged(ctx context.Context, filter string, durable, from uint64, limit int, reverse bool) ([]eventlog.Record, error) {
	var merged []eventlog.Record
	for range maxTries {
		part, err := s.read(ctx, s.nearest(filter), durable, from, limit, reverse)
		if err != nil {
			return nil, err
		}
		merged = append(merged, part...)
		slices.SortFunc(merged, func(a, b eventlog.Record) int {
			if reverse {
				a, b = b, a
			}
			return cmp.Compare(a.Sequence, b.Sequence)
		})
		merged = slices.CompactFunc(merged, func(a, b eventlog.Record) bool { return a.Sequence == b.Sequence })
		merged = eventlog.Bound(merged, limit)
	}
	return merged, nil
}

// search returns where in records the one at sequence is, or would be.
func search(records []eventlog.Record, sequence uint64) (int, bool) {
	return slices.BinarySearchFunc(records, sequence, func(r eventlog.Record, sequence uint64) int {
		return cmp.Compare(r.Sequence, sequence)
	})
}

// among returns records that were read before.
func among(all []eventlog.Record) source {
	return func(_ context.Context, from uint64, limit int) ([]eventlog.Record, bool, error) {
		i, _ := search(all, from)
		return all[i:min(len(all), i+limit)], i+limit < len(all), nil
	}
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
	var found []eventlog.Record
	if !reverse {
		err := visitBetween(ctx, of, max(from, 1), durable, limit, func(r eventlog.Record) bool {
			found = append(found, r)
			return !full(found, limit)
		})
		return eventlog.Bound(found, limit), err
	}
	first := max(s.State().First, 1)
	last := min(from, durable)
	for window := uint64(firstWindow); last >= first && !full(found, limit); window *= 4 {
		start := max(first, last-min(last, window)+1)
		var part []eventlog.Record // of which the oldest are let go while the others are enough
		err := visitBetween(ctx, of, start, last, maxFetch, func(r eventlog.Record) bool {
			part = append(part, r)
			for full(part[1:], limit) {
				part = part[1:]
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		slices.Reverse(part)
		found = append(found, part...)
		last = start - 1
	}
	return eventlog.Bound(found, limit), nil
}

// full says whether records are as many as one read returns, or more.
func full(records []eventlog.Record, limit int) bool {
	bytes := 0
	for _, r := range records {
		bytes += len(r.Data)
	}
	return len(records) >= limit || bytes >= eventlog.MaxReadBytes
}

// visitBetween calls visit for records of one key from first to last, until it
// returns false. It asks for batch of them at a time.
func visitBetween(ctx context.Context, of source, first, last uint64, batch int, visit func(eventlog.Record) bool) error {
	for more := true; more && first <= last; {
		var part []eventlog.Record
		var err error
		if part, more, err = of(ctx, first, batch); err != nil {
			return err
		}
		for _, r := range part {
			if r.Sequence > last || !visit(r) {
				return nil
			}
			first = r.Sequence + 1
		}
	}
	return nil
}
