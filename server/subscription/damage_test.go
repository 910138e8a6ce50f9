package subscription

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/servertest/damage"
)

// damagedGate returns a gate over a log of 100 events of which some cannot be
// read, and says which: a byte of what is stored was flipped.
func damagedGate(t *testing.T) (*gate, *eventlog.DamagedError) {
	t.Helper()
	g := newGate(t, eventlog.LogConfig{})
	random := rand.NewChaCha8([32]byte{1})
	for i := range 100 {
		noise := make([]byte, 2<<10) // or all of it would be one block
		_, _ = random.Read(noise)
		g.post(text(fmt.Sprintf("%d %x", i, noise)))
	}
	g.closeEngine()
	g.open(eventlog.LogConfig{}) // the write-ahead log becomes a table
	g.closeEngine()
	damage.Table(t, g.dir)
	g.open(eventlog.LogConfig{})
	g.service.log = g.log
	var d *eventlog.DamagedError
	err := g.log.Scan(g.ctx, 1, 100, func(eventlog.Record) error { return nil })
	if !errors.As(err, &d) || d.First < 2 || d.Last > 99 || d.Last < d.First {
		t.Fatalf("Scan() = %v, want damage in the middle", err)
	}
	return g, d
}

func facts(d *eventlog.DamagedError) map[string]string {
	return map[string]string{
		"log": "EVENTS", "first_sequence": strconv.FormatUint(d.First, 10), "last_sequence": strconv.FormatUint(d.Last, 10),
	}
}

const damaged = sluicev1.ErrorReason_ERROR_REASON_EVENT_DAMAGED

func TestDamageEndsTheStream(t *testing.T) {
	g, d := damagedGate(t)
	for name, start := range map[string]*sluicev1.Position{
		"before": earliest(), "at it": atSequence(d.First), "a time": atTime(time.Unix(0, 0)),
	} {
		t.Run(name, func(t *testing.T) {
			s := g.subscribe(&sluicev1.SubscribeRequest{Start: start})
			o := s.opened()
			got, err := s.rest()
			wantError(t, err, codes.DataLoss, damaged, facts(d))
			want := upTo(o.GetFirstSequence(), d.First-1)
			if name == "at it" {
				want = nil
			}
			if !slices.Equal(sequences(got), want) {
				t.Errorf("before the damage: %v, want %v", sequences(got), want)
			}
		})
	}
	if n := g.metric("sluice_subscription_ended_total", "reason=damaged"); n != 3 {
		t.Errorf("%v streams ended with damage, want 3", n)
	}
}

func TestDamageIsReportedAndSkipped(t *testing.T) {
	g, d := damagedGate(t)
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: latest(), OnGap: sluicev1.OnGap_ON_GAP_SKIP})
	s.opened()
	var got []uint64
	gaps := 0
	for uint64(len(got)) < 100 {
		frame := s.next()
		if gap := frame.GetGap(); gap != nil {
			gaps++
			if gap.GetReason() != sluicev1.GapReason_GAP_REASON_DAMAGED || gap.GetFirstSequence() != d.First || gap.GetLastSequence() != d.Last {
				t.Errorf("gap = %v, want %d to %d, damaged", gap, d.First, d.Last)
			}
			if frame.GetCursor() != g.cursor(d.Last) {
				t.Errorf("the gap's cursor is not that of its last event")
			}
			got = append(got, upTo(gap.GetFirstSequence(), gap.GetLastSequence())...)
		}
		got = append(got, sequences(frame.GetEvents().GetEvents())...)
	}
	if !slices.Equal(got, upTo(1, 100)) || gaps != 1 {
		t.Errorf("events and %d gaps do not add up: %v", gaps, got)
	}
}

// A stop in the middle of a gap cuts it.
func TestGapEndsAtTheStop(t *testing.T) {
	g, d := damagedGate(t)
	s := g.subscribe(&sluicev1.SubscribeRequest{
		Start: atSequence(d.First - 1), Stop: atSequence(d.First), OnGap: sluicev1.OnGap_ON_GAP_SKIP,
	})
	s.opened()
	s.events(1)
	if gap := s.next().GetGap(); gap.GetFirstSequence() != d.First || gap.GetLastSequence() != d.First {
		t.Errorf("gap = %v, want %d alone", gap, d.First)
	}
	if got, err := s.rest(); err != nil || len(got) != 0 || s.cursor != g.cursor(d.First) {
		t.Errorf("behind the stop: %v, %v, cursor %s", sequences(got), err, s.cursor)
	}
}

func TestDamageFailsListsAndGet(t *testing.T) {
	g, d := damagedGate(t)
	for name, req := range map[string]*sluicev1.ListEventsRequest{
		"forward":    {PageSize: 1000},
		"backward":   {PageSize: 1000, NewestFirst: true},
		"from there": {Start: atSequence(d.Last)},
	} {
		_, err := g.client.ListEvents(g.ctx, req)
		wantError(t, err, codes.DataLoss, damaged, map[string]string{"log": "EVENTS", "last_sequence": strconv.FormatUint(d.Last, 10)})
		if err == nil {
			t.Errorf("%s: a list over damage has no error", name)
		}
	}
	_, err := g.client.GetEvent(g.ctx, &sluicev1.GetEventRequest{Sequence: d.First})
	wantError(t, err, codes.DataLoss, damaged, nil)
	after, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{Start: atSequence(d.Last + 1)})
	if err != nil || len(after.GetEvents()) == 0 || after.GetEvents()[0].GetSequence() != d.Last+1 {
		t.Errorf("behind the damage: %d events, %v", len(after.GetEvents()), err)
	}
	err = g.service.Scan(g.ctx, earliest(), nil, nil, func(*sluicev1.Event, bool) error { return nil })
	if !errors.As(err, new(*eventlog.DamagedError)) {
		t.Errorf("Scan() = %v, want damage", err)
	}
}

// What the storage can read and is no event is damaged, too.
func TestBytesThatAreNoEventAreDamaged(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(3)
	if _, err := g.log.Append(g.ctx, eventlog.Record{Subject: "x", Data: []byte("\xff")}); err != nil {
		t.Fatal(err)
	}
	g.postTexts(2)
	want := map[string]string{"log": "EVENTS", "first_sequence": "4", "last_sequence": "4"}
	_, err := g.client.GetEvent(g.ctx, &sluicev1.GetEventRequest{Sequence: 4})
	wantError(t, err, codes.DataLoss, damaged, want)
	_, err = g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{})
	wantError(t, err, codes.DataLoss, damaged, want)

	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: latest()})
	s.opened()
	got, err := s.rest()
	wantError(t, err, codes.DataLoss, damaged, want)
	if !slices.Equal(sequences(got), upTo(1, 3)) || s.cursor != g.cursor(3) {
		t.Errorf("before the damage: %v, cursor %s", sequences(got), s.cursor)
	}

	s = g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: latest(), OnGap: sluicev1.OnGap_ON_GAP_SKIP})
	s.opened()
	if got := s.events(3); !slices.Equal(sequences(got), upTo(1, 3)) {
		t.Errorf("before the gap: %v", sequences(got))
	}
	if gap := s.next().GetGap(); gap.GetFirstSequence() != 4 || gap.GetLastSequence() != 4 || gap.GetReason() != sluicev1.GapReason_GAP_REASON_DAMAGED {
		t.Errorf("gap = %v, want 4, damaged", gap)
	}
	if got, err := s.rest(); err != nil || !slices.Equal(sequences(got), upTo(5, 6)) {
		t.Errorf("after the gap: %v, %v", sequences(got), err)
	}
}

// Whether the first event after a time is among those that cannot be read is not
// known: a start is before them, a stop behind them.
func TestTimeInDamage(t *testing.T) {
	g, d := damagedGate(t)
	before, err := g.log.Get(g.ctx, d.First-1)
	if err != nil {
		t.Fatal(err)
	}
	at := before.Time.Add(time.Nanosecond)
	state := g.log.State()
	for isStop, want := range map[bool]uint64{false: d.First, true: d.Last + 1} {
		p, err := g.service.placeOfTime(g.ctx, at, state, isStop)
		if err != nil || p.sequence != want || !p.time.IsZero() {
			t.Errorf("placeOfTime(stop %v) = %+v, %v, want %d", isStop, p, err, want)
		}
	}
}
