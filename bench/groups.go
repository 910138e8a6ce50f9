package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// groupChats is how many conversations a group works on.
const groupChats = 10_000

// groupBench is what the parts of the measurement of consumer groups share: one
// Sluice, whose log grows from part to part.
type groupBench struct {
	server  *server
	out     io.Writer
	groups  sluicev1.ConsumerGroupServiceClient
	events  int // to have in the log before a part that reads from its start
	posted  int // so far
	rounds  int
	window  time.Duration // of one measurement
	members int
	credits uint32       // of each member
	rate    int          // callbacks per second of a steady producer
	made    atomic.Int64 // groups so far
}

// The parts, in the order in which they are run: those that need a short log
// come first.
var groupParts = []struct {
	name string
	run  func(*groupBench, context.Context) error
}{
	{"latency", (*groupBench).latency},
	{"single", (*groupBench).single},
	{"settle", (*groupBench).settle},
	{"stuck", (*groupBench).stuck},
	{"create", (*groupBench).create},
	{"pending", (*groupBench).pending},
	{"restart", (*groupBench).restart},
}

// runGroups measures consumer groups, part by part.
func runGroups(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("groups", flag.ContinueOnError)
	names := make([]string, len(groupParts))
	for i, p := range groupParts {
		names[i] = p.name
	}
	parts := flags.String("parts", strings.Join(names, ","), "what to measure, separated by commas")
	b := &groupBench{out: out}
	flags.IntVar(&b.events, "events", 1_000_000, "how many events the log holds where its length matters")
	flags.IntVar(&b.rounds, "rounds", 3, "how often each throughput is measured")
	flags.DurationVar(&b.window, "duration", 1500*time.Millisecond, "how long each measurement takes")
	flags.IntVar(&b.members, "members", 8, "members of a group")
	credits := flags.Uint("credits", 256, "how many events each member is ready to hold")
	flags.IntVar(&b.rate, "rate", 2000, "callbacks per second of the steady producer")
	var setup setup
	setup.register(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	b.credits = uint32(*credits) //nolint:gosec // the server refuses too many
	for name := range strings.SplitSeq(*parts, ",") {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	r, err := newRig(ctx, setup, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if b.server, err = r.start(ctx, r.sluice[0]); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.server.stop()) }()
	conn, err := grpc.NewClient(b.server.grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	b.groups = sluicev1.NewConsumerGroupServiceClient(conn)
	b.posted = 1 // with which the server was greeted
	for _, p := range groupParts {
		if slices.Contains(strings.Split(*parts, ","), p.name) {
			if err := p.run(b, ctx); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

// post posts a load to Sluice.
func (b *groupBench) post(ctx context.Context, l load) (result, error) {
	l.addr = b.server.callbackAddr
	r, err := l.run(ctx)
	b.posted += len(r.latencies)
	return r, err
}

// fill posts until the log holds b.events.
func (b *groupBench) fill(ctx context.Context) error {
	for b.posted < b.events {
		if _, err := b.post(ctx, load{connections: 64, duration: time.Second, chats: groupChats}); err != nil {
			return err
		}
	}
	return nil
}

// earliest and latest are where groups begin.
func earliest() *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}}
}

func latest() *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_LATEST}}
}

// newGroup creates a group and returns its name.
func (b *groupBench) newGroup(ctx context.Context, g *sluicev1.ConsumerGroup) (string, error) {
	name := fmt.Sprintf("bench-%d", b.made.Add(1))
	_, err := b.groups.CreateConsumerGroup(ctx, &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: name, ConsumerGroup: g})
	return name, err
}

func (b *groupBench) deleteGroup(ctx context.Context, name string) error {
	_, err := b.groups.DeleteConsumerGroup(ctx, &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: name})
	return err
}

func (b *groupBench) status(ctx context.Context, name string) (*sluicev1.ConsumerGroupStatus, error) {
	res, err := b.groups.GetConsumerGroupStatus(ctx, &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: name})
	return res.GetStatus(), err
}

// crew returns members of a group, not started.
func (b *groupBench) crew(group string) *crew {
	return &crew{addr: b.server.grpcAddr, group: group, members: b.members, credits: b.credits}
}

// with runs do while the members of a group work.
func (c *crew) with(ctx context.Context, do func() error) error {
	if err := c.start(ctx); err != nil {
		return err
	}
	defer c.stop()
	return do()
}
