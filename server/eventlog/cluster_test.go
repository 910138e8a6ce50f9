package eventlog

import (
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
