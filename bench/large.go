package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// largeMetrics are the columns of runLarge's report, in the order of a
// largeRound.
var largeMetrics = []metric{
	{"callbacks/s", "callbacks/s", whole, true},
	{"processor time each", "cpu-ns/op", short, true},
	{"resident under load", "load-rss-bytes", megabytes, true},
	{"at most", "load-peak-bytes", megabytes, false},
	{"ready after kill -9", "start-ns", short, true},
	{"resident then", "start-rss-bytes", megabytes, true},
	{"first page", "first-page-ns", short, true},
	{"a chat's newest 50", "chat-ns", short, true},
	{"the slowest chat", "chat-max-ns", short, false},
}

// runLarge measures what the size of the log matters to: memory, the start after
// a crash, and reads of a few events.
func runLarge(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("large", flag.ContinueOnError)
	var s setup
	s.register(flags)
	rows := counts{1_000_000}
	flags.Var(&rows, "rows", "how many events the log holds, rising, separated by commas")
	rounds := flags.Int("rounds", 3, "how often each is measured")
	duration := flags.Duration("duration", 5*time.Second, "how long callbacks are posted before the memory is read")
	data := flags.String("data", "", "data directory to use, and to keep for the next time; filled when it holds less (default: a new one)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := newRig(ctx, s, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if *data == "" {
		*data = filepath.Join(r.dir, "large")
	}
	found := report{name: "Large", metrics: largeMetrics}
	for _, n := range rows {
		chats := max(1, min(groupChats, n/100)) // so that each has as many as are read
		if err := r.fill(ctx, out, *data, n, chats); err != nil {
			return err
		}
		for range *rounds {
			for _, c := range r.sluice {
				values, err := largeRound(ctx, c, *data, *duration)
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				found.add(fmt.Sprintf("events=%d", n), c.name, values...)
			}
		}
	}
	fmt.Fprintf(out, "\n%d rounds; callbacks from 64 connections for %v, then kill -9 and a start\n\n", *rounds, *duration)
	found.print(out, r.pairs()...)
	return found.save(s.benchstat)
}

// largeRound measures one contender on dir, which it leaves stopped.
func largeRound(ctx context.Context, c contender, dir string, duration time.Duration) (values []float64, err error) {
	s, err := c.startOn(ctx, dir)
	if err != nil {
		return nil, err
	}
	loaded, err := s.measure(ctx, load{connections: 64, duration: duration, chats: groupChats})
	if err != nil {
		return nil, errors.Join(err, s.kill())
	}
	now, most, err := s.resident()
	if err = errors.Join(err, s.kill()); err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	ready := time.Since(begin)
	started, _, err := s.resident()
	if err != nil {
		return nil, err
	}
	first, chats, err := s.pages(ctx)
	if err != nil {
		return nil, err
	}
	return []float64{
		loaded.perSecond(), loaded.processorTimeEach(), now, most,
		float64(ready), started, float64(first), float64(median(chats)), float64(slices.Max(chats)),
	}, nil
}

// pages returns how long the first page of the log takes, and the newest 50
// events of each of some chats, at most 20.
func (s *server) pages(ctx context.Context) (first time.Duration, chats []time.Duration, err error) {
	conn, err := grpc.NewClient(s.grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	events := sluicev1.NewEventServiceClient(conn)
	if _, err := events.GetEvent(ctx, &sluicev1.GetEventRequest{Sequence: 1}); err != nil { // connects
		return 0, nil, err
	}
	begin := time.Now()
	page, err := events.ListEvents(ctx, &sluicev1.ListEventsRequest{PageSize: 100})
	if err != nil {
		return 0, nil, err
	}
	first = time.Since(begin)
	if len(page.GetEvents()) != 100 {
		return 0, nil, fmt.Errorf("the first page has %d events, want 100", len(page.GetEvents()))
	}
	reading := time.Now()
	for _, e := range page.GetEvents()[80:] {
		begin := time.Now()
		if err := newestOfChat(ctx, events, e, 50); err != nil {
			return 0, nil, err
		}
		chats = append(chats, time.Since(begin))
		if time.Since(reading) > 10*time.Second { // fewer will do
			break
		}
	}
	return first, chats, nil
}

// ofChat is the filter for the events of one's chat.
func ofChat(e *sluicev1.Event) *sluicev1.EventFilter {
	return &sluicev1.EventFilter{ChatIds: []string{e.GetMessage().GetChatId()}, ChatKeys: []string{e.GetChatKey()}}
}

// newestOfChat reads the newest n events of the chat that one is of, which must
// be there. A page may be short.
func newestOfChat(ctx context.Context, events sluicev1.EventServiceClient, of *sluicev1.Event, n int) error {
	req := &sluicev1.ListEventsRequest{Filter: ofChat(of), PageSize: int32(n), NewestFirst: true} //nolint:gosec // small
	last := ^uint64(0)
	for n > 0 {
		page, err := events.ListEvents(ctx, req)
		if err != nil {
			return err
		}
		for _, e := range page.GetEvents() {
			if e.GetChatKey() != of.GetChatKey() || e.GetSequence() >= last {
				return fmt.Errorf("event %d of chat %q came after event %d, asked for was chat %q", e.GetSequence(), e.GetChatKey(), last, of.GetChatKey())
			}
			last = e.GetSequence()
			n--
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" && n > 0 {
			return fmt.Errorf("chat %q has %d events less than were asked for", of.GetChatKey(), n)
		}
	}
	return nil
}
