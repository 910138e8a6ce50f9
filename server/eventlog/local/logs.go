package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

// Log implements eventlog.Engine.
func (e *Engine) Log(ctx context.Context, cfg eventlog.LogConfig) (*eventlog.Log, error) {
	if cfg.DedupeWindow == 0 {
		cfg.DedupeWindow = defaultWindow
	}
	if s := e.known(cfg.Name); s != nil && s.opened() != nil {
		return s.opened(), nil
	}
	log, err := e.open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", cfg.Name, err)
	}
	return log, nil
}

// defaultWindow is how long an ID is remembered unless a log says otherwise.
const defaultWindow = 2 * time.Minute

// open opens a log that is not open, and makes it when there is none.
func (e *Engine) open(ctx context.Context, cfg eventlog.LogConfig) (*eventlog.Log, error) {
	var s *store
	created := false
	open := func(g *group, _ *op) error {
		if s = e.known(cfg.Name); s == nil {
			s, created = e.create(g, cfg), true
		}
		return s.open(g, cfg)
	}
	if e.marks == nil { // read-only: there is no writer
		e.opening.Lock()
		defer e.opening.Unlock()
		if s = e.known(cfg.Name); s == nil {
			return nil, eventlog.ErrNotFound
		}
		if err := s.open(nil, cfg); err != nil {
			return nil, err
		}
	} else {
		bounded, cancel := context.WithTimeout(ctx, e.cfg.CommitTimeout)
		defer cancel()
		err := e.submit(bounded, &op{do: open})
		if err == nil && created { // of a log with records but no mark nobody knows whether it is whole
			err = e.syncMark(bounded)
		}
		if err != nil {
			return nil, err
		}
	}
	s.publishLog()
	return s.opened(), nil
}

func (e *Engine) known(name string) *store {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stores[name]
}

// create makes a log. It is the writer's.
func (e *Engine) create(g *group, cfg eventlog.LogConfig) *store {
	s := &store{
		engine: e,
		name:   cfg.Name,
		entry:  logEntry{number: e.next, slot: e.marks.free(), epoch: newEpoch(), window: int64(max(cfg.DedupeWindow, minBucket))},
		next:   state{first: 1},
	}
	s.first.Store(1)
	e.next++
	must(g.batch.Set([]byte{keyNext}, s.entry.encode()[:4], nil))
	must(g.batch.Set(nameKey(s.name), s.entry.encode(), nil))
	g.of(s).touched = true
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stores[s.name] = s
	return s
}

// Remove implements eventlog.Engine. The mark says first that the log may be
// gone, or a crash in between would look like a loss.
func (e *Engine) Remove(ctx context.Context, name string) error {
	s := e.known(name)
	if s == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, e.cfg.CommitTimeout)
	defer cancel()
	s.removing.Store(true)
	flagged := &op{do: func(g *group, _ *op) error {
		g.of(s).touched = true
		return nil
	}}
	if err := e.submit(bounded, flagged); err != nil {
		return fmt.Errorf("remove log %s: %w", name, err)
	}
	err := e.syncMark(bounded)
	if err == nil {
		err = e.submit(bounded, &op{do: func(g *group, _ *op) error { return e.drop(g, s) }})
	}
	if err != nil {
		return fmt.Errorf("remove log %s: %w", name, err)
	}
	if l := s.opened(); l != nil {
		l.Close()
	}
	return nil
}

// syncMark makes the marks durable, or returns when ctx ends.
func (e *Engine) syncMark(ctx context.Context) error {
	_, err := read(ctx, e, func() (struct{}, error) { return struct{}{}, e.syncMarks() })
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: the mark is not on stable storage in time: %w", eventlog.ErrUnavailable, err)
	}
	return err
}

// drop removes a log. It is the writer's.
func (e *Engine) drop(g *group, s *store) error {
	if e.known(s.name) != s {
		return nil
	}
	must(g.batch.Delete(nameKey(s.name), nil))
	must(g.batch.Delete(logKey(keyState, s.entry.number), nil))
	for _, kind := range []byte{keyRecord, keyDeleted, keyLost, keyIdentity, keyIndex, keyRebuild} {
		must(g.batch.DeleteRange(logKey(kind, s.entry.number), logKey(kind, s.entry.number+1), nil))
	}
	s.gone.Store(true) // readers must know before the records are gone
	g.dropped = append(g.dropped, s)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.stores, s.name)
	return nil
}

// Logs implements eventlog.Engine.
func (e *Engine) Logs(context.Context) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.stores)), nil
}

// opened returns the stores of the logs that are open.
func (e *Engine) opened() []*store {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*store, 0, len(e.stores))
	for _, s := range e.stores {
		if s.log != nil {
			all = append(all, s)
		}
	}
	return all
}

// publishLog lets everybody use the log.
func (s *store) publishLog() {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	s.log = s.made
	if s.engine.closed {
		s.log.Close()
	}
}

// opened returns the log; nil until it is opened.
func (s *store) opened() *eventlog.Log {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	return s.log
}
