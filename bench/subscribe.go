package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var replayMetrics = []metric{
	{"events/s in all", "events/s", whole, true},
	{"server's processor time each", "cpu-ns/op", short, true},
}

var deliveryMetrics = []metric{
	{"callbacks/s", "callbacks/s", whole, false},
	{"processor time each", "cpu-ns/op", short, true},
	{"delivery p50", "delivery-p50-ns", short, true},
	{"p99", "delivery-p99-ns", short, true},
	{"answer p50", "p50-ns", short, true},
	{"p99", "p99-ns", short, true},
}

// runSubscribe measures how fast subscribers read what is stored, and how soon
// they get what is posted.
func runSubscribe(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("subscribe", flag.ContinueOnError)
	var s setup
	s.register(flags)
	subscribers := counts{1, 8}
	flags.Var(&subscribers, "subscribers", "numbers of subscribers, separated by commas")
	rounds := flags.Int("rounds", 5, "how often each is measured")
	events := flags.Int("events", 100_000, "how many events the log holds at least")
	rate := flags.Int("rate", 2000, "callbacks per second while the delivery latency is measured")
	duration := flags.Duration("duration", 3*time.Second, "how long the delivery latency is measured each time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := newRig(ctx, s, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	servers, err := r.startAll(ctx)
	defer func() { err = errors.Join(err, stopAll(servers)) }()
	if err != nil {
		return err
	}
	for _, s := range servers {
		for n := 1; n < *events; {
			filled, err := s.measure(ctx, load{connections: 64, duration: time.Second})
			if err != nil {
				return err
			}
			n += len(filled.latencies)
		}
	}
	fmt.Fprintf(out, "%d rounds, %d events read by each subscriber, bodies of %d bytes, %d chats\n\n", *rounds, *events, len(body), defaultChats)
	replay := &report{name: "Replay", metrics: replayMetrics}
	delivery := &report{name: "Delivery", metrics: deliveryMetrics}
	for range *rounds {
		for i, s := range servers {
			name := r.sluice[i].name
			if err := s.replayRound(ctx, replay, name, subscribers, *events); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			values, err := s.deliver(ctx, load{connections: 32, duration: *duration, rate: *rate})
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			delivery.add(fmt.Sprintf("rate=%d", *rate), name, values...)
		}
	}
	replay.print(out, r.pairs()...)
	fmt.Fprintln(out)
	delivery.print(out, r.pairs()...)
	return errors.Join(replay.save(s.benchstat), delivery.save(s.benchstat))
}

// replayRound measures each number of subscribers, with a client that decodes
// what it gets, and with one that does not.
func (s *server) replayRound(ctx context.Context, to *report, name string, subscribers counts, events int) error {
	for _, n := range subscribers {
		for _, client := range []string{"decodes", "counts"} {
			read := s.read
			if client == "counts" {
				read = s.readRaw
			}
			before, err := s.processorTime()
			if err != nil {
				return err
			}
			begin := time.Now()
			got, err := readLog(ctx, n, events, read)
			if err != nil {
				return err
			}
			elapsed := time.Since(begin)
			after, err := s.processorTime()
			if err != nil {
				return err
			}
			to.add(fmt.Sprintf("subscribers=%d/client=%s", n, client), name,
				float64(got)/elapsed.Seconds(), float64(after-before)/float64(got))
		}
	}
	return nil
}

// readLog has n subscribers read the given number of events from the start of
// the log, each over a connection of its own, and returns how many events they
// got together.
func readLog(ctx context.Context, n, events int, read func(context.Context, *sluicev1.SubscribeRequest, int) (int, error)) (int, error) {
	got := make([]int, n)
	g, ctx := errgroup.WithContext(ctx)
	for i := range got {
		g.Go(func() (err error) {
			stop := &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: uint64(events)}} //nolint:gosec // positive
			got[i], err = read(ctx, &sluicev1.SubscribeRequest{Start: earliest(), Stop: stop}, events)
			if err == nil && got[i] != events {
				err = fmt.Errorf("a subscriber got %d events, want %d", got[i], events)
			}
			return err
		})
	}
	err := g.Wait()
	return n * events, err
}

// deliver posts l while one subscriber follows the log, and returns the values
// of deliveryMetrics: the time from the moment Sluice had a callback's whole body
// to the moment the subscriber had its event, and what the poster of it met.
func (s *server) deliver(ctx context.Context, l load) ([]float64, error) {
	g, ctx := errgroup.WithContext(ctx)
	opened := make(chan struct{})
	sent := make(chan int, 1) // holds the one outcome
	var answers result
	g.Go(func() (err error) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-opened:
		}
		answers, err = s.measure(ctx, l)
		sent <- len(answers.latencies)
		return err
	})
	var delays []time.Duration
	g.Go(func() error {
		want := -1 // how many to wait for; -1 until it is known
		return s.subscribe(ctx, &sluicev1.SubscribeRequest{Start: latest()}, func(f *sluicev1.SubscribeResponse) bool {
			if f.GetOpened() != nil {
				close(opened)
			}
			now := time.Now()
			for _, event := range f.GetEvents().GetEvents() {
				delays = append(delays, now.Sub(event.GetReceiveTime().AsTime()))
			}
			select {
			case want = <-sent:
			default:
			}
			return len(delays) != want
		})
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(delays)
	return []float64{
		answers.perSecond(), answers.processorTimeEach(),
		float64(quantile(delays, 0.50)), float64(quantile(delays, 0.99)),
		float64(quantile(answers.latencies, 0.50)), float64(quantile(answers.latencies, 0.99)),
	}, nil
}
