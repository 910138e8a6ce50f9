package main

import (
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

// The parts that take no time must work from end to end, on a log that is far
// shorter than what is measured.
func TestGroups(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), []string{
		"groups", "-parts", "latency,settle,stuck,create,restart", "-dir", t.TempDir(),
		"-events", "2000", "-rounds", "1", "-duration", "200ms", "-rate", "500",
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"delivery p50", "all it can", "is blocked", "delivers its first one", "SIGKILL"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not mention %q:\n%s", want, out.String())
		}
	}
	if err := run(t.Context(), []string{"groups", "-parts", "settle,nothing"}, &out); err == nil {
		t.Error("an unknown part was accepted")
	}
}
