package eventlog_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A counting store counts the reads of it.
type counting struct {
	eventlog.Store
	fetched int
}

func (c *counting) Fetch(_ context.Context, from, _ uint64, _ int) ([]eventlog.Record, uint64, error) {
	c.fetched++
	return []eventlog.Record{{Sequence: from, Subject: "s"}}, from, nil
}

// TestTail holds that the newest records are in memory where readers follow a
// log, and not of a log that is read at the start only: there is one for each
// consumer group.
func TestTail(t *testing.T) {
	metrics, err := eventlog.NewMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	for exclusive, want := range map[bool]int{false: 0, true: 1} {
		store := &counting{}
		l := eventlog.NewLog(eventlog.LogConfig{Name: "L", Exclusive: exclusive}, "", 0, store,
			eventlog.Options{Metrics: metrics, Logger: slog.New(slog.DiscardHandler)})
		l.Advance([]eventlog.Record{{Sequence: 1, Subject: "s"}}, 1)
		if r, err := l.Get(t.Context(), 1); err != nil || r.Sequence != 1 || store.fetched != want {
			t.Errorf("exclusive %v: Get() = %v, %v, with %d reads of the storage, want %d", exclusive, r, err, store.fetched, want)
		}
	}
}
