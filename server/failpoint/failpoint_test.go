package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestReleaseBuild proves that a binary without the tag cannot be made to fail
// from outside, and that the same look finds what it looks for in one with it.
func TestReleaseBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("links the command twice")
	}
	for tags, want := range map[string]bool{"": false, "failpoints": true} {
		bin := filepath.Join(t.TempDir(), "sluice")
		build := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", bin, "github.com/sluicegate/sluice/cmd/sluice")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build with tags %q: %v\n%s", tags, err, out)
		}
		data, err := os.ReadFile(bin)
		if err != nil {
			t.Fatal(err)
		}
		for _, trace := range []string{"FAILPOINTS", "after-auth", "mid-response"} {
			if got := bytes.Contains(data, []byte(trace)); got != want {
				t.Errorf("with tags %q: the binary contains %q: %v, want %v", tags, trace, got, want)
			}
		}
	}
}
