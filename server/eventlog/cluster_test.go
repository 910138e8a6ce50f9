package eventlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// TestTwoGatewaysOfOneCluster appends through two engines: they share the
// order, the duplicates and the end of the log, and go on when a node dies.
func TestTwoGatewaysOfOneCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	cluster := natstest.Start(t)
	cfg := LogConfig{DedupeWindow: time.Hour}
	one := openLog(t, openEngine(t, Config{URL: cluster.URL, Logger: testLogger(t), CommitTimeout: time.Minute}), cfg)
	two := openLog(t, openEngine(t, Config{URL: cluster.URL, Logger: testLogger(t), CommitTimeout: time.Minute}), cfg)
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

	cluster.KillLeader(t)
	mustAppend(t, one, "c", "c")
	mustAppend(t, two, "d", "d")
	wantData(t, take(t, one.Read(1), 4), "a", "b", "c", "d")
	wantData(t, take(t, r, 3), "b", "c", "d")
}

// TestReaderOfAnotherGatewayMissesNothing follows the log through one gateway
// while another appends: the replicas that answer the reader are now and then
// behind what it was told is there.
func TestReaderOfAnotherGatewayMissesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	const records = 3000
	cluster := natstest.Start(t)
	writer := openLog(t, openEngine(t, Config{URL: cluster.URL}), LogConfig{})
	reader := openLog(t, openEngine(t, Config{URL: cluster.URL}), LogConfig{}).Read(1)
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
