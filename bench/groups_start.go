package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// create measures the time from the call that creates a group over the whole
// log to its first delivery. Its member connects beforehand, as one that waits
// for the group does.
func (b *groupBench) create(ctx context.Context) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	var times []time.Duration
	for range b.rounds {
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
		times = append(times, <-first)
	}
	fmt.Fprintf(b.out, "\na new group over %d events delivers its first one after %s (%s–%s), its members' connecting included\n",
		b.posted, micros(median(times)), micros(slices.Min(times)), micros(slices.Max(times)))
	return nil
}

// restart measures how long a restart takes for a group that has settled the
// whole log: from the start of the process to an answer of the group's.
func (b *groupBench) restart(ctx context.Context) error {
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
	fmt.Fprintf(b.out, "\n%d events settled in %v\n\n", c.settled.Load(), time.Since(begin).Round(time.Millisecond))
	fmt.Fprintln(b.out, "| stopped by | Sluice answers after | the group after that |\n|---|---:|---:|")
	for _, stop := range []struct {
		name string
		end  func() error
	}{{"SIGTERM", b.server.end}, {"SIGKILL", b.server.kill}} {
		if err := stop.end(); err != nil {
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
		fmt.Fprintf(b.out, "| %s | %v | %v |\n", stop.name, up.Round(time.Millisecond), (time.Since(begin) - up).Round(time.Millisecond))
		if st.GetPending()+st.GetOutstanding() > 2 { // the greetings
			return fmt.Errorf("after a restart %d events are pending", st.GetPending()+st.GetOutstanding())
		}
	}
	return b.deleteGroup(ctx, group)
}
