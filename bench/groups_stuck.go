package main

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var stuckMetrics = []metric{
	{"settled/s", "settled/s", whole, true},
	{"in the group beside it", "beside-settled/s", whole, true},
	{"ratio", "of-beside", hundredths, false},
}

// stuck measures how much one chat that does not go on costs the others. A group
// with such a chat and one without work at the same time, so that all else that
// the machine does meanwhile is the same for both.
func (b *groupBench) stuck(ctx context.Context, add func(string, ...float64)) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	block := &sluicev1.RetryPolicy{MaxAttempts: 1, OnExhausted: sluicev1.OnExhausted_ON_EXHAUSTED_BLOCK_CHAT}
	never := &sluicev1.RetryPolicy{MaxAttempts: -1}
	for _, kind := range []struct {
		name    string
		retry   *sluicev1.RetryPolicy
		verdict func(*sluicev1.Delivery) *sluicev1.Settlement
	}{
		{"chat=never-settled", never, func(*sluicev1.Delivery) *sluicev1.Settlement { return nil }},
		{"chat=always-nacked", never, nack},
		{"chat=blocked", block, nack},
	} {
		g, ctx := errgroup.WithContext(ctx)
		var with, without float64
		g.Go(func() (err error) {
			with, err = b.oneChat(ctx, kind.retry, kind.verdict)
			return err
		})
		g.Go(func() (err error) {
			without, err = b.oneChat(ctx, kind.retry, ack)
			return err
		})
		if err := g.Wait(); err != nil {
			return err
		}
		add(kind.name, with, without, with/without)
	}
	return nil
}

func nack(d *sluicev1.Delivery) *sluicev1.Settlement {
	return &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Nack{Nack: &sluicev1.Nack{Reason: "stuck"}}}
}

// oneChat has a new group work on the log from its start, and returns what is
// settled per second while verdict says what becomes of the first chat that
// comes.
func (b *groupBench) oneChat(
	ctx context.Context, retry *sluicev1.RetryPolicy, verdict func(*sluicev1.Delivery) *sluicev1.Settlement,
) (float64, error) {
	group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{Start: earliest(), Retry: retry})
	if err != nil {
		return 0, err
	}
	var chat atomic.Pointer[string]
	c := b.crew(group)
	c.verdict = func(d *sluicev1.Delivery) *sluicev1.Settlement {
		key := d.GetEvents()[0].GetChatKey()
		if chat.CompareAndSwap(nil, &key) || *chat.Load() == key {
			return verdict(d)
		}
		return ack(d)
	}
	var got float64
	err = c.with(ctx, func() error {
		if _, err := c.rate(ctx, b.window/4); err != nil {
			return err
		}
		got, err = c.rate(ctx, b.window)
		return err
	})
	return got, errors.Join(err, b.deleteGroup(ctx, group))
}
