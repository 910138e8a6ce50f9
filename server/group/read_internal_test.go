package group

import (
	"context"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/subscription"
)

// storeMany appends n events of the given size at least, in no order.
func storeMany(t *testing.T, s *Service, n, size int) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(256)
	for i := range n {
		g.Go(func() error {
			e := &sluicev1.Event{
				ChatKey: string(rune('a' + i)), ReceiveTime: timestamppb.Now(), Raw: make([]byte, size),
				Body: &sluicev1.Event_Message{Message: &sluicev1.Message{IsSelf: new(i%2 == 0)}},
			}
			data, err := record.Encode(e)
			if err != nil {
				return err
			}
			_, err = s.events.Append(ctx, eventlog.Record{Subject: record.Subject(e), Data: data})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestReadsOnWhenNeeded holds that a group whose members have enough to do reads
// no further than it must, and that all comes nevertheless.
func TestReadsOnWhenNeeded(t *testing.T) {
	s := open(t)
	r, err := s.group(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const credits, events = 10, 3 * maxAhead
	m := newSession("m")
	err = r.call(ctx, func(c *core) error {
		return c.open(m, 0, schedule.Credits{Events: credits, Bytes: 1 << 30})
	})
	if err != nil {
		t.Fatal(err)
	}
	storeMany(t, s, events, 1)
	var stopped uint64 // where the group reads no further
	for stopped == 0 {
		err := r.call(ctx, func(c *core) error {
			if p := c.scheduler.Position(); c.sated || p == events {
				stopped = p
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if stopped < maxAhead || stopped > 2*maxAhead {
		t.Errorf("with %d events handed out it has read %d of %d, want about %d", credits, stopped, events, maxAhead)
	}
	var got []uint64
	for len(got) < events {
		select {
		case <-m.ready:
		case <-ctx.Done():
			t.Fatalf("%d of %d events came", len(got), events)
		}
		frames, _, _ := m.take()
		for _, f := range frames {
			got = append(got, f.delivery.Sequences...)
		}
		err := r.call(ctx, func(c *core) error {
			for _, f := range frames {
				c.scheduler.Settle(f.delivery.Lease, schedule.Verdict{Kind: schedule.Ack})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != events || got[0] != 1 {
		t.Errorf("%d different events came, want %d", len(slices.Compact(got)), events)
	}
	if err := r.call(ctx, func(c *core) error { c.leave(m); return nil }); err != nil {
		t.Fatal(err)
	}
	storeMany(t, s, 2*maxAhead, 1)
	for position := uint64(0); position < events+2*maxAhead; { // nobody to wait for: it reads all
		err := r.call(ctx, func(c *core) error { position = c.scheduler.Position(); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestShelf holds that a shelf has what the log has, in bounded memory.
func TestShelf(t *testing.T) {
	s := open(t)
	const size = maxShelf / 100
	storeMany(t, s, 150, size)
	if err := s.events.Delete(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	shelf := newShelf(s.events)
	for _, want := range [][]uint64{{150}, {3, 1, 2}, {100, 50, 1}, upTo(150), {9, 7}, upTo(150)} {
		found, err := shelf.get(t.Context(), slices.Clone(want))
		if err != nil {
			t.Fatal(err)
		}
		for _, sequence := range want {
			if rec, held := found.records[sequence]; held != (sequence != 7) || held && (rec.Sequence != sequence || len(rec.Data) < size) {
				t.Errorf("get(%v) has %d: %v", want, sequence, held)
			}
		}
		bytes := 0
		for _, rec := range shelf.records {
			bytes += len(rec.Data)
		}
		if bytes != shelf.bytes || bytes > maxShelf || len(shelf.order) != len(shelf.records) {
			t.Errorf("%d bytes are kept, %d counted, want at most %d; %d records in a list of %d",
				bytes, shelf.bytes, maxShelf, len(shelf.records), len(shelf.order))
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newShelf(s.events).get(gone, []uint64{1}); err == nil {
		t.Error("get() with a context that has ended succeeded")
	}
}

// TestScanEndsAtItsEnd holds that what lies behind the end is not looked at, even
// when there are holes before it.
func TestScanEndsAtItsEnd(t *testing.T) {
	s := open(t)
	storeMany(t, s, 10, 1)
	for _, n := range []uint64{5, 6, 7} {
		if err := s.events.Delete(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	var got []uint64
	err := s.scan(t.Context(), new(subscription.Filter), 4, 8, func(e schedule.Event) { got = append(got, e.Sequence) },
		func(d *eventlog.DamagedError) { t.Error(d) })
	if err != nil || !slices.Equal(got, []uint64{4, 8}) {
		t.Errorf("scan() = %v, %v, want 4 and 8", got, err)
	}
}

func upTo(n uint64) []uint64 {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i) + 1
	}
	return all
}
