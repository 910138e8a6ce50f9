package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sluicegate/sluice/server/eventlog"
)

// LeaseConfig says how to open Leases.
type LeaseConfig struct {
	// Bucket is where the leases are: upper-case letters, digits and
	// underscores.
	Bucket string

	// Value is what others see of a holder, such as its address. No spaces.
	Value string

	// TTL is how long a lease outlives its holder. 0 means 10 s.
	TTL time.Duration
}

const (
	defaultLeaseTTL = 10 * time.Second

	// leaseRetry is how long to wait before a storage is asked again that could
	// not be used, or a lease that should be free and is not.
	leaseRetry = 250 * time.Millisecond
)

// Leases are names in a cluster, each of which one gateway at a time
// holds. They are kept in memory there: that a lease is held is a good guess and
// no more, since clocks run as they please. What must not happen twice is to be
// fenced by AppendAt.
//
// Leases are safe for concurrent use.
type Leases struct {
	engine *Engine
	cfg    LeaseConfig
	owner  string // random: two processes at one address are two owners
	stop   context.CancelFunc
	runs   sync.WaitGroup

	mu      sync.Mutex
	kv      jetstream.KeyValue // nil until it is needed
	holders map[string]*holder // by name
}

// A holder is who was seen to hold a lease; owner is "" when it was free.
type holder struct {
	owner, value string
	revision     uint64
	seen         time.Time     // when, by the monotonic clock of this process
	changed      chan struct{} // closed, and replaced, when owner changes
}

// Leases opens the leases that cfg names.
func (e *Engine) Leases(ctx context.Context, cfg LeaseConfig) (*Leases, error) {
	if cfg.TTL == 0 {
		cfg.TTL = defaultLeaseTTL
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Leases{
		engine: e, cfg: cfg, owner: rand.Text(), stop: stop,
		holders: make(map[string]*holder),
	}
	err := e.usable()
	if err == nil {
		_, err = e.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: cfg.Bucket, TTL: cfg.TTL, Storage: jetstream.MemoryStorage, Replicas: e.cfg.Replicas,
		})
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("open leases %s: %w", cfg.Bucket, err)
	}
	l.runs.Go(func() { l.watch(background) })
	return l, nil
}

// Close ends the watch. Leases are released before it.
func (l *Leases) Close() {
	l.stop()
	l.runs.Wait()
}

// bucket returns the bucket.
func (l *Leases) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	if err := l.engine.usable(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	kv := l.kv
	l.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := l.engine.js.KeyValue(ctx, l.cfg.Bucket)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kv = kv
	return kv, nil
}

// watch keeps holders up to date until ctx ends.
func (l *Leases) watch(ctx context.Context) {
	for ctx.Err() == nil {
		kv, err := l.bucket(ctx)
		switch {
		case err == nil:
			l.watchOnce(ctx, kv)
		case errors.Is(err, eventlog.ErrClosed):
			return
		}
		select {
		case <-time.After(leaseRetry):
		case <-ctx.Done():
		}
	}
}

// watchOnce watches as long as it hears something. A holder is heard of three
// times in its TTL: after silence the watch may be of a server that is gone.
func (l *Leases) watchOnce(ctx context.Context, kv jetstream.KeyValue) {
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return
	}
	defer func() {
		_ = w.Stop() // of a connection that may be gone
		for range w.Updates() {
		} // or else what brings them waits for ever
	}()
	silence := time.NewTimer(l.cfg.TTL / 2)
	defer silence.Stop()
	for {
		select {
		case entry, ok := <-w.Updates():
			switch {
			case !ok:
				return
			case entry != nil: // nil says that what follows is new
				l.see(entry)
			}
			silence.Reset(l.cfg.TTL / 2)
		case <-silence.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// see takes over what the bucket says.
func (l *Leases) see(entry jetstream.KeyValueEntry) {
	var owner, value string
	if entry.Operation() == jetstream.KeyValuePut {
		owner, value, _ = strings.Cut(string(entry.Value()), " ")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.at(entry.Key())
	if h.revision == entry.Revision() {
		return // of another watch
	}
	h.value, h.revision, h.seen = value, entry.Revision(), time.Now()
	if h.owner != owner {
		h.owner = owner
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

// at returns what is known of a name. l.mu is held.
func (l *Leases) at(name string) *holder {
	h := l.holders[name]
	if h == nil {
		h = &holder{changed: make(chan struct{})}
		l.holders[name] = h
	}
	return h
}

// left returns for how long a lease is another's, as far as is known; 0 when it
// may be free. changed is closed when it is somebody else's.
func (l *Leases) left(name string) (left time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.at(name)
	if h.owner == "" {
		return 0, h.changed
	}
	return max(0, l.cfg.TTL-time.Since(h.seen)), h.changed
}

// Holder returns the value of who holds the lease of that name, and whether that
// is this process; "" when nobody is known to. It may be out of date.
func (l *Leases) Holder(name string) (value string, own bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.at(name)
	if time.Since(h.seen) >= l.cfg.TTL {
		return "", false
	}
	return h.value, h.owner == l.owner
}

// A Lease is held until it is lost or released.
type Lease struct {
	leases   *Leases
	name     string
	revision uint64
	lost     chan struct{} // closed by renew
	stop     context.CancelFunc

	mu    sync.Mutex
	until time.Time // by the monotonic clock
}

// Acquire waits until this process holds the lease of that name. The error is
// that of ctx.
func (l *Leases) Acquire(ctx context.Context, name string) (*Lease, error) {
	for {
		left, changed := l.left(name)
		if left == 0 {
			if lease := l.try(ctx, name); lease != nil {
				return lease, nil
			}
			left = leaseRetry
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// try returns the lease if it is free, else nil. One that it took without
// knowing runs out by itself.
func (l *Leases) try(ctx context.Context, name string) *Lease {
	kv, err := l.bucket(ctx)
	if err != nil {
		return nil
	}
	sent := time.Now()
	revision, err := kv.Create(ctx, name, []byte(l.owner+" "+l.cfg.Value))
	if err != nil {
		return nil
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	lease := &Lease{
		leases: l, name: name, revision: revision, stop: stop,
		lost: make(chan struct{}), until: sent.Add(l.cfg.TTL),
	}
	l.runs.Go(func() { lease.renew(background) })
	return lease
}

// Lost is closed when the lease may be another's: it could not be renewed for
// its TTL, or was taken, or released.
func (h *Lease) Lost() <-chan struct{} { return h.lost }

// Held says whether the lease is certain to be held, if all clocks run at the
// same speed.
func (h *Lease) Held() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.until)
}

// Release gives the lease up, so that another can have it at once. It waits as
// long as ctx lasts; the lease runs out when it cannot be told.
func (h *Lease) Release(ctx context.Context) {
	h.stop()
	<-h.lost
	kv, err := h.leases.bucket(ctx)
	if err != nil {
		return
	}
	err = kv.Delete(ctx, h.name, jetstream.LastRevision(h.revision))
	if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return
	}
	// It is another's, or was renewed by what stop interrupted.
	if entry, err := kv.Get(ctx, h.name); err == nil && string(entry.Value()) == h.value() {
		_ = kv.Delete(ctx, h.name, jetstream.LastRevision(entry.Revision()))
	}
}

// value is what the bucket holds for the lease.
func (h *Lease) value() string { return h.leases.owner + " " + h.leases.cfg.Value }

// renew renews the lease three times in its TTL, counted from before each
// renewal was sent: at the server it lasts longer.
func (h *Lease) renew(ctx context.Context) {
	defer close(h.lost)
	defer h.stop()
	every := h.leases.cfg.TTL / 3
	for next := every; ; {
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		sent := time.Now()
		limit, cancel := context.WithTimeout(ctx, min(every, time.Until(h.until)))
		err := h.extend(limit)
		cancel()
		switch {
		case err == nil:
			h.mu.Lock()
			h.until = sent.Add(h.leases.cfg.TTL)
			h.mu.Unlock()
			next = every
		case errors.Is(err, errTaken), !h.Held():
			return
		default:
			next = min(leaseRetry, time.Until(h.until))
		}
	}
}

// errTaken reports that a lease is another's.
var errTaken = errors.New("eventlog: the lease is another's")

// extend writes the lease anew. Of one whose outcome is unknown the next finds
// another revision, but the same owner.
func (h *Lease) extend(ctx context.Context) error {
	kv, err := h.leases.bucket(ctx)
	if err != nil {
		return err
	}
	revision, err := kv.Update(ctx, h.name, []byte(h.value()), h.revision)
	if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		entry, err := kv.Get(ctx, h.name)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			return errTaken // it ran out, or somebody removed it
		case err != nil:
			return err
		case string(entry.Value()) != h.value():
			return errTaken
		}
		revision = entry.Revision()
		// What was found may be this lease's of long ago, seen by a replica that
		// lags behind: only the next renewal extends it.
		h.revision = revision
		return errors.New("eventlog: the lease was renewed unseen")
	}
	if err != nil {
		return err
	}
	h.revision = revision
	return nil
}
