package group

import (
	"context"
	"errors"
	"maps"

	"github.com/sluicegate/sluice/server/eventlog"
)

// change makes a change of the catalog: decide looks at what there is, and
// stores what is to be. It is called again when another gateway was faster.
// When change returns, the groups of this gateway are those of the catalog.
func (s *Service) change(ctx context.Context, decide func() error) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	for {
		if err := s.catalog.catchUp(ctx); err != nil {
			return err
		}
		err := decide()
		if errors.Is(err, eventlog.ErrConflict) {
			continue // there is more to catch up with
		}
		s.apply(ctx)
		if err == nil {
			s.tidy(ctx)
		}
		return err
	}
}

// refresh has the groups of this gateway be those of the catalog, where another
// one may have changed it a moment ago.
func (s *Service) refresh(ctx context.Context) error {
	if s.leases == nil {
		return nil // there is no other
	}
	return s.catchUp(ctx)
}

// catchUp has the groups of this gateway be those of the catalog.
func (s *Service) catchUp(ctx context.Context) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := s.catalog.catchUp(ctx); err != nil {
		return err
	}
	s.apply(ctx)
	return nil
}

// follow does what other gateways say in the catalog, or a change of our own of
// which nobody knew whether it was stored, until the Service closes.
func (s *Service) follow() {
	for {
		s.changes.Lock()
		end := s.catalog.end
		s.changes.Unlock()
		_, err := s.catalog.log.Read(end+1).Next(s.ctx, 1) // only waits
		if gone := (*eventlog.TruncatedError)(nil); err == nil || errors.As(err, &gone) {
			err = s.catchUp(s.ctx)
		}
		if errors.Is(err, eventlog.ErrClosed) || err != nil && eventlog.Pause(s.ctx, retryDelay) != nil {
			return
		}
	}
}

// apply has the groups of this gateway be those of the catalog. s.changes is
// held, or s not yet in use.
func (s *Service) apply(ctx context.Context) {
	ctx = context.WithoutCancel(ctx) // what is decided is to be done
	for _, r := range s.all() {
		if e, ok := s.catalog.groups[r.incarnation]; ok {
			r.setConfiguration(e.group)
			continue
		}
		s.remove(r.name)
		s.catalog.dying[r.incarnation] = true
	}
	for incarnation := range maps.Clone(s.catalog.dying) {
		// Should its log stay, the next change or start removes it.
		if err := s.catalog.bury(ctx, incarnation); err != nil {
			s.logger.Warn("the log of a deleted consumer group could not be removed yet", "err", err)
		}
	}
	for _, e := range s.catalog.entries() {
		s.add(e)
	}
}

// tidy keeps the catalog small.
func (s *Service) tidy(ctx context.Context) {
	err := s.catalog.compact(context.WithoutCancel(ctx))
	if err != nil && !errors.Is(err, eventlog.ErrConflict) { // whoever has made the next change will
		s.logger.Warn("the catalog of consumer groups could not be compacted", "err", err)
	}
}
