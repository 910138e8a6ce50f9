package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// A loader appends all the time, as a vendor does that repeats what fails.
type loader struct {
	last, gap atomic.Int64 // when an append succeeded last; the longest time without one, in ns
	resumed   atomic.Int64 // when that ended
	stored    sync.Map     // ID to sequence
	runs      sync.WaitGroup
	stop      context.CancelFunc
}

func load(t *testing.T, l *eventlog.Log) *loader {
	ctx, stop := context.WithCancel(t.Context())
	w := &loader{stop: stop}
	w.last.Store(time.Now().UnixNano())
	for i := range 8 {
		w.runs.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprint(i, "-", n)
				for ctx.Err() == nil {
					a, err := l.Append(ctx, eventlog.Record{Subject: "s", ID: id, Data: []byte(id)})
					if err == nil {
						w.stored.Store(id, a.Sequence)
						w.mark()
						break
					}
					if !errors.Is(err, eventlog.ErrUnavailable) && ctx.Err() == nil {
						t.Errorf("Append() = %v, want ErrUnavailable", err)
					}
				}
			}
		})
	}
	return w
}

// mark takes down that an append succeeded.
func (w *loader) mark() {
	now := time.Now().UnixNano()
	gap := now - w.last.Swap(now)
	for old := w.gap.Load(); gap > old; old = w.gap.Load() {
		if gap > int64(time.Second) {
			w.resumed.Store(now)
		}
		if w.gap.CompareAndSwap(old, gap) {
			return
		}
	}
}

// outage returns the longest time without an append since the call before.
func (w *loader) outage() time.Duration { return time.Duration(w.gap.Swap(0)) }

// check ends the load, and holds what was acknowledged against the log.
func (w *loader) check(t *testing.T, l *eventlog.Log) {
	t.Helper()
	w.stop()
	w.runs.Wait()
	until(t, func() bool { _, err := l.End(t.Context()); return err == nil })
	found := map[string]uint64{}
	l.Forget()
	err := l.Scan(t.Context(), 1, l.Durable(), func(r eventlog.Record) error {
		if at, twice := found[string(r.Data)]; twice {
			t.Errorf("%s is at %d and at %d", r.Data, at, r.Sequence)
		}
		found[string(r.Data)] = r.Sequence
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	w.stored.Range(func(id, sequence any) bool {
		n++
		if found[id.(string)] != sequence {
			t.Errorf("%s was acknowledged at %d, and is at %d", id, sequence, found[id.(string)])
		}
		return true
	})
	t.Logf("%d appends were acknowledged", n)
}

// TestLeaderStops measures for how long appends fail when the stream's leader is
// stopped as operators do: it hands over first.
func TestLeaderStops(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	nats := natstest.Start(t)
	l := openLog(t, openEngine(t, Config{URL: nats.URL, Logger: testLogger(t)}), eventlog.LogConfig{DedupeWindow: time.Hour})
	w := load(t, l)
	for range 3 {
		i := nats.StreamLeader(t, "EVENTS")
		nats.Stop(i)
		nats.StreamLeader(t, "EVENTS")
		before := w.last.Load()
		until(t, func() bool { return w.last.Load() > before })
		outage := w.outage()
		t.Logf("server n%d stopped: no append for %v", i, outage.Round(time.Millisecond))
		if outage > 5*time.Second {
			t.Errorf("the stop of the leader cost %v", outage)
		}
		nats.Run(t, i)
		nats.WaitCurrent(t, i, "EVENTS")
	}
	w.check(t, l)
}

// TestLeaderDies measures the same for a leader that is killed, or hangs. Then
// the others wait for 4 to 9 s, which is fixed in the server, before they elect
// one: what the gateway adds to that is bounded here.
func TestLeaderDies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	const own = 2 * time.Second
	nats := natstest.StartProcesses(t)
	e := openEngine(t, Config{URL: nats.URL, Logger: testLogger(t)})
	l := openLog(t, e, eventlog.LogConfig{DedupeWindow: time.Hour})
	w := load(t, l)
	for _, how := range []string{"killed", "hung", "killed"} {
		i := leaderOf(t, e)
		before := w.last.Load()
		w.outage()
		if how == "killed" {
			nats.Kill(i)
		} else {
			nats.Pause(t, i)
		}
		until(t, func() bool { return w.outage() > time.Second })
		again := time.Unix(0, w.resumed.Load())
		var info struct {
			Cluster struct {
				Since time.Time `json:"leader_since"`
			} `json:"cluster"`
		}
		if err := e.read.ask(t.Context(), "$JS.API.STREAM.INFO.EVENTS", infoRequest{}, &info); err != nil {
			t.Fatal(err)
		}
		added := again.Sub(info.Cluster.Since)
		t.Logf("server n%d %s: no append for %v, until %v after the election", i, how,
			again.Sub(time.Unix(0, before)).Round(10*time.Millisecond), added.Round(10*time.Millisecond))
		if added > own {
			t.Errorf("appends succeeded %v after a leader was elected", added)
		}
		if how == "killed" {
			nats.Run(t, i)
		} else {
			nats.Resume(t, i)
		}
		until(t, func() bool {
			info, err := e.stores["EVENTS"].info(t.Context(), infoRequest{})
			return err == nil && len(info.Cluster.Replicas) == 2 && !strings.Contains(info.describe(), "(")
		})
	}
	w.check(t, l)
}

// leaderOf returns which server leads the stream EVENTS.
func leaderOf(t *testing.T, e *Engine) int {
	t.Helper()
	info, err := e.stores["EVENTS"].info(t.Context(), infoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Cluster.Leader[1] - '0')
}
