package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A report is what a measurement found: the same work done by several
// contenders, in rounds in which they took turns.
type report struct {
	name    string // of the benchmark, such as "Ingest"
	metrics []metric
	rows    []*row // in the order in which they were added
}

// A metric is a column of a report.
type metric struct {
	name  string // in tables
	unit  string // for benchstat
	show  func(float64) string
	ratio bool // contenders are compared by it
}

// A row is one piece of work by one contender.
type row struct {
	work, server string      // work as key=value
	rounds       [][]float64 // of each, the values of the metrics
}

// add adds a round.
func (r *report) add(work, server string, values ...float64) {
	found := r.find(work, server)
	if found == nil {
		found = &row{work: work, server: server}
		r.rows = append(r.rows, found)
	}
	found.rounds = append(found.rounds, values)
}

// find returns the row; nil when there is none.
func (r *report) find(work, server string) *row {
	i := slices.IndexFunc(r.rows, func(o *row) bool { return o.work == work && o.server == server })
	if i < 0 {
		return nil
	}
	return r.rows[i]
}

// works returns the pieces of work, in order.
func (r *report) works() (all []string) {
	for _, o := range r.rows {
		if !slices.Contains(all, o.work) {
			all = append(all, o.work)
		}
	}
	return all
}

// column returns the values of a metric in all rounds.
func (o *row) column(metric int) (all []float64) {
	for _, values := range o.rounds {
		all = append(all, values[metric])
	}
	return all
}

// print prints two tables: what was measured and, where contenders can be
// compared, the ratios of those pairs.
func (r *report) print(out io.Writer, pairs ...[2]string) {
	head := []string{"work", "server"}
	for _, m := range r.metrics {
		head = append(head, m.name)
	}
	printHead(out, head)
	for _, o := range r.rows {
		fmt.Fprintf(out, "| %s | %s |", o.work, o.server)
		for i, m := range r.metrics {
			fmt.Fprintf(out, " %s |", spread(o.column(i), m.show))
		}
		fmt.Fprintln(out)
	}
	r.compare(out, pairs)
}

// compare prints the ratios of pairs, each the median of the rounds' ratios.
func (r *report) compare(out io.Writer, pairs [][2]string) {
	head := []string{"work", "ratio"}
	for _, m := range r.metrics {
		if m.ratio {
			head = append(head, m.name)
		}
	}
	printed := false
	for _, work := range r.works() {
		for _, pair := range pairs {
			a, b := r.find(work, pair[0]), r.find(work, pair[1])
			if a == nil || b == nil {
				continue
			}
			if !printed {
				fmt.Fprintln(out)
				printHead(out, head)
				printed = true
			}
			fmt.Fprintf(out, "| %s | %s / %s |", work, pair[0], pair[1])
			for i, m := range r.metrics {
				if !m.ratio {
					continue
				}
				fmt.Fprintf(out, " %s |", ratio(a.column(i), b.column(i)))
			}
			fmt.Fprintln(out)
		}
	}
}

// ratio prints a / b, round by round; nothing where b was 0.
func ratio(a, b []float64) string {
	var all []float64
	for round := range min(len(a), len(b)) {
		if b[round] == 0 {
			return "–"
		}
		all = append(all, a[round]/b[round])
	}
	return spread(all, hundredths)
}

func printHead(out io.Writer, names []string) {
	fmt.Fprintf(out, "| %s |\n|---|---|%s\n", strings.Join(names, " | "), strings.Repeat("---:|", len(names)-2))
}

// spread prints the median of values, and where there are several the smallest
// and the largest.
func spread(values []float64, show func(float64) string) string {
	if len(values) == 1 {
		return show(values[0])
	}
	return fmt.Sprintf("%s (%s–%s)", show(median(values)), show(slices.Min(values)), show(slices.Max(values)))
}

// save appends the report to a file, a line for each round, in the form that
// benchstat reads.
func (r *report) save(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // where the user wants it, to be read
	if err != nil {
		return err
	}
	var lines strings.Builder
	fmt.Fprintf(&lines, "goos: %s\ngoarch: %s\npkg: github.com/sluicegate/sluice/bench\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, cpuModel())
	for _, m := range r.metrics {
		if strings.HasSuffix(m.unit, "/s") {
			fmt.Fprintf(&lines, "Unit %s better=higher\n", m.unit)
		}
	}
	for _, o := range r.rows {
		for _, values := range o.rounds {
			fmt.Fprintf(&lines, "Benchmark%s/%s/server=%s 1", r.name, o.work, o.server)
			for i, m := range r.metrics {
				fmt.Fprintf(&lines, " %v %s", values[i], m.unit)
			}
			fmt.Fprintln(&lines)
		}
	}
	_, err = io.WriteString(f, lines.String())
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// pairs returns whom Sluice is compared with: the given contenders and all that
// are measured against it, which are compared with the given ones, too.
func (r *rig) pairs(with ...string) (all [][2]string) {
	for _, name := range with {
		for _, c := range r.sluice {
			all = append(all, [2]string{c.name, name})
		}
	}
	for _, c := range r.against {
		all = append(all, [2]string{ours, c.name})
	}
	return all
}

func hundredths(v float64) string { return fmt.Sprintf("%.2f", v) }
func whole(v float64) string      { return fmt.Sprintf("%.0f", v) }
func megabytes(v float64) string  { return fmt.Sprintf("%.0f MB", v/1e6) }

// short prints nanoseconds in a unit that suits them.
func short(ns float64) string {
	switch d := time.Duration(ns); {
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.0f µs", ns/1e3)
	case d < 10*time.Second:
		return fmt.Sprintf("%.0f ms", ns/1e6)
	}
	return fmt.Sprintf("%.1f s", ns/1e9)
}
