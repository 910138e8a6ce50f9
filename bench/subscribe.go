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
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// runSubscribe measures how fast subscribers read what is stored, and how soon
// they get what is posted.
func runSubscribe(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("subscribe", flag.ContinueOnError)
	subscribers := counts{1, 8}
	flags.Var(&subscribers, "subscribers", "numbers of subscribers, separated by commas")
	rounds := flags.Int("rounds", 5, "how often the log is read")
	fill := flags.Duration("fill", 4*time.Second, "how long to post, as fast as the answers come, to have a log to read")
	rate := flags.Int("rate", 2000, "callbacks per second while the delivery latency is measured")
	duration := flags.Duration("duration", 10*time.Second, "how long the delivery latency is measured")
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
	server, err := r.start(ctx, r.sluice[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	filled, err := load{addr: server.callbackAddr, connections: 64, duration: *fill}.run(ctx)
	if err != nil {
		return err
	}
	events := len(filled.latencies)
	fmt.Fprintf(out, "a log of %d events, bodies of %d bytes, %d chats\n\n", events, len(body), defaultChats)
	fmt.Fprintln(out, "| subscribers | events/s each | events/s in all |")
	fmt.Fprintln(out, "|---:|---:|---:|")
	for _, n := range subscribers {
		perSecond := make([]float64, *rounds)
		for i := range perSecond {
			elapsed, err := readLog(ctx, server.grpcAddr, n, events)
			if err != nil {
				return err
			}
			perSecond[i] = float64(events) / elapsed.Seconds()
		}
		fmt.Fprintf(out, "| %d | %.0f | %.0f |\n", n, median(perSecond), float64(n)*median(perSecond))
	}
	fmt.Fprintln(out, "\n| callbacks/s | delivery p50 | p99 | answer p50 | p99 |")
	fmt.Fprintln(out, "|---:|---:|---:|---:|---:|")
	return deliver(ctx, out, server, load{addr: server.callbackAddr, connections: 32, duration: *duration, rate: *rate})
}

// readLog has n subscribers read the log from its start, each over a
// connection of its own, and returns how long it took until all had read at
// least the given number of events.
func readLog(ctx context.Context, addr string, n, events int) (time.Duration, error) {
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range n {
		g.Go(func() error {
			left := events
			return subscribe(ctx, addr, earliest(), func(f *sluicev1.SubscribeResponse) bool {
				left -= len(f.GetEvents().GetEvents())
				return left > 0
			})
		})
	}
	err := g.Wait()
	return time.Since(begin), err
}

// deliver posts l while one subscriber follows the log, and prints the time
// from the moment Sluice had a callback's whole body to the moment the
// subscriber had its event, and what the poster of it met meanwhile.
func deliver(ctx context.Context, out io.Writer, server *server, l load) error {
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
		answers, err = l.run(ctx)
		sent <- len(answers.latencies)
		return err
	})
	var delays []time.Duration
	g.Go(func() error {
		want := -1 // how many to wait for; -1 until it is known
		return subscribe(ctx, server.grpcAddr, latest(), func(f *sluicev1.SubscribeResponse) bool {
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
		return err
	}
	slices.Sort(delays)
	fmt.Fprintf(out, "| %.0f | %s | %s | %s | %s |\n", answers.perSecond(), micros(quantile(delays, 0.50)), micros(quantile(delays, 0.99)),
		micros(quantile(answers.latencies, 0.50)), micros(quantile(answers.latencies, 0.99)))
	return nil
}

// subscribe passes frames to each, from start on, until it returns false.
func subscribe(ctx context.Context, addr string, start *sluicev1.Position, each func(*sluicev1.SubscribeResponse) bool) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it was only read from
	stream, err := sluicev1.NewEventServiceClient(conn).Subscribe(ctx, &sluicev1.SubscribeRequest{
		Start:             start,
		HeartbeatInterval: durationpb.New(time.Second), // a frame at least this often, so that each learns when to end
	})
	if err != nil {
		return err
	}
	for {
		frame, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		if !each(frame) {
			return nil
		}
	}
}
