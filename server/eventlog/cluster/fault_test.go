package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// fillLog appends n records with the key "k" for one in 30, many at a time, and
// returns what is in them, by sequence.
func fillLog(t *testing.T, l *eventlog.Log, n, size int) map[uint64]string {
	t.Helper()
	var mu sync.Mutex
	held := make(map[uint64]string, n)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := w; i < n; i += 32 {
				r := eventlog.Record{Subject: "s", ID: fmt.Sprint(i), Data: fmt.Appendf(nil, "record %d %s", i, strings.Repeat("x", size))}
				if i%30 == 0 {
					r.Key = "k"
				}
				a, err := l.Append(t.Context(), r)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				held[a.Sequence] = string(r.Data)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return held
}

// flip flips a bit in the middle of the oldest block of a stream whose server is
// stopped, and has it recover the stream from its blocks.
func flip(t *testing.T, dir, stream string) {
	t.Helper()
	msgs := filepath.Join(dir, stream, "msgs")
	if err := os.Remove(filepath.Join(msgs, "index.db")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	blocks, err := filepath.Glob(filepath.Join(msgs, "*.blk"))
	if err != nil || len(blocks) < 2 {
		t.Fatalf("blocks: %v, %v, want some", blocks, err)
	}
	block := blocks[0]
	b, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(block, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedReplicaHidesNothing flips a bit in the store of a follower, and
// reads through it.
func TestDamagedReplicaHidesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	const records = 3000
	cfg := eventlog.LogConfig{MaxBytes: 30 << 20} // then a block is 4 MiB
	nats := natstest.Start(t)
	held := fillLog(t, openLog(t, openEngine(t, Config{URL: nats.URL}), cfg), records, 3000)
	follower := (nats.StreamLeader(t, "EVENTS") + 1) % 3
	nats.Stop(follower)
	flip(t, nats.Dir(follower), "EVENTS")
	nats.Run(t, follower)
	nats.WaitCurrent(t, follower, "EVENTS")

	said, logger := capture(t)
	e := openEngine(t, Config{URL: nats.NodeURL(follower), Logger: logger})
	l := openLog(t, e, cfg)
	// A server that has just started lets others answer at first.
	seen := 0
	for deadline := time.Now().Add(30 * time.Second); seen < 3 && time.Now().Before(deadline); {
		if testutil.ToFloat64(e.misses) > 0 {
			seen++
		}
		r := l.Read(1)
		for r.Position() < l.Durable() {
			before := r.Position()
			got, err := r.Next(t.Context(), 1000)
			if err != nil {
				t.Fatalf("Next() after %d = %v", before, err)
			}
			for i, rec := range got {
				if rec.Sequence != before+uint64(i)+1 || held[rec.Sequence] != string(rec.Data) {
					t.Fatalf("record %d after %d: %.30q, want %.30q", rec.Sequence, before+uint64(i), rec.Data, held[rec.Sequence])
				}
			}
		}
		if r.Position() != records {
			t.Fatalf("the log ends at %d", r.Position())
		}
	}
	if n := testutil.ToFloat64(e.misses); n == 0 {
		t.Error("no record was missing: the damage did nothing")
	} else {
		t.Logf("%v records were missing", n)
	}
	if text := said.String(); !strings.Contains(text, "a replica lacks records") || !strings.Contains(text, fmt.Sprint("n", follower)) {
		t.Errorf("no line names server n%d: %s", follower, text)
	}
	readKey := func() {
		t.Helper()
		for _, reverse := range []bool{false, true} {
			var got []eventlog.Record
			for from := uint64(0); len(got) < records/30; {
				part, err := l.ReadKey(t.Context(), "k", from, records, reverse)
				if err != nil || len(part) == 0 {
					t.Fatalf("ReadKey() = %d records, %v, after %d of %d", len(part), err, len(got), records/30)
				}
				got = append(got, part...)
				if from = part[len(part)-1].Sequence + 1; reverse {
					from -= 2
				}
			}
			for _, r := range got {
				if held[r.Sequence] != string(r.Data) {
					t.Errorf("record %d: %.30q", r.Sequence, r.Data)
				}
			}
		}
	}
	before := testutil.ToFloat64(e.misses)
	until(t, func() bool { // what is new may be missing for a while
		readKey()
		return testutil.ToFloat64(e.misses) > before
	})

	// As the leader the damaged server says that the records were deleted.
	var answer outcome
	request := map[string]any{"placement": map[string]string{"preferred": fmt.Sprint("n", follower)}}
	if err := e.read.ask(t.Context(), "$JS.API.STREAM.LEADER.STEPDOWN.EVENTS", request, &answer); err != nil || answer.Error != nil {
		t.Fatalf("move the leader: %v, %+v", err, answer.Error)
	}
	until(t, func() bool { return nats.StreamLeader(t, "EVENTS") == follower })
	readKey()
	read := 0
	until(t, func() bool { // any replica answers, now and then the damaged one
		read = 0
		err := l.Scan(t.Context(), 1, records, func(eventlog.Record) error { read++; return nil })
		if err != nil && !errors.Is(err, eventlog.ErrUnavailable) || err == nil && read != records {
			t.Fatalf("Scan() with a damaged leader = %v, after %d of %d records", err, read, records)
		}
		return strings.Contains(said.String(), "the stream's leader lacks records")
	})
}

// TestMinorityAnswers stops two of three servers: every call ends with its
// context, and says that the storage is not available.
func TestMinorityAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	nats := natstest.Start(t)
	e := openEngine(t, Config{URL: nats.URL, CommitTimeout: 2 * time.Second, Logger: testLogger(t)})
	l := openLog(t, e, eventlog.LogConfig{Deletes: true})
	for i := range 10 {
		mustAppend(t, l, "", fmt.Sprint(i))
	}
	if s := l.State(); s.Last != 10 || s.Count != 10 || s.First != 1 {
		t.Errorf("State() = %+v", s)
	}
	nats.Stop(0)
	nats.Stop(1)
	waits := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := l.Read(11).Next(ctx, 1)
		waits <- err
	}()
	for name, call := range map[string]func(context.Context) error{
		"Append": func(ctx context.Context) error { _, err := l.Append(ctx, eventlog.Record{Subject: "s"}); return err },
		"Append ID": func(ctx context.Context) error {
			_, err := l.Append(ctx, eventlog.Record{Subject: "s", ID: "i"})
			return err
		},
		"AppendAt":   func(ctx context.Context) error { return l.AppendAt(ctx, 11, eventlog.Record{Subject: "s"}) },
		"SequenceAt": func(ctx context.Context) error { _, err := l.SequenceAt(ctx, time.Now()); return err },
		"ReadKey":    func(ctx context.Context) error { _, err := l.ReadKey(ctx, "k", 0, 10, true); return err },
		"Delete":     func(ctx context.Context) error { return l.Delete(ctx, 1) },
		"Trim":       func(ctx context.Context) error { return l.Trim(ctx, 3) },
		"End":        func(ctx context.Context) error { _, err := l.End(ctx); return err },
	} {
		began := time.Now()
		err := call(t.Context())
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("%s() took %v", name, took)
		}
		// A leader takes some seconds to notice that it has no majority.
		if errors.Is(err, eventlog.ErrConflict) && name == "AppendAt" {
			continue // with an append that the leader has not given up
		}
		if !errors.Is(err, eventlog.ErrUnavailable) && (err != nil || name[0] == 'A' || name[0] == 'D' || name[0] == 'T') {
			t.Errorf("%s() = %v, want ErrUnavailable", name, err)
		}
		brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began = time.Now()
		if err := call(brief); err == nil && name[0] == 'A' {
			t.Errorf("%s() succeeded without a majority", name)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s() took %v, its context 100 ms", name, took)
		}
		cancel()
	}
	until(t, func() bool { return errors.Is(e.Err(), eventlog.ErrUnavailable) })
	if s := l.State(); s.Last != 10 {
		t.Errorf("State() = %+v", s)
	}
	cancel()
	if err := <-waits; !errors.Is(err, context.Canceled) {
		t.Errorf("Next() = %v, want the context's error", err)
	}
	nats.Run(t, 0)
	nats.Run(t, 1)
	until(t, func() bool { return e.Err() == nil })
	until(t, func() bool {
		_, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "after"})
		return err == nil
	})
}

// TestCutConnection cuts the network between gateway and cluster: nothing waits
// for it, and all is well when it heals.
func TestCutConnection(t *testing.T) {
	nats := natstest.StartOne(t, nil)
	link := nats.Link(t)
	e := openEngine(t, Config{URL: link.URL, Replicas: 1, CommitTimeout: time.Second, Logger: testLogger(t)})
	l := openLog(t, e, eventlog.LogConfig{})
	mustAppend(t, l, "a", "a")
	link.Cut()
	until(t, func() bool { return errors.Is(e.Err(), eventlog.ErrUnavailable) })
	began := time.Now()
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s"}); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Append() = %v, want ErrUnavailable", err)
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("an append that cannot be repeated failed after %v", took)
	}
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for {
			if _, err := l.Append(ctx, eventlog.Record{Subject: "s", ID: "b", Data: []byte("b")}); err == nil || ctx.Err() != nil {
				got <- err
				return
			}
		}
	}()
	link.Heal()
	if err := <-got; err != nil {
		t.Errorf("Append() = %v", err)
	}
	wantData(t, take(t, l.Read(1), 2), "a", "b")
	until(t, func() bool { return e.Err() == nil })
}

// TestStalledConnection lets nothing through between gateway and cluster, while
// more is appended than fits into the buffers on the way: every call ends with
// its context, and health says what is wrong.
func TestStalledConnection(t *testing.T) {
	nats := natstest.StartOne(t, nil)
	link := nats.Link(t)
	e := openEngine(t, Config{URL: link.URL, Replicas: 1, CommitTimeout: time.Second, Logger: testLogger(t)})
	l := openLog(t, e, eventlog.LogConfig{})
	mustAppend(t, l, "a", "a")
	l.Forget()
	link.Stall()
	flows := sync.OnceFunc(link.Flow)
	defer flows()
	var wg sync.WaitGroup
	within := func(name string, limit time.Duration, call func(context.Context) error) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			began := time.Now()
			err := call(ctx)
			if took := time.Since(began); err == nil || took > limit {
				t.Errorf("%s() = %v, after %v", name, err, took)
			}
		})
	}
	for range 64 {
		within("Append", 2*time.Second, func(ctx context.Context) error {
			_, err := l.Append(ctx, eventlog.Record{Subject: "s", Data: make([]byte, 512<<10)})
			return err
		})
	}
	within("Get", 3*time.Second, func(ctx context.Context) error { _, err := l.Get(ctx, 1); return err })
	within("End", 3*time.Second, func(ctx context.Context) error { _, err := l.End(ctx); return err })
	until(t, func() bool {
		began := time.Now()
		err := e.Err()
		l.State()
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Fatalf("Err() took %v", took)
		}
		return errors.Is(err, eventlog.ErrUnavailable)
	})
	wg.Wait()
	flows()
	until(t, func() bool {
		_, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "b", Data: []byte("b")})
		return err == nil
	})
	until(t, func() bool { return e.Err() == nil })
}

// TestPurgedRecordStaysPurged trims a log so that only deleted records are left,
// after which nats-server 2.15.2 brought a purged one back when it was read.
func TestPurgedRecordStaysPurged(t *testing.T) {
	nats := natstest.StartOne(t, nil)
	e := openEngine(t, Config{URL: nats.URL, Replicas: 1})
	l := openLog(t, e, eventlog.LogConfig{Deletes: true})
	add := func() {
		t.Helper()
		if _, err := l.Append(t.Context(), eventlog.Record{Subject: "a.b", Key: "l", Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		add()
	}
	if err := errors.Join(l.Trim(t.Context(), 6), l.Delete(t.Context(), 7), l.Delete(t.Context(), 8), l.Trim(t.Context(), 8)); err != nil {
		t.Fatal(err)
	}
	if end := endOf(t, l); end != 8 || l.State().First != 9 {
		t.Errorf("State() = %+v, the end %d, want nothing up to 8", l.State(), end)
	}
	add()
	for range 3 {
		got, err := l.ReadKey(t.Context(), "l", 0, 10, false)
		if err != nil || len(got) != 1 || got[0].Sequence != 9 {
			t.Errorf("ReadKey() = %v, %v, want record 9", got, err)
		}
		if end := endOf(t, l); end != 9 || l.State().First != 9 || l.State().Count != 1 {
			t.Errorf("State() = %+v, want record 9", l.State())
		}
	}
}
