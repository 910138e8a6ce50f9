package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var settleMetrics = []metric{
	{"settled/s", "settled/s", whole, true},
	{"server's processor time each", "cpu-ns/op", short, true},
	{"posted/s", "callbacks/s", whole, true},
	{"share of the limit", "of-limit", hundredths, false},
}

// settle measures deliveries settled per second, and beside them what the same
// number of connections can have at most: subscribers that share the log.
func (b *groupBench) settle(ctx context.Context, add func(string, ...float64)) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	for _, p := range []struct {
		name  string
		load  *load // nil is none
		start *sluicev1.Position
	}{
		{"producer=none", nil, earliest()},
		{fmt.Sprintf("producer=%d/s", b.rate), &load{connections: 32, chats: groupChats, rate: b.rate}, earliest()},
		{"producer=all-it-can", &load{connections: 64, chats: groupChats}, earliest()},
		{"producer=all-it-can,backlog=none", &load{connections: 64, chats: groupChats}, latest()},
	} {
		most, err := b.shareLog(ctx)
		if err != nil {
			return err
		}
		w, err := b.work(ctx, p.start, p.load)
		if err != nil {
			return err
		}
		add(p.name, w.settled, w.each, w.posted, w.settled/most)
	}
	return nil
}

// A worked is what a group did in a window: settled and posted per second, and
// the server's processor time for each that was settled.
type worked struct{ settled, each, posted float64 }

// work has a new group work on the log from start, for a window after a warm-up,
// while a producer posts.
func (b *groupBench) work(ctx context.Context, start *sluicev1.Position, producer *load) (w worked, err error) {
	group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{Start: start})
	if err != nil {
		return w, err
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
				w.posted = r.perSecond()
				return err
			})
		}
		g.Go(func() error {
			if _, err := c.rate(ctx, warm); err != nil {
				return err
			}
			var err error
			w.settled, w.each, err = b.settled(ctx, c, b.window)
			return err
		})
		return g.Wait()
	})
	return w, errors.Join(err, b.deleteGroup(ctx, group))
}

// shareLog has as many subscribers as a group has members read the log, each a
// part of its own, and returns how many events they got per second together.
func (b *groupBench) shareLog(ctx context.Context) (float64, error) {
	part := min(b.events, 100_000) / b.members
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i := range b.members {
		g.Go(func() error {
			at := &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: uint64(i*part) + 1}} //nolint:gosec // not negative
			_, err := b.server.read(ctx, &sluicev1.SubscribeRequest{Start: at}, part)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return float64(part*b.members) / time.Since(begin).Seconds(), nil
}

var singleMetrics = []metric{
	{"settled/s", "settled/s", whole, true},
	{"server's processor time each", "cpu-ns/op", short, true},
}

// single measures deliveries per second of one chat, each of which waits for the
// one before to be settled.
func (b *groupBench) single(ctx context.Context, add func(string, ...float64)) error {
	next := uint64(b.posted) + 1 //nolint:gosec // not negative
	if _, err := b.post(ctx, load{connections: 64, duration: b.window, chats: 1}); err != nil {
		return err
	}
	group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{
		Start: &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: next}},
	})
	if err != nil {
		return err
	}
	c := b.crew(group)
	err = c.with(ctx, func() error {
		perSecond, each, err := b.settled(ctx, c, b.window)
		add("chats=1", perSecond, each)
		return err
	})
	return errors.Join(err, b.deleteGroup(ctx, group))
}

// latency measures the time from the moment Sluice had a callback's whole body
// to the moment a member had its delivery.
func (b *groupBench) latency(ctx context.Context, add func(string, ...float64)) error {
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
		if err := c.until(ctx, func() bool { return int(c.settled.Load()) == len(r.latencies) }); err != nil {
			return err
		}
		slices.Sort(delays)
		add(fmt.Sprintf("rate=%d", b.rate), r.perSecond(), r.processorTimeEach(),
			float64(quantile(delays, 0.50)), float64(quantile(delays, 0.99)),
			float64(quantile(r.latencies, 0.50)), float64(quantile(r.latencies, 0.99)))
		return nil
	})
	return errors.Join(err, b.deleteGroup(ctx, group))
}
