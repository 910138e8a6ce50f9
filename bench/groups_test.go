package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A verdict that took no effect must end the run: it would pass for throughput.
func TestCrewCountsOnlyWhatIsSettled(t *testing.T) {
	c := &crew{group: "g"}
	done := &sluicev1.SettlementResult{Outcome: sluicev1.Outcome_OUTCOME_DONE}
	if err := c.count([]*sluicev1.SettlementResult{done, done}); err != nil || c.settled.Load() != 2 {
		t.Errorf("count(two done) = %v and counts %d, want 2", err, c.settled.Load())
	}
	lost := &sluicev1.SettlementResult{Outcome: sluicev1.Outcome_OUTCOME_LEASE_LOST}
	if err := c.count([]*sluicev1.SettlementResult{done, lost}); err == nil || c.settled.Load() != 2 {
		t.Errorf("count(a lost one) = %v and counts %d, want an error", err, c.settled.Load())
	}
}

// The parts must work from end to end, in turns with another binary, on a log
// that is far shorter than what is measured.
func TestGroups(t *testing.T) {
	dir := t.TempDir()
	lines := filepath.Join(dir, "lines")
	var out strings.Builder
	err := run(t.Context(), []string{
		"groups", "-dir", dir, "-against", "before=" + build(t, dir), "-benchstat", lines,
		"-events", "2000", "-rounds", "1", "-duration", "200ms", "-rate", "500", "-many", "5",
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(lines)
	if err != nil {
		t.Fatal(err)
	}
	for _, work := range []string{
		"part=latency/rate=500", "part=single/chats=1", "part=many/groups=0", "part=many/groups=5/want=own-chats", "part=many/groups=5/want=all",
		"part=settle/producer=none", "part=settle/producer=500/s", "part=stuck/chat=blocked", "part=create/events=2000",
		"part=pending/events=2000", "part=restart/events=2000",
	} {
		for _, server := range []string{"Sluice", "before"} {
			if line := "BenchmarkGroups/" + work + "/server=" + server + " 1 "; !strings.Contains(string(saved), line) {
				t.Errorf("no line starts with %q in:\n%s", line, saved)
			}
		}
	}
	if err := run(t.Context(), []string{"groups", "-parts", "settle,nothing"}, &out); err == nil {
		t.Error("an unknown part was accepted")
	}
}
