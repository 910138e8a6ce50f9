package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	// epochKey is the stream's metadata under which its epoch stands.
	epochKey = "sluice-epoch"

	defaultWindow = 2 * time.Minute

	// maxWindow bounds the time for which IDs are remembered. JetStream keeps
	// them in the memory of every replica, at about 200 bytes each: 100 records a
	// second take 150 MB in two hours, and would take 1.7 GB in a day. A vendor
	// repeats most of what it repeats within minutes.
	maxWindow = 2 * time.Hour
)

// Log implements eventlog.Engine.
func (e *Engine) Log(ctx context.Context, cfg eventlog.LogConfig) (*eventlog.Log, error) {
	if err := e.usable(); err != nil {
		return nil, err
	}
	if l := e.opened(cfg.Name); l != nil {
		return l, nil
	}
	bounded, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s := &store{engine: e, cfg: cfg, epoch: newEpoch()}
	err := s.open(bounded)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, e.cause(fmt.Errorf("%w: open log %s: %w", eventlog.ErrUnavailable, cfg.Name, err))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if other := e.stores[cfg.Name]; other != nil {
		s.close()
		return other.log, nil
	}
	if e.closed.Load() {
		s.close()
		return nil, eventlog.ErrClosed
	}
	e.stores[cfg.Name] = s
	e.list()
	return s.log, nil
}

// opened returns the log of that name if it is open.
func (e *Engine) opened(name string) *eventlog.Log {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.stores[name]; s != nil {
		return s.log
	}
	return nil
}

// open finds or makes the stream.
func (s *store) open(ctx context.Context) error {
	js := s.engine.js
	stream, err := js.Stream(ctx, s.cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, s.config())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another gateway was faster
			stream, err = js.Stream(ctx, s.cfg.Name)
		}
	}
	if err != nil {
		return fmt.Errorf("find or create the stream: %w", err)
	}
	if window := s.window(); window < s.cfg.DedupeWindow {
		s.engine.logger.Warn("IDs are remembered for less time than dedupe_window says: a cluster keeps them in memory, and no longer than the records",
			"log", s.cfg.Name, "dedupe_window", s.cfg.DedupeWindow, "remembered", window)
	}
	s.epoch = cmp.Or(stream.CachedInfo().Config.Metadata[epochKey], s.epoch)
	if _, err = js.UpdateStream(ctx, s.config()); err != nil {
		return fmt.Errorf("update the stream: %w", err)
	}
	info, err := s.info(ctx, infoRequest{})
	if err != nil {
		return err
	}
	s.log = eventlog.NewLog(s.cfg, s.epoch, info.State.Last, s, eventlog.Options{
		CommitTimeout: s.engine.cfg.CommitTimeout, MaxRecord: s.engine.cfg.MaxRecord,
		Metrics: s.engine.metrics, Logger: s.engine.logger,
	})
	if s.cfg.Exclusive {
		return nil
	}
	if err := s.follow(); err != nil {
		return err
	}
	_, err = s.refresh(ctx) // what came between the look at the stream and the subscription
	return err
}

// config returns the stream's configuration.
func (s *store) config() jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:        s.cfg.Name,
		Subjects:    []string{s.cfg.Name + ".>"},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		MaxAge:      s.cfg.MaxAge,
		MaxBytes:    -1,
		Duplicates:  s.window(),
		AllowDirect: true,
		Replicas:    s.engine.cfg.Replicas,
		Metadata:    map[string]string{epochKey: s.epoch},
	}
	if s.cfg.MaxBytes > 0 {
		cfg.MaxBytes = s.cfg.MaxBytes
	}
	if s.cfg.DropOldest {
		cfg.Discard = jetstream.DiscardOld
	}
	return cfg
}

// window returns for how long IDs are remembered: JetStream remembers none for
// longer than it keeps the records.
func (s *store) window() time.Duration {
	window := min(cmp.Or(s.cfg.DedupeWindow, defaultWindow), maxWindow)
	if s.cfg.MaxAge > 0 {
		window = min(window, s.cfg.MaxAge)
	}
	return window
}

func newEpoch() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
