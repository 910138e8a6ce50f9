package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Each kind of client must get every event, or the run ends with an error.
func TestSubscribe(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	err := run(t.Context(), []string{
		"subscribe", "-dir", dir, "-against", "before=" + build(t, dir), "-subscribers", "1,2",
		"-events", "2000", "-rounds", "1", "-duration", "200ms", "-rate", "500",
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, work := range []string{
		"subscribers=1/client=decodes", "subscribers=1/client=counts",
		"subscribers=2/client=decodes", "subscribers=2/client=counts", "rate=500",
	} {
		for _, server := range []string{"Sluice", "before", "Sluice / before"} {
			if !strings.Contains(out.String(), "| "+work+" | "+server+" |") {
				t.Errorf("no row of %s and %s in:\n%s", work, server, out.String())
			}
		}
	}
}

// A client that does not decode must count what one that decodes would.
func TestEventsIn(t *testing.T) {
	for n := range 4 {
		frame := &sluicev1.SubscribeResponse{Cursor: "c", Frame: &sluicev1.SubscribeResponse_Events{Events: &sluicev1.EventBatch{
			Events: make([]*sluicev1.Event, n),
		}}}
		for i := range n {
			frame.GetEvents().Events[i] = &sluicev1.Event{Sequence: uint64(i), Raw: []byte(body)}
		}
		b, err := proto.Marshal(frame)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := eventsIn(b); err != nil || got != n {
			t.Errorf("eventsIn(a frame of %d) = %d, %v", n, got, err)
		}
		if _, err := eventsIn(append(b, 0xff)); err == nil {
			t.Error("eventsIn took a frame that is cut off")
		}
	}
}
