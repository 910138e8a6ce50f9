package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a report saves, the plot must show: the median of the rounds, by name.
func TestPlot(t *testing.T) {
	dir := t.TempDir()
	lines, image := filepath.Join(dir, "lines"), filepath.Join(dir, "image.svg")
	r := &report{name: "Ingest", metrics: ingestMetrics}
	for _, perSecond := range []float64{1000, 5000, 3000} {
		r.add("connections=1", "Sluice", perSecond, 40_000, 1, 2)
		r.add("connections=1", "a<b", 7777, 20_000, 1, 2)
	}
	if err := r.save(lines); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"plot", "-in", lines, "-out", image}, io.Discard); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Callbacks per second", "connections=1", "Sluice 3000", "a&lt;b 7777", "Sluice 40 µs"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the plot does not show %q:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "Replayed") {
		t.Error("the plot has a panel of what was not measured")
	}
	for d := xml.NewDecoder(strings.NewReader(string(got))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is no XML: %v", err)
		}
	}
}

// Ratios are the medians of the rounds' ratios, not the ratios of the medians.
func TestReportRatios(t *testing.T) {
	r := &report{name: "X", metrics: []metric{{"speed", "x/s", whole, true}, {"other", "y", whole, false}, {"none", "z", whole, true}}}
	for _, v := range [][2]float64{{10, 100}, {20, 20}, {90, 30}} {
		r.add("w=1", "a", v[0], 0, 0)
		r.add("w=1", "b", v[1], 0, 0)
	}
	var out strings.Builder
	r.print(&out, [2]string{"a", "b"}, [2]string{"a", "missing"})
	for _, want := range []string{"| w=1 | a | 20 (10–90) | 0 (0–0) | 0 (0–0) |", "| w=1 | a / b | 1.00 (0.10–3.00) | – |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tables lack %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "missing") {
		t.Errorf("the tables compare with what was not measured:\n%s", out.String())
	}
}
