//go:build chaos

// Package chaos breaks what is under a running gateway, and checks that what it
// promised still holds. README.md lists the faults.
package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// binary is the gateway under test, with failpoints.
var binary string

// long is whether to run the rows that are repeated more often.
var long = os.Getenv("CHAOS") == "long"

// seed is what every random choice follows from. CHAOS_SEED repeats a run.
var seed = uint64(time.Now().UnixNano())

// patience bounds what should happen soon: a test that waits so long has
// failed.
const patience = 20 * time.Second

func TestMain(m *testing.M) { os.Exit(run(m)) } //nolint:forbidigo // the code is what tests report

func run(m *testing.M) int {
	if s := os.Getenv("CHAOS_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			fmt.Fprintln(os.Stderr, "CHAOS_SEED:", err)
			return 2
		}
		seed = n
	}
	fmt.Fprintf(os.Stderr, "chaos: CHAOS_SEED=%d\n", seed)
	dir, err := os.MkdirTemp("", "sluice-chaos")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "sluice")
	if err := build(binary, "-tags", "failpoints"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	flag.Parse()
	if one := flag.Lookup("test.run").Value.String(); one == "" || strings.Contains(one, "Clock") {
		go withClock() // beside the rows that wait for a disk most of the time
	}
	return m.Run()
}

// build builds the command with flags.
func build(to string, flags ...string) error {
	args := append(append([]string{"build"}, flags...), "-o", to, "github.com/sluicegate/sluice/cmd/sluice")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return nil
}

// rounds returns how often a row is repeated.
func rounds(quick, all int) int {
	if long {
		return all
	}
	return quick
}

// random returns the source of a row's random choices.
func random(row uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, row)) }

// needs skips a test that needs root or a tool that is not there; with CI set
// it fails, so that nothing goes untested without a word.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	miss := t.Skipf
	if os.Getenv("CI") != "" {
		miss = t.Fatalf
	}
	if os.Geteuid() != 0 {
		miss("NOT TESTED: %s needs root", t.Name())
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			miss("NOT TESTED: %s needs %s (chaos/install.sh installs it)", t.Name(), tool)
		}
	}
}

// eventually waits until ok, or fails when that takes longer than limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	if !within(limit, ok) {
		t.Fatalf("not within %v: %s", limit, what)
	}
}

// within waits until ok and reports whether that was within limit.
func within(limit time.Duration, ok func() bool) bool {
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			return ok()
		case <-tick.C:
		}
	}
	return true
}

// command runs a program of the system to its end.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
