package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDependencies holds that the command does not link what only tests, or
// nobody, should: a NATS server is another process than a gateway.
func TestDependencies(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for pkg := range strings.Lines(string(out)) {
		for _, unwanted := range []string{
			"github.com/nats-io/nats-server",
			"github.com/sluicegate/sluice/server/eventlog/natstest",
			"github.com/sluicegate/sluice/server/servertest",
			"testing\n",
		} {
			if strings.HasPrefix(pkg, unwanted) {
				t.Errorf("the command links %s", strings.TrimSpace(pkg))
			}
		}
	}
}
