package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var manyMetrics = append(ingestMetrics[:len(ingestMetrics):len(ingestMetrics)],
	metric{"settled/s meanwhile", "settled/s", whole, false},
	metric{"all settled after", "settled-after-ns", short, false})

// beside measures callbacks that come in as fast as they are answered while no
// group is active, and while many are that follow the log with a member each:
// groups that share the chats among them, and groups that want everything.
func (b *groupBench) beside(ctx context.Context, add func(string, ...float64)) error {
	for _, kind := range []struct {
		name   string
		groups int
		copies int // deliveries of each event
		wants  func(group int) *sluicev1.EventFilter
	}{
		{"groups=0", 0, 0, nil},
		{fmt.Sprintf("groups=%d/want=own-chats", b.many), b.many, 1, b.ownChats},
		{fmt.Sprintf("groups=%d/want=all", b.many), b.many, b.many, func(int) *sluicev1.EventFilter { return nil }},
	} {
		crews, err := b.followers(ctx, kind.groups, kind.wants)
		if err != nil {
			return err
		}
		values, err := b.postBeside(ctx, crews, kind.copies)
		for _, c := range crews {
			err = errors.Join(err, b.deleteGroup(ctx, c.group))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		add(kind.name, values...)
	}
	return nil
}

// chatsEach is how many chats there are for each of many groups.
const chatsEach = 100

// ownChats is the filter of one of b.many groups that share the chats.
func (b *groupBench) ownChats(group int) *sluicev1.EventFilter {
	f := &sluicev1.EventFilter{}
	for i := range chatsEach {
		f.ChatIds = append(f.ChatIds, chatID(uint64(group*chatsEach+i))) //nolint:gosec // not negative
	}
	return f
}

// followers returns the crews, of one member each and not started, of new groups
// that start at the end of the log.
func (b *groupBench) followers(ctx context.Context, n int, wants func(int) *sluicev1.EventFilter) (all []*crew, err error) {
	for i := range n {
		group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{Start: latest(), Filter: wants(i)})
		if err != nil {
			return nil, err
		}
		c := b.crew(group)
		c.members = 1
		all = append(all, c)
	}
	return all, nil
}

// postBeside posts while all crews work, waits until they have settled the given
// number of copies of what was posted, and returns the values of manyMetrics.
func (b *groupBench) postBeside(ctx context.Context, crews []*crew, copies int) ([]float64, error) {
	var settled int64
	count := func() int64 {
		settled = 0
		for _, c := range crews {
			settled += c.settled.Load()
		}
		return settled
	}
	for _, c := range crews {
		if err := c.start(ctx); err != nil {
			return nil, err
		}
		defer c.stop()
	}
	r, err := b.post(ctx, load{connections: 64, chats: b.many * chatsEach, duration: b.window})
	if err != nil {
		return nil, err
	}
	meanwhile, ended, want := count(), time.Now(), int64(copies*len(r.latencies))
	for _, c := range crews {
		if err := c.until(ctx, func() bool { return count() >= want }); err != nil {
			return nil, err
		}
	}
	if settled != want {
		return nil, fmt.Errorf("%d deliveries were settled, want %d", settled, want)
	}
	return append(r.ingestValues(), float64(meanwhile)/r.elapsed.Seconds(), float64(time.Since(ended))), nil
}
