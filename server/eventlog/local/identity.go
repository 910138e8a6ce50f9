package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
)

// minBucket is the least width of a bucket of identities, and maxBuckets how
// many of them a look-up may read.
const (
	minBucket  = time.Hour
	maxBuckets = 8
)

// bucket returns the bucket of identities of a time.
func (s *store) bucket(at int64) uint64 {
	return uint64(max(0, at) / s.entry.window) //nolint:gosec // not negative
}

// lookUp returns the sequence of the record that was appended under id within
// the dedupe window before the time at.
func (s *store) lookUp(g *group, id [hashBytes]byte, at int64) (sequence uint64, found bool, err error) {
	if sequence, found = g.ids[identity{s.entry.number, id}]; found {
		return sequence, true, nil
	}
	if !s.identities.may(id) {
		return 0, false, nil
	}
	newest, oldest := s.bucket(at), s.bucket(at-int64(s.cfg.DedupeWindow))
	for b := newest; ; b-- {
		v, err := s.engine.lookUp(identityKey(s.entry.number, b, id))
		switch {
		case isDamage(err):
			s.engine.reportIdentities(err)
			s.restoreIdentities()
		case err != nil:
			return 0, false, fmt.Errorf("%w: look up an identity: %w", eventlog.ErrUnavailable, err)
		}
		if len(v) == 16 && at-int64(binary.BigEndian.Uint64(v[8:])) < int64(s.cfg.DedupeWindow) { //nolint:gosec // as it was encoded
			return binary.BigEndian.Uint64(v), true, nil
		}
		if b == oldest {
			return 0, false, nil
		}
	}
}

// lookUp returns what stands under the key of an identity; nil for nothing. The
// error may be damage.
//
// Damage there stops no callback: the vendor would not send it again, and a
// record that is stored twice is the lesser evil. Damaged filters are passed by,
// and written anew in the background.
func (e *Engine) lookUp(key []byte) ([]byte, error) {
	v, closer, err := e.db.Get(key) // which ends at the newest, above what may be damaged
	switch {
	case err == nil:
		return slices.Clone(v), closer.Close()
	case isNotFound(err):
		return nil, nil
	case !isDamage(err):
		return nil, err
	}
	if !e.unfiltered.Swap(true) {
		e.background.Go(e.rebuildFilters)
	}
	v, _, err = e.get(key)
	return v, err
}

func (e *Engine) reportIdentities(err error) {
	e.metrics.identities.Inc()
	if last, now := e.reported.Load(), e.uptime(); last != 0 && now-last < int64(reportInterval) {
		return
	}
	e.reported.Store(e.uptime())
	e.logger.Error("identities are damaged and are restored from the records; a callback that comes again before that is done may be stored twice",
		"err", firstLine(err))
}

// restoreIdentities writes the identities of the dedupe window anew from the
// records, in the background, over what is damaged. It is the writer's.
func (s *store) restoreIdentities() {
	if s.restoring {
		return
	}
	s.restoring = true
	s.engine.background.Go(func() {
		ctx, cancel := s.engine.whileOpen()
		defer cancel()
		if err := s.writeIdentities(ctx); err != nil && s.engine.closedErr() == nil && !s.gone.Load() {
			s.engine.logger.Error("the identities could not be restored; the next start tries again", "log", s.name, "err", firstLine(err))
		}
	})
}

// writeIdentities is restoreIdentities. Records that are damaged, or were deleted,
// are passed over: what comes again of them is stored, and is all that is left.
func (s *store) writeIdentities(ctx context.Context) error {
	oldest := s.engine.cfg.Clock().Add(-s.cfg.DedupeWindow)
	next, err := s.search(func(r stored) bool { return !r.Time.Before(oldest) })
	last := s.State().Last // what comes later brings its own
	for err == nil && next <= last {
		var found []stored
		next, err = s.eachOf(next, last, func(r stored) {
			if r.id != [hashBytes]byte{} {
				r.Record = eventlog.Record{Sequence: r.Sequence, Time: r.Time} // its data is the iterator's
				found = append(found, r)
			}
		})
		if isDamage(err) {
			next, err = next+1, nil
		}
		if err == nil {
			err = s.change(ctx, func(g *group) error {
				for _, r := range found {
					s.setIdentity(g, &r)
				}
				return nil
			})
		}
	}
	return err
}

// reportInterval is how often at most damaged identities are logged.
const reportInterval = time.Minute

// rebuildFilters has the tables of identities written anew.
func (e *Engine) rebuildFilters() {
	ctx, cancel := e.whileOpen()
	defer cancel()
	if err := e.db.Compact(ctx, []byte{keyIdentity}, []byte{keyIdentity + 1}, false); err != nil {
		e.logger.Warn("damaged tables of identities could not be written anew", "err", firstLine(err))
		return
	}
	e.unfiltered.Store(false)
}

// whileOpen returns a context that ends when the engine closes or fails.
func (e *Engine) whileOpen() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-e.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// forget removes the identities that are too old to matter. It is the writer's.
func (s *store) forget(g *group, at int64) {
	oldest := s.bucket(at - int64(s.cfg.DedupeWindow))
	if oldest <= s.forgotten {
		return
	}
	must(g.batch.DeleteRange(sequenceKey(keyIdentity, s.entry.number, s.forgotten), sequenceKey(keyIdentity, s.entry.number, oldest), nil))
	s.forgotten = oldest
}

// widen gives the identities buckets of another width. It is the writer's.
func (s *store) widen(g *group, width int64) error {
	lower, upper := logKey(keyIdentity, s.entry.number), logKey(keyIdentity, s.entry.number+1)
	old := s.entry.window
	s.entry.window = width
	must(g.batch.Set(nameKey(s.name), s.entry.encode(), nil))
	must(g.batch.DeleteRange(lower, upper, nil))
	err := s.engine.each(lower, upper, func(iter *pebble.Iterator) error {
		k, v := iter.Key(), iter.Value()
		at := int64(binary.BigEndian.Uint64(v[8:])) //nolint:gosec // as it was encoded
		return g.batch.Set(identityKey(s.entry.number, s.bucket(at), [hashBytes]byte(k[len(k)-hashBytes:])), v, nil)
	})
	if isDamage(err) {
		s.engine.reportIdentities(err)
		err = nil
	}
	if err != nil { // or those that were not read would go
		s.entry.window = old
		g.batch.Reset()
		return err
	}
	g.of(s).touched = true
	return nil
}
