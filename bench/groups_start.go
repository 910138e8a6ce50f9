package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var createMetrics = []metric{{"first delivery after", "create-ns", short, true}}

// create measures the time from the call that creates a group over the whole
// log to its first delivery, its members' connecting included.
func (b *groupBench) create(ctx context.Context, add func(string, ...float64)) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	begin := time.Now()
	group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{Start: earliest()})
	if err != nil {
		return err
	}
	first := make(chan time.Duration, 1) // the others do not count
	c := b.crew(group)
	c.verdict = func(d *sluicev1.Delivery) *sluicev1.Settlement {
		select {
		case first <- time.Since(begin):
		default:
		}
		return ack(d)
	}
	err = c.with(ctx, func() error { return c.until(ctx, func() bool { return len(first) > 0 }) })
	if err := errors.Join(err, b.deleteGroup(ctx, group)); err != nil {
		return err
	}
	add(fmt.Sprintf("events=%d", b.events), float64(<-first))
	return nil
}

var restartMetrics = []metric{
	{"settled/s", "settled/s", whole, true},
	{"ready after SIGTERM", "term-start-ns", short, true},
	{"the group after that", "term-group-ns", short, false},
	{"ready after SIGKILL", "kill-start-ns", short, true},
	{"the group after that", "kill-group-ns", short, false},
}

// restart measures how long a restart takes for a group that has settled the
// whole log: from the start of the process to an answer of the group's.
func (b *groupBench) restart(ctx context.Context, add func(string, ...float64)) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	group, err := b.newGroup(ctx, &sluicev1.ConsumerGroup{Start: earliest()})
	if err != nil {
		return err
	}
	c := b.crew(group)
	begin := time.Now()
	err = c.with(ctx, func() error { return c.until(ctx, func() bool { return c.settled.Load() >= int64(b.posted) }) })
	if err != nil {
		return err
	}
	values := []float64{float64(c.settled.Load()) / time.Since(begin).Seconds()}
	for _, end := range []func() error{b.server.end, b.server.kill} {
		if err := end(); err != nil {
			return err
		}
		begin := time.Now()
		if err := b.server.start(ctx); err != nil {
			return err
		}
		b.posted++ // the greeting
		up := time.Since(begin)
		st, err := b.status(ctx, group)
		if err != nil {
			return err
		}
		values = append(values, float64(up), float64(time.Since(begin)-up))
		if st.GetPending()+st.GetOutstanding() > 2 { // the greetings
			return fmt.Errorf("after a restart %d events are pending", st.GetPending()+st.GetOutstanding())
		}
	}
	add(fmt.Sprintf("events=%d", b.events), values...)
	return b.deleteGroup(ctx, group)
}
