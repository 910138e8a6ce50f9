package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
)

// What is filled in past the gateway must be events that the gateway reads, and
// as many as were asked for.
func TestLarge(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	var out strings.Builder
	if err := run(t.Context(), []string{"fill", "-dir", data, "-rows", "3000", "-chats", "30"}, &out); err != nil {
		t.Fatal(err)
	}
	if got := held(t, data); got != 3000 {
		t.Errorf("after fill -rows 3000 the log holds %d events", got)
	}
	err := run(t.Context(), []string{"large", "-data", data, "-rows", "6000", "-rounds", "1", "-duration", "200ms"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	if got := held(t, data); got <= 6000 {
		t.Errorf("after large -rows 6000 the log holds %d events, want those and what was posted", got)
	}
	if !strings.Contains(out.String(), "| events=6000 | Sluice |") {
		t.Errorf("no row of 6000 events in:\n%s", out.String())
	}
}

// held returns how many events a data directory holds.
func held(t *testing.T, dir string) uint64 {
	t.Helper()
	engine, err := local.OpenReadOnly(t.Context(), local.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close(t.Context())
	events, err := engine.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	return events.State().Count
}
