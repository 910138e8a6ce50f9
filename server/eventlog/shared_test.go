package eventlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// endOf returns where a log ends, by what the storage says.
func endOf(t *testing.T, l *Log) uint64 {
	t.Helper()
	end, err := l.End(t.Context())
	if err != nil {
		t.Fatalf("End() = %v", err)
	}
	return end
}

// TestAppendAt holds that of many appends to one place in a log one is made, and
// that the others are told.
func TestAppendAt(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir()})
	l := openLog(t, e, LogConfig{})
	raceForPlaces(t, l, l)
}

// raceForPlaces has two appenders want the same places of an empty log.
func raceForPlaces(t *testing.T, logs ...*Log) {
	t.Helper()
	const places = 20
	var racers sync.WaitGroup
	won := make([]map[uint64]string, len(logs))
	for i, l := range logs {
		won[i] = map[uint64]string{}
		racers.Go(func() {
			for at := uint64(1); at <= places; at++ {
				data := fmt.Sprintf("%d of %d", at, i)
				switch err := l.AppendAt(t.Context(), at, Record{Subject: "s", Data: []byte(data)}); {
				case err == nil:
					won[i][at] = data
				case !errors.Is(err, ErrConflict):
					t.Errorf("AppendAt(%d) = %v, want nil or ErrConflict", at, err)
				}
			}
		})
	}
	racers.Wait()
	for _, l := range logs {
		if end := endOf(t, l); end != places {
			t.Fatalf("the log ends at %d, want %d", end, places)
		}
		for at, data := range take(t, l.Read(1), places) {
			if a, b := won[0][uint64(at)+1], won[1][uint64(at)+1]; data != a+b {
				t.Errorf("record %d is %q; its appenders were told %q and %q", at+1, data, a, b)
			}
		}
	}
}

// TestEndAfterAFailedSync holds that a log from which a record was rolled back
// says where it ends, so that a conditional append finds its place.
func TestEndAfterAFailedSync(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir()})
	l := openLog(t, e, LogConfig{})
	mustAppend(t, l, "", "a")
	n := runningNode(t, e)
	n.commits.sync = func([]write) error { return errors.New("injected") }
	if err := l.AppendAt(t.Context(), 2, Record{Subject: "s", Data: []byte("lost")}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("AppendAt() = %v, want ErrUnavailable", err)
	}
	until(t, func() bool { // while the storage comes back, the end is not known
		_, err := l.End(t.Context())
		return err == nil
	})
	if end := endOf(t, l); end != 2 || l.Durable() != 1 {
		t.Errorf("the log ends at %d, durable up to %d, want 2, which is used up, and 1", end, l.Durable())
	}
	if err := l.AppendAt(t.Context(), 3, Record{Subject: "s", Data: []byte("b")}); err != nil {
		t.Fatalf("AppendAt() = %v", err)
	}
	wantData(t, take(t, l.Read(1), 2), "a", "b")
}

// TestSharedLog holds that gateways of one cluster do not overwrite each other,
// and see the end of a log at once, also of one that they do not follow.
func TestSharedLog(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	cluster := natstest.Start(t)
	link := cluster.Link(t)
	one := openEngine(t, Config{URL: cluster.URL, Logger: testLogger(t), CommitTimeout: time.Minute})
	two := openEngine(t, Config{URL: link.URL, Logger: testLogger(t), CommitTimeout: 300 * time.Millisecond})

	t.Run("places", func(t *testing.T) {
		raceForPlaces(t, openLog(t, one, LogConfig{Name: "RACE"}), openLog(t, two, LogConfig{Name: "RACE"}))
	})
	t.Run("end", func(t *testing.T) {
		cfg := LogConfig{Name: "END", Exclusive: true}
		a, b := openLog(t, one, cfg), openLog(t, two, cfg)
		for range 200 { // any replica answers a read, the last one too
			mustAppend(t, a, "", "x")
			end := endOf(t, b)
			if end != endOf(t, a) || b.Durable() != end {
				t.Fatalf("the log ends at %d, and at %d for the other gateway, which reads up to %d", endOf(t, a), end, b.Durable())
			}
			if _, err := b.Get(t.Context(), end); err != nil {
				t.Fatalf("Get(%d) = %v, want what was just stored", end, err)
			}
			wantData(t, take(t, b.Read(end), 1), "x")
		}
	})
	t.Run("leases", func(t *testing.T) { testLeases(t, one, two, link) })
}

// testLeases lets two gateways hold a lease in turn: released, and lost by the
// one that cannot reach the cluster any more.
func testLeases(t *testing.T, one, two *Engine, link *natstest.Link) {
	const ttl = time.Second
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

	held.Release(ctx)
	released := time.Now()
	held = acquire(b)
	if took := time.Since(released); took >= ttl {
		t.Errorf("a lease that was released was free after %v", took)
	}

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
	stream, err := runningNode(t, e).js.Stream(t.Context(), name)
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

// until waits for a condition.
func until(t *testing.T, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !met(); {
		if time.Now().After(deadline) {
			t.Fatal("the condition was not met in time")
		}
		<-time.After(time.Millisecond)
	}
}
