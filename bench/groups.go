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
	*groupSettings
	server *server
	groups sluicev1.ConsumerGroupServiceClient
	posted int          // so far
	made   atomic.Int64 // groups so far
}

// groupSettings are the same for each Sluice that is measured.
type groupSettings struct {
	events  int           // to have in the log before a part that reads from its start
	window  time.Duration // of one measurement
	members int
	credits uint32 // of each member
	rate    int    // callbacks per second of a steady producer
	many    int    // groups beside callbacks that come in
}

// A groupPart measures once, and adds what it has found to a report.
type groupPart struct {
	name    string
	once    bool // it takes long, and one round will do
	metrics []metric
	run     func(b *groupBench, ctx context.Context, add func(work string, values ...float64)) error
}

// groupParts are in the order in which they are run: those that need a short log
// come first, and the one that leaves a long chat, which bounds all that settle
// the whole log, last.
var groupParts = []groupPart{
	{"latency", false, deliveryMetrics, (*groupBench).latency},
	{"many", false, manyMetrics, (*groupBench).beside},
	{"settle", false, settleMetrics, (*groupBench).settle},
	{"stuck", false, stuckMetrics, (*groupBench).stuck},
	{"create", false, createMetrics, (*groupBench).create},
	{"pending", true, pendingMetrics, (*groupBench).pending},
	{"restart", true, restartMetrics, (*groupBench).restart},
	{"single", false, singleMetrics, (*groupBench).single},
}

// runGroups measures consumer groups, part by part.
func runGroups(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("groups", flag.ContinueOnError)
	var s setup
	s.register(flags)
	names := make([]string, len(groupParts))
	for i, p := range groupParts {
		names[i] = p.name
	}
	parts := flags.String("parts", strings.Join(names, ","), "what to measure, separated by commas")
	settings := &groupSettings{}
	flags.IntVar(&settings.events, "events", 1_000_000, "how many events the log holds where its length matters")
	rounds := flags.Int("rounds", 3, "how often each part is measured, but for those that take long")
	flags.DurationVar(&settings.window, "duration", 1500*time.Millisecond, "how long each measurement takes")
	flags.IntVar(&settings.members, "members", 8, "members of a group")
	credits := flags.Uint("credits", 256, "how many events each member is ready to hold")
	flags.IntVar(&settings.rate, "rate", 2000, "callbacks per second of the steady producer")
	flags.IntVar(&settings.many, "many", 50, "how many groups are active beside callbacks")
	if err := flags.Parse(args); err != nil {
		return err
	}
	settings.credits = uint32(*credits) //nolint:gosec // the server refuses too many
	wanted := strings.Split(*parts, ",")
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	r, err := newRig(ctx, s, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	benches, closeAll, err := r.groupBenches(ctx, settings)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	for _, p := range groupParts {
		if slices.Contains(wanted, p.name) {
			if err := r.runPart(ctx, p, benches, *rounds, out); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

// groupBenches starts each Sluice. The function that it returns ends them, and
// is to be called with an error, too.
func (r *rig) groupBenches(ctx context.Context, settings *groupSettings) (all []*groupBench, closeAll func() error, err error) {
	servers, err := r.startAll(ctx)
	var conns []*grpc.ClientConn
	closeAll = func() error {
		var errs []error
		for _, c := range conns {
			errs = append(errs, c.Close())
		}
		return errors.Join(append(errs, stopAll(servers))...)
	}
	if err != nil {
		return nil, closeAll, err
	}
	for _, s := range servers {
		conn, err := grpc.NewClient(s.grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, closeAll, err
		}
		conns = append(conns, conn)
		all = append(all, &groupBench{
			groupSettings: settings, server: s, groups: sluicev1.NewConsumerGroupServiceClient(conn),
			posted: 1, // with which it was greeted
		})
	}
	return all, closeAll, nil
}

// runPart measures a part with each Sluice in turns, and prints what it finds.
func (r *rig) runPart(ctx context.Context, p groupPart, benches []*groupBench, rounds int, out io.Writer) error {
	if p.once {
		rounds = 1
	}
	found := &report{name: "Groups/part=" + p.name, metrics: p.metrics}
	for range rounds {
		for i, b := range benches {
			name := r.sluice[i].name
			add := func(work string, values ...float64) { found.add(work, name, values...) }
			if err := p.run(b, ctx, add); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	fmt.Fprintf(out, "\n**%s**, %d rounds; the log has %d events now\n\n", p.name, rounds, benches[0].posted)
	found.print(out, r.pairs()...)
	return found.save(r.benchstat)
}

// post posts a load to Sluice.
func (b *groupBench) post(ctx context.Context, l load) (result, error) {
	r, err := b.server.measure(ctx, l)
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

// settled returns the deliveries that a crew settles per second while d passes,
// and the server's processor time for each.
func (b *groupBench) settled(ctx context.Context, c *crew, d time.Duration) (perSecond, each float64, err error) {
	before, err := b.server.processorTime()
	if err != nil {
		return 0, 0, err
	}
	count := c.settled.Load()
	if perSecond, err = c.rate(ctx, d); err != nil {
		return 0, 0, err
	}
	count = c.settled.Load() - count
	after, err := b.server.processorTime()
	return perSecond, float64(after-before) / float64(max(1, count)), err
}

// with runs do while the members of a group work.
func (c *crew) with(ctx context.Context, do func() error) error {
	if err := c.start(ctx); err != nil {
		return err
	}
	defer c.stop()
	return do()
}
