package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"html"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// A panel is a part of the plot: one metric of one benchmark, a group of bars for
// each piece of work and in it a bar for each contender.
type panel struct {
	title     string
	benchmark string
	unit      string // as report.save wrote it
	show      func(float64) string
}

// panels are what is plotted, as far as it was measured.
var panels = []panel{
	{"Callbacks per second", "Ingest", "callbacks/s", whole},
	{"Server's processor time per callback", "Ingest", "cpu-ns/op", short},
	{"Replayed events per second, all subscribers together", "Replay", "events/s", whole},
	{"Server's processor time per replayed event", "Replay", "cpu-ns/op", short},
	{"Deliveries settled per second", "Groups/part=settle", "settled/s", whole},
}

// runPlot draws what -benchstat has saved.
func runPlot(_ context.Context, args []string, _ io.Writer) error {
	flags := flag.NewFlagSet("plot", flag.ContinueOnError)
	in := flags.String("in", "", "`file` of lines for benchstat")
	out := flags.String("out", "bench.svg", "`file` to write, an SVG image")
	if err := flags.Parse(args); err != nil {
		return err
	}
	f, err := os.Open(*in)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read from
	rows, err := readRows(f, *in)
	if err != nil {
		return err
	}
	return os.WriteFile(*out, []byte(plot(rows)), 0o644) //nolint:gosec // a picture, to be looked at
}

// A bar is what one contender did with one piece of work.
type bar struct {
	work, server string
	values       []float64 // one for each round
}

// readRows returns the bars of each panel.
func readRows(r io.Reader, name string) (map[panelKey][]*bar, error) {
	all := make(map[panelKey][]*bar)
	reader := benchfmt.NewReader(r, name)
	for reader.Scan() {
		res, ok := reader.Result().(*benchfmt.Result)
		if !ok {
			continue // a unit, or a line of another tool's
		}
		for _, p := range panels {
			rest, ok := strings.CutPrefix(res.Name.String(), p.benchmark+"/")
			work, server, split := strings.Cut(rest, "/server=")
			if !ok || !split {
				continue
			}
			for _, v := range res.Values {
				if cmp.Or(v.OrigUnit, v.Unit) != p.unit {
					continue
				}
				value := v.Value
				if v.OrigUnit != "" {
					value = v.OrigValue
				}
				all[p.key()] = addValue(all[p.key()], work, server, value)
			}
		}
	}
	return all, reader.Err()
}

// A panelKey tells panels apart.
type panelKey struct{ benchmark, unit string }

func (p panel) key() panelKey { return panelKey{p.benchmark, p.unit} }

func addValue(bars []*bar, work, server string, value float64) []*bar {
	for _, b := range bars {
		if b.work == work && b.server == server {
			b.values = append(b.values, value)
			return bars
		}
	}
	return append(bars, &bar{work, server, []float64{value}})
}

// Measures of the plot, in pixels.
const (
	plotWidth   = 860
	labelWidth  = 260
	barWidth    = plotWidth - labelWidth - 130 // of the longest bar
	barHeight   = 14
	groupMargin = 8
	panelMargin = 44
)

// colours of contenders, in the order in which they appear.
var colours = []string{"#1f6feb", "#d29922", "#57606a", "#8250df", "#1a7f37", "#cf222e"}

// plot returns the image: horizontal bars of medians, each with a line from the
// smallest to the largest round.
func plot(rows map[panelKey][]*bar) string {
	var b strings.Builder
	y := 10
	for _, p := range panels {
		if bars := rows[p.key()]; len(bars) > 0 {
			y = p.draw(&b, bars, y)
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n%s</svg>\n", plotWidth, y+10, b.String())
}

// draw draws a panel from y down and returns where it ends.
func (p panel) draw(b *strings.Builder, bars []*bar, y int) int {
	var servers []string
	most := 0.0
	for _, bar := range bars {
		if !slices.Contains(servers, bar.server) {
			servers = append(servers, bar.server)
		}
		most = max(most, slices.Max(bar.values))
	}
	y += 16
	text(b, 10, y, "start", "bold", p.title)
	for i := 0; i < len(bars); {
		work := bars[i].work
		y += groupMargin
		text(b, labelWidth-8, y+barHeight-3, "end", "normal", work)
		for ; i < len(bars) && bars[i].work == work; i++ {
			p.drawBar(b, bars[i], colours[slices.Index(servers, bars[i].server)%len(colours)], most, y)
			y += barHeight
		}
	}
	return y + panelMargin - 16
}

func (p panel) drawBar(b *strings.Builder, o *bar, colour string, most float64, y int) {
	at := func(v float64) float64 { return float64(labelWidth) + v/most*barWidth }
	middle, low, high := median(o.values), slices.Min(o.values), slices.Max(o.values)
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, y+1, at(middle)-labelWidth, barHeight-2, colour)
	fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`+"\n", at(low), at(high), y+barHeight/2, y+barHeight/2)
	text(b, int(at(high))+6, y+barHeight-3, "start", "normal", o.server+" "+p.show(middle))
}

func text(b *strings.Builder, x, y int, anchor, weight, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="%s" font-weight="%s">%s</text>`+"\n", x, y, anchor, weight, html.EscapeString(s))
}
