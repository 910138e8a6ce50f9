package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every contender must do the work, on either disk, and be in the tables and in
// the lines for benchstat.
func TestIngest(t *testing.T) {
	dir := t.TempDir()
	lines := filepath.Join(dir, "lines")
	before := build(t, dir)
	var out strings.Builder
	err := run(t.Context(), []string{
		"ingest", "-dir", dir, "-against", "before=" + before, "-connections", "2", "-slow", "3", "-nearest=false",
		"-rounds", "2", "-duration", "100ms", "-benchstat", lines,
	}, &out)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(lines)
	if err != nil {
		t.Fatal(err)
	}
	works := []string{"connections=2"}
	if !strings.Contains(out.String(), "was not measured") {
		works = append(works, "connections=3/sync=5ms")
	}
	for _, work := range works {
		for _, server := range []string{"Sluice", "before", "floor", "limit"} {
			if !strings.Contains(out.String(), "| "+work+" | "+server+" |") {
				t.Errorf("no row of %s and %s in:\n%s", work, server, out.String())
			}
			line := "BenchmarkIngest/" + work + "/server=" + server + " 1 "
			if n := strings.Count(string(saved), line); n != 2 {
				t.Errorf("%d lines start with %q, want one for each round", n, line)
			}
		}
		for _, ratio := range []string{"Sluice / limit", "before / limit", "Sluice / floor", "Sluice / before", "floor / limit"} {
			if !strings.Contains(out.String(), "| "+work+" | "+ratio+" |") {
				t.Errorf("no ratio of %s for %s in:\n%s", ratio, work, out.String())
			}
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v, want the binary and the lines", left, err)
	}
}

// build builds Sluice into dir and returns the binary's path.
func build(t *testing.T, dir string) string {
	t.Helper()
	r, err := newRig(t.Context(), setup{dir: dir}, new(strings.Builder))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "before")
	if err := os.Rename(r.sluice[0].program, path); err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// A name that another has would mix two contenders up in the tables.
func TestAgainst(t *testing.T) {
	var o others
	if err := o.Set("before=/x/sluice,/y/old"); err != nil || len(o) != 2 || o[0].name != "before" || o[1].name != "old" || o[1].program != "/y/old" {
		t.Errorf("Set(two) = %v, and holds %v", err, o)
	}
	for _, bad := range []string{"a=/x,a=/y", "limit=/x", "Sluice=/x", "=/x"} {
		if err := new(others).Set(bad); err == nil {
			t.Errorf("Set(%q) was accepted", bad)
		}
	}
}

// Processor time must be the server's own, and grow with its work.
func TestProcessorTime(t *testing.T) {
	c, err := own("limit")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.startOn(t.Context(), filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	var spent time.Duration
	for spent < 5*tick {
		r, err := s.measure(t.Context(), load{connections: 2, duration: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		spent += r.processor
	}
	now, most, err := s.resident()
	if err != nil || now < 1<<20 || most < now {
		t.Errorf("resident() = %v, %v, %v", now, most, err)
	}
}
