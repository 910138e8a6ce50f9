package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// ingestMetrics are the columns of a report about callbacks that come in, in the
// order of ingestValues.
var ingestMetrics = []metric{
	{"callbacks/s", "callbacks/s", whole, true},
	{"processor time each", "cpu-ns/op", short, true},
	{"p50", "p50-ns", short, true},
	{"p99", "p99-ns", short, true},
}

func (r result) ingestValues() []float64 {
	return []float64{r.perSecond(), r.processorTimeEach(), float64(quantile(r.latencies, 0.50)), float64(quantile(r.latencies, 0.99))}
}

// runIngest measures Sluice, the floor and the limit server in turns.
func runIngest(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("ingest", flag.ContinueOnError)
	var s setup
	s.register(flags)
	connections, slow := counts{1, 16, 64, 256}, counts{64}
	flags.Var(&connections, "connections", "numbers of connections, separated by commas")
	flags.Var(&slow, "slow", "the same, on a disk whose syncs take 5 ms")
	rounds := flags.Int("rounds", 5, "how often each is measured")
	duration := flags.Duration("duration", 3*time.Second, "how long each measurement takes, after a warm-up of a sixth of it")
	nearest := flags.Bool("nearest", true, "measure the nearest tool as well, which takes minutes to build the first time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := newRig(ctx, s, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	fmt.Fprintf(out, "%d rounds of %v, bodies of %d bytes, %d chats\n", *rounds, *duration, len(body), defaultChats)
	all, err := r.everybody()
	if err != nil {
		return err
	}
	if *nearest {
		c, err := r.buildNearest(ctx)
		if err != nil {
			fmt.Fprintf(out, "the nearest tool was not measured: %v\n", err)
		} else {
			all = append(all, c)
		}
	}
	found := &report{name: "Ingest", metrics: ingestMetrics}
	for _, n := range connections {
		if err := r.ingest(ctx, found, all, *rounds, load{connections: n, duration: *duration}, r.dir, ""); err != nil {
			return err
		}
	}
	disk, err := newSlowDisk(ctx, r.dir, slowSync)
	if errors.Is(err, errNoFUSE) {
		fmt.Fprintf(out, "a disk with slow syncs was not measured: %v\n", err)
		slow = nil
	} else if err != nil {
		return err
	} else {
		defer func() { err = errors.Join(disk.close(), err) }()
	}
	for _, n := range slow {
		if err := r.ingest(ctx, found, all, *rounds, load{connections: n, duration: *duration}, disk.dir, "/sync=5ms"); err != nil {
			return err
		}
	}
	fmt.Fprintln(out)
	found.print(out, append(r.pairs("limit", "floor"), [2]string{"floor", "limit"}, [2]string{ours, "nearest"})...)
	return found.save(s.benchstat)
}

// slowSync is how long a sync takes on the slow disk.
const slowSync = 5 * time.Millisecond

// everybody returns all that are measured: each Sluice, the floor and the limit.
func (r *rig) everybody() ([]contender, error) {
	all := slices.Clone(r.sluice)
	for _, command := range []string{"floor", "limit"} {
		c, err := own(command)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// buildNearest builds the nearest tool, which is a module of its own: what it
// needs is large, and not to be had everywhere.
func (r *rig) buildNearest(ctx context.Context) (contender, error) {
	c := contender{name: "nearest", program: filepath.Join(r.dir, "nearest"), serve: "serve"}
	text, err := exec.CommandContext(ctx, "go", "build", "-C", "nearest", "-o", c.program, ".").CombinedOutput() //nolint:gosec // our own path
	if err != nil {
		return contender{}, fmt.Errorf("build it: %w\n%s", err, text)
	}
	return c, nil
}

// ingest measures a load at each contender, in turns. Each starts on an empty
// directory within dir every time.
func (r *rig) ingest(ctx context.Context, found *report, all []contender, rounds int, l load, dir, suffix string) error {
	for range rounds {
		for _, c := range all {
			got, err := c.ingestRound(ctx, l, filepath.Join(dir, "data"))
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			found.add(fmt.Sprintf("connections=%d%s", l.connections, suffix), c.name, got.ingestValues()...)
		}
	}
	return nil
}

func (c contender) ingestRound(ctx context.Context, l load, dir string) (result, error) {
	s, err := c.startOn(ctx, dir)
	if err != nil {
		return result{}, err
	}
	warm := l
	warm.duration /= 6
	if _, err := s.measure(ctx, warm); err != nil {
		return result{}, errors.Join(err, s.stop())
	}
	got, err := s.measure(ctx, l)
	return got, errors.Join(err, s.stop())
}
