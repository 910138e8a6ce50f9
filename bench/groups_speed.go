package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// settle measures deliveries settled per second, and beside them what the same
// number of connections can have at most: subscribers that share the log.
func (b *groupBench) settle(ctx context.Context) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "\na log of %d events in %d chats, %d members with credits for %d events each, %d rounds of %v\n\n",
		b.posted, groupChats, b.members, b.credits, b.rounds, b.window)
	fmt.Fprintln(b.out, "| producer | settled/s (min–max) | posted/s | share of the limit |")
	fmt.Fprintln(b.out, "|---|---:|---:|---:|")
	producers := []struct {
		name  string
		load  *load // nil is none
		start *sluicev1.Position
	}{
		{"none", nil, earliest()},
		{fmt.Sprintf("%d/s", b.rate), &load{connections: 32, chats: groupChats, rate: b.rate}, earliest()},
		{"all it can", &load{connections: 64, chats: groupChats}, earliest()},
		{"all it can, nothing else to settle", &load{connections: 64, chats: groupChats}, latest()},
	}
	for _, p := range producers {
		var settled, posted, shares []float64
		for range b.rounds {
			most, err := b.shareLog(ctx)
			if err != nil {
				return err
			}
			got, made, err := b.work(ctx, p.start, p.load)
			if err != nil {
				return err
			}
			settled, posted, shares = append(settled, got), append(posted, made), append(shares, got/most)
		}
		fmt.Fprintf(b.out, "| %s | %.0f (%.0f–%.0f) | %.0f | %.2f |\n", p.name,
			median(settled), slices.Min(settled), slices.Max(settled), median(posted), median(shares))
	}
	return nil
}

// work has a new group work on the log from start, for a window after a warm-up,
// while a producer posts. It returns what was settled and posted, per second.
func (b *groupBench) work(ctx context.Context, start *sluicev1.Position, producer *load) (settled, posted float64, err error) {
	group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{Start: start})
	if err != nil {
		return 0, 0, err
	}
	c := b.crew(group)
	err = c.with(ctx, func() error {
		g, ctx := errgroup.WithContext(ctx)
		warm := b.window / 4
		if producer != nil {
			g.Go(func() error {
				l := *producer
				l.duration = warm + b.window
				r, err := b.post(ctx, l)
				posted = r.perSecond()
				return err
			})
		}
		g.Go(func() error {
			if _, err := c.rate(ctx, warm); err != nil {
				return err
			}
			var err error
			settled, err = c.rate(ctx, b.window)
			return err
		})
		return g.Wait()
	})
	if err != nil {
		return 0, 0, err
	}
	return settled, posted, b.deleteGroup(ctx, group)
}

// shareLog has as many subscribers as a group has members read the log, each a
// part of its own, and returns how many events they got per second together.
func (b *groupBench) shareLog(ctx context.Context) (float64, error) {
	part := min(b.events, 100_000) / b.members
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range b.members {
		g.Go(func() error {
			left := part
			at := &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: uint64(i*part) + 1}} //nolint:gosec // not negative
			return subscribe(ctx, b.server.grpcAddr, at, func(f *sluicev1.SubscribeResponse) bool {
				left -= len(f.GetEvents().GetEvents())
				return left > 0
			})
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return float64(part*b.members) / time.Since(begin).Seconds(), nil
}

// single measures deliveries per second of one chat, each of which waits for the
// one before to be settled.
func (b *groupBench) single(ctx context.Context) error {
	next := uint64(b.posted) + 1 //nolint:gosec // not negative
	if _, err := b.post(ctx, load{connections: 64, duration: 2 * time.Second, chats: 1}); err != nil {
		return err
	}
	var perSecond []float64
	for range b.rounds {
		group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{
			Start: &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: next}},
		})
		if err != nil {
			return err
		}
		c := b.crew(group)
		err = c.with(ctx, func() error {
			got, err := c.rate(ctx, b.window)
			perSecond = append(perSecond, got)
			return err
		})
		if err != nil {
			return err
		}
		if err := b.deleteGroup(ctx, group); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.out, "\none chat, one delivery at a time: %.0f settled/s (%.0f–%.0f)\n",
		median(perSecond), slices.Min(perSecond), slices.Max(perSecond))
	return nil
}

// latency measures the time from the moment Sluice had a callback's whole body
// to the moment a member had its delivery.
func (b *groupBench) latency(ctx context.Context) error {
	fmt.Fprintf(b.out, "\n| callbacks/s | delivery p50 | p99 (min–max) | answer p50 | p99 |\n|---:|---:|---:|---:|---:|\n")
	var p50, p99, answer50, answer99 []time.Duration
	var perSecond []float64
	for range b.rounds {
		group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{Start: latest()})
		if err != nil {
			return err
		}
		var mu sync.Mutex
		var delays []time.Duration
		c := b.crew(group)
		c.verdict = func(d *sluicev1.Delivery) *sluicev1.Settlement {
			delay := time.Since(d.GetEvents()[0].GetReceiveTime().AsTime())
			mu.Lock()
			delays = append(delays, delay)
			mu.Unlock()
			return ack(d)
		}
		err = c.with(ctx, func() error {
			r, err := b.post(ctx, load{connections: 32, duration: b.window, rate: b.rate, chats: groupChats})
			if err != nil {
				return err
			}
			perSecond = append(perSecond, r.perSecond())
			answer50, answer99 = append(answer50, quantile(r.latencies, 0.50)), append(answer99, quantile(r.latencies, 0.99))
			return c.until(ctx, func() bool { return int(c.settled.Load()) == len(r.latencies) })
		})
		if err != nil {
			return err
		}
		slices.Sort(delays)
		p50, p99 = append(p50, quantile(delays, 0.50)), append(p99, quantile(delays, 0.99))
		if err := b.deleteGroup(ctx, group); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.out, "| %.0f | %s | %s (%s–%s) | %s | %s |\n", median(perSecond),
		micros(median(p50)), micros(median(p99)), micros(slices.Min(p99)), micros(slices.Max(p99)),
		micros(median(answer50)), micros(median(answer99)))
	return nil
}
