package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"
)

// runIngest measures Sluice and the limit server in turns and prints a table.
func runIngest(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("ingest", flag.ContinueOnError)
	connections := counts{1, 16, 64, 256}
	flags.Var(&connections, "connections", "numbers of connections, separated by commas")
	rounds := flags.Int("rounds", 5, "how often each pair is measured")
	duration := flags.Duration("duration", 3*time.Second, "how long each measurement takes, after a warm-up of a sixth of it")
	var setup setup
	setup.register(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := newRig(ctx, setup, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	fmt.Fprintf(out, "%d rounds of %v, bodies of %d bytes, %d chats\n\n", *rounds, *duration, len(body), defaultChats)
	fmt.Fprintln(out, "| connections | Sluice/s | limit/s | ratio (min–max) | Sluice p50 | p99 | limit p50 | p99 |")
	fmt.Fprintln(out, "|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, n := range connections {
		var ours, theirs series
		for range *rounds {
			l := load{connections: n, duration: *duration}
			if err := ours.measure(ctx, l, r, r.sluice[0]); err != nil {
				return err
			}
			limit, err := own("limit")
			if err != nil {
				return err
			}
			if err := theirs.measure(ctx, l, r, limit); err != nil {
				return err
			}
		}
		ratios := make([]float64, *rounds)
		for i := range ratios {
			ratios[i] = ours.perSecond[i] / theirs.perSecond[i]
		}
		fmt.Fprintf(out, "| %d | %.0f | %.0f | %.2f (%.2f–%.2f) | %s | %s | %s | %s |\n", n,
			median(ours.perSecond), median(theirs.perSecond), median(ratios), slices.Min(ratios), slices.Max(ratios),
			micros(median(ours.p50)), micros(median(ours.p99)), micros(median(theirs.p50)), micros(median(theirs.p99)))
	}
	return nil
}

// A series is the same measurement taken in several rounds.
type series struct {
	perSecond []float64
	p50, p99  []time.Duration
}

// measure adds a round: l, at a server started for it.
func (s *series) measure(ctx context.Context, l load, rig *rig, c contender) error {
	server, err := rig.start(ctx, c)
	if err != nil {
		return err
	}
	l.addr = server.callbackAddr
	warm := l
	warm.duration /= 6
	if _, err := warm.run(ctx); err != nil {
		return errors.Join(err, server.stop())
	}
	r, err := l.run(ctx)
	if err := errors.Join(err, server.stop()); err != nil {
		return err
	}
	s.perSecond = append(s.perSecond, r.perSecond())
	s.p50 = append(s.p50, quantile(r.latencies, 0.50))
	s.p99 = append(s.p99, quantile(r.latencies, 0.99))
	return nil
}
