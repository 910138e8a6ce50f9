package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var pendingMetrics = []metric{
	{"heap per pending event", "pending-bytes", func(v float64) string { return fmt.Sprintf("%.0f bytes", v) }, true},
	{"heap", "heap-bytes", megabytes, true},
	{"resident", "rss-bytes", megabytes, true},
	{"heap with none pending", "idle-heap-bytes", megabytes, true},
	{"resident", "idle-rss-bytes", megabytes, true},
	{"filter by kind", "kind-ns", short, true},
	{"no answer for", "kind-away-ns", short, false},
	{"by expression", "cel-ns", short, true},
	{"no answer for", "cel-away-ns", short, false},
	{"seek", "seek-ns", short, true},
	{"no answer for", "seek-away-ns", short, false},
}

// pending measures the memory that a group without members takes, which has
// read the whole log, and how long it is away while its filter changes and while
// it is moved.
func (b *groupBench) pending(ctx context.Context, add func(string, ...float64)) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	limits := &sluicev1.GroupLimits{MaxPendingEvents: 10_000_000}
	// One that reads as much and wants none of it, to compare with.
	idle, _, err := b.footprintOf(ctx, &sluicev1.ConsumerGroup{
		Start: earliest(), Limits: limits, Filter: &sluicev1.EventFilter{Kinds: []string{"room_topic_changed"}},
	})
	if err != nil {
		return err
	}
	full, group, err := b.footprintOf(ctx, &sluicev1.ConsumerGroup{Start: earliest(), Limits: limits})
	if err != nil {
		return err
	}
	st, err := b.status(ctx, group)
	if err != nil {
		return err
	}
	if st.GetPending() == 0 {
		return errors.New("nothing is pending")
	}
	values := []float64{(full.heap - idle.heap) / float64(st.GetPending()), full.heap, full.resident, idle.heap, idle.resident}
	for _, change := range []func() error{
		func() error { return b.setFilter(ctx, group, &sluicev1.EventFilter{Kinds: []string{"message"}}) },
		func() error {
			return b.setFilter(ctx, group, &sluicev1.EventFilter{Expression: `event.message.text.text.contains("您好")`})
		},
		func() error {
			_, err := b.groups.SeekConsumerGroup(ctx, &sluicev1.SeekConsumerGroupRequest{ConsumerGroupId: group, To: earliest()})
			return err
		},
	} {
		took, away, err := b.away(ctx, group, change)
		if err != nil {
			return err
		}
		values = append(values, float64(took), float64(away))
	}
	add(fmt.Sprintf("events=%d", b.events), values...)
	return b.deleteGroup(ctx, group)
}

func (b *groupBench) setFilter(ctx context.Context, group string, f *sluicev1.EventFilter) error {
	_, err := b.groups.UpdateConsumerGroup(ctx, &sluicev1.UpdateConsumerGroupRequest{
		ConsumerGroupId: group, ConsumerGroup: &sluicev1.ConsumerGroup{Filter: f},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"filter"}},
	})
	return err
}

// away does something to a group and returns how long that took, and how long
// the slowest of the calls took that asked for its status meanwhile.
func (b *groupBench) away(ctx context.Context, group string, do func() error) (took, away time.Duration, err error) {
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- do() }()
	for {
		asked := time.Now()
		_, err := b.status(ctx, group)
		away = max(away, time.Since(asked))
		select {
		case doErr := <-done:
			return time.Since(begin), away, errors.Join(err, doErr)
		default:
		}
		if err != nil {
			return 0, 0, errors.Join(err, <-done)
		}
	}
}

// readAll waits until a group has read the log to its end.
func (b *groupBench) readAll(ctx context.Context, group string) error {
	for {
		st, err := b.status(ctx, group)
		if err != nil {
			return err
		}
		if st.GetPosition() >= uint64(b.posted) { //nolint:gosec // not negative
			return nil
		}
		if len(st.GetLimitsReached()) > 0 {
			return fmt.Errorf("the group reads no further: %v", st.GetLimitsReached())
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// footprintOf starts Sluice anew on its data, has a new group read the whole log,
// and returns what Sluice takes then.
func (b *groupBench) footprintOf(ctx context.Context, g *sluicev1.ConsumerGroup) (footprint, string, error) {
	if err := b.server.end(); err != nil {
		return footprint{}, "", err
	}
	if err := b.server.start(ctx); err != nil {
		return footprint{}, "", err
	}
	b.posted++ // the greeting
	group, err := b.newGroup(ctx, g)
	if err != nil {
		return footprint{}, "", err
	}
	if err := b.readAll(ctx, group); err != nil {
		return footprint{}, "", err
	}
	f, err := b.server.memory(ctx)
	return f, group, err
}

// A footprint is how much memory a process takes, in bytes.
type footprint struct{ heap, resident float64 }

// memory returns what Sluice takes when its garbage is collected. Of resident
// memory that includes what the runtime has freed and not given back yet.
func (s *server) memory(ctx context.Context) (footprint, error) {
	var stats []byte
	for range 3 { // what is kept to be used again takes more than one collection
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.httpAddr+"/debug/pprof/heap?gc=1&debug=1", nil)
		if err != nil {
			return footprint{}, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return footprint{}, err
		}
		stats, err = io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			return footprint{}, err
		}
	}
	found := regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`).FindSubmatch(stats)
	if found == nil {
		return footprint{}, errors.New("the heap profile does not say HeapAlloc")
	}
	heap, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		return footprint{}, err
	}
	resident, _, err := s.resident()
	return footprint{heap: heap, resident: resident}, err
}
