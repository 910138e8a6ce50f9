package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// testLeases lets two gateways hold a lease in turn: released, and lost by the
// one that cannot reach the cluster any more.
func testLeases(t *testing.T, one, two *Engine, link *natstest.Link) {
	const ttl = 2 * time.Second
	open := func(e *Engine, value string) *Leases {
		l, err := e.Leases(t.Context(), LeaseConfig{Bucket: "L", Value: value, TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	a, b := open(one, "a"), open(two, "b")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	acquire := func(l *Leases) *Lease {
		t.Helper()
		lease, err := l.Acquire(ctx, "n")
		if err != nil {
			t.Fatalf("Acquire() = %v", err)
		}
		return lease
	}
	held := acquire(a)
	until(t, func() bool {
		value, own := b.Holder("n")
		return value == "a" && !own
	})
	deafen(t, one, "KV_L") // as when the server dies that they live on
	began := time.Now()
	brief, cancelBrief := context.WithTimeout(ctx, 2*ttl)
	defer cancelBrief()
	if _, err := b.Acquire(brief, "n"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Acquire() of a lease that is another's = %v, want DEADLINE_EXCEEDED", err)
	}
	if !held.Held() {
		t.Fatal("the lease was not renewed")
	}
	until(t, func() bool {
		value, _ := b.Holder("n")
		return value == "a"
	})
	if took := time.Since(began); took > 4*ttl {
		t.Errorf("a watch that was broken was made anew after %v", took)
	}

	kv, err := a.bucket(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, "n", []byte(held.value())); err != nil { // a renewal that Release interrupts
		t.Fatal(err)
	}
	held.Release(ctx)
	if _, err := kv.Get(ctx, "n"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("a lease that was released is still there: %v", err)
	}
	held = acquire(b)

	link.Cut()
	next := acquire(a)
	if held.Held() {
		t.Error("two gateways held the lease at one time")
	}
	select {
	case <-held.Lost():
	case <-ctx.Done():
		t.Error("a gateway that cannot renew its lease did not notice")
	}
	link.Heal()
	until(t, func() bool {
		value, own := b.Holder("n")
		return value == "a" && !own
	})
	next.Release(ctx)
	acquire(b).Release(ctx)
}

// deafen removes what watches the stream of that name.
func deafen(t *testing.T, e *Engine, name string) {
	t.Helper()
	stream, err := e.js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	names := stream.ConsumerNames(t.Context())
	removed := 0
	for name := range names.Name() {
		if err := stream.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		removed++
	}
	if err := names.Err(); err != nil || removed == 0 {
		t.Fatalf("removed %d watches, %v", removed, err)
	}
}
