package cluster

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// TestTwoGatewaysOfOneCluster appends through two engines: they share the
// order, the duplicates and the end of the log, and go on when a node stops.
func TestTwoGatewaysOfOneCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	nats := natstest.Start(t)
	cfg := eventlog.LogConfig{DedupeWindow: time.Hour}
	one := openLog(t, openEngine(t, Config{URL: nats.URL, Logger: testLogger(t), CommitTimeout: time.Minute}), cfg)
	two := openLog(t, openEngine(t, Config{URL: nats.URL, Logger: testLogger(t), CommitTimeout: time.Minute}), cfg)
	if one.Epoch() != two.Epoch() {
		t.Errorf("epochs %s and %s of one log", one.Epoch(), two.Epoch())
	}
	r := two.Read(1)
	if a := mustAppend(t, one, "a", "a"); a.Sequence != 1 {
		t.Fatalf("Append = %+v", a)
	}
	wantData(t, take(t, r, 1), "a")
	if a := mustAppend(t, two, "a", "again"); !a.Duplicate || a.Sequence != 1 {
		t.Errorf("Append through the other gateway = %+v, want a duplicate of 1", a)
	}
	mustAppend(t, two, "b", "b")
	wantData(t, take(t, one.Read(1), 2), "a", "b")

	nats.KillLeader(t)
	nats.StreamLeader(t, "EVENTS")
	mustAppend(t, one, "c", "c")
	mustAppend(t, two, "d", "d")
	wantData(t, take(t, one.Read(1), 4), "a", "b", "c", "d")
	wantData(t, take(t, r, 3), "b", "c", "d")

	began := time.Now()
	nats.Stop(nats.StreamLeader(t, "EVENTS")) // of two, so that no majority is left
	brief := openEngine(t, Config{URL: nats.URL, CommitTimeout: 500 * time.Millisecond, AcceptUnsynced: true})
	if _, err := brief.Log(t.Context(), eventlog.LogConfig{Name: "NEW"}); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Log() without a majority = %v, want ErrUnavailable", err)
	}
	if took := time.Since(began); took > 2*openTimeout {
		t.Errorf("a log that cannot be opened took %v", took)
	}
}

// TestGatewaysCreateALogAtOnce holds that one wins, and that all have its epoch.
func TestGatewaysCreateALogAtOnce(t *testing.T) {
	nats := natstest.StartOne(t, nil)
	const gateways = 5
	epochs := make([]string, gateways)
	var wg sync.WaitGroup
	for i := range gateways {
		e := openEngine(t, Config{URL: nats.URL, Replicas: 1})
		wg.Go(func() {
			l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "NEW", MaxAge: time.Hour})
			if err != nil {
				t.Error(err)
				return
			}
			epochs[i] = l.Epoch()
		})
	}
	wg.Wait()
	for _, epoch := range epochs {
		if epoch != epochs[0] || len(epoch) != 16 {
			t.Errorf("epochs %q of one log", epochs)
		}
	}
}

// TestReaderOfAnotherGatewayMissesNothing follows the log through one gateway
// while another appends: the replicas that answer the reader are now and then
// behind what it was told is there.
func TestReaderOfAnotherGatewayMissesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	const records = 3000
	nats := natstest.Start(t)
	writer := openLog(t, openEngine(t, Config{URL: nats.URL}), eventlog.LogConfig{})
	reader := openLog(t, openEngine(t, Config{URL: nats.URL}), eventlog.LogConfig{}).Read(1)
	missed := make(chan []uint64)
	go func() {
		var none []uint64
		for last := uint64(0); last < records; last = reader.Position() {
			got, err := reader.Next(t.Context(), maxFetch)
			if err != nil {
				t.Error(err)
				break
			}
			for _, r := range got {
				for last++; last < r.Sequence; last++ {
					none = append(none, last)
				}
			}
			for ; last < reader.Position(); last++ {
				none = append(none, last+1)
			}
		}
		missed <- none
	}()
	for i := range records {
		mustAppend(t, writer, fmt.Sprint(i), "data")
	}
	if none := <-missed; len(none) > 0 {
		t.Errorf("the reader never saw %d of %d records: %d", len(none), records, none)
	}
}

// endOf returns where a log ends, by what the storage says.
func endOf(t *testing.T, l *eventlog.Log) uint64 {
	t.Helper()
	end, err := l.End(t.Context())
	if err != nil {
		t.Fatalf("End() = %v", err)
	}
	return end
}

// raceForPlaces has two appenders want the same places of an empty log.
func raceForPlaces(t *testing.T, logs ...*eventlog.Log) {
	t.Helper()
	const places = 20
	var racers sync.WaitGroup
	won := make([]map[uint64]string, len(logs))
	for i, l := range logs {
		won[i] = map[uint64]string{}
		racers.Go(func() {
			for at := uint64(1); at <= places; at++ {
				data := fmt.Sprintf("%d of %d", at, i)
				switch err := l.AppendAt(t.Context(), at, eventlog.Record{Subject: "s", Data: []byte(data)}); {
				case err == nil:
					won[i][at] = data
				case !errors.Is(err, eventlog.ErrConflict):
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

// TestSharedLog holds that gateways of one cluster do not overwrite each other,
// and see the end of a log at once, also of one that they do not follow.
func TestSharedLog(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	nats := natstest.Start(t)
	link := nats.Link(t)
	one := openEngine(t, Config{URL: nats.URL, Logger: testLogger(t), CommitTimeout: time.Minute})
	two := openEngine(t, Config{URL: link.URL, Logger: testLogger(t), CommitTimeout: time.Second})

	t.Run("places", func(t *testing.T) {
		cfg := eventlog.LogConfig{Name: "RACE"}
		raceForPlaces(t, openLog(t, one, cfg), openLog(t, two, cfg))
	})
	t.Run("end", func(t *testing.T) {
		cfg := eventlog.LogConfig{Name: "END", Exclusive: true}
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
	t.Run("deletes", func(t *testing.T) {
		cfg := eventlog.LogConfig{Name: "DELETES", Deletes: true}
		a, b := openLog(t, one, cfg), openLog(t, two, cfg)
		for i := range 10 {
			mustAppend(t, a, "", fmt.Sprint(i))
		}
		wantData(t, take(t, a.Read(1), 1), "0")
		endOf(t, b)
		if err := b.Delete(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		// What the first gateway appended itself it must not have in memory.
		if _, err := a.Get(t.Context(), 1); !errors.Is(err, eventlog.ErrNotFound) {
			t.Errorf("Get(1) of what another gateway deleted = %v, want ErrNotFound", err)
		}
	})
	t.Run("untold", func(t *testing.T) {
		cfg := eventlog.LogConfig{Name: "UNTOLD"}
		a, b := openLog(t, one, cfg), openLog(t, two, cfg)
		s := two.stores["UNTOLD"]
		if err := s.heard.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, a, "", "x")
		wantData(t, take(t, b.Read(1), 1), "x")
	})
	t.Run("leases", func(t *testing.T) { testLeases(t, one, two, link) })
}
