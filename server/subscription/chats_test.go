package subscription

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// of is a text of a chat.
func of(chat, s string) *sluicev1.Event {
	e := text(s)
	e.ChatKey = chat
	return e
}

// A stream of some chats has all of their events in order, by the index and then
// from memory.
func TestStreamsOfChatsAddUp(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	held := make(map[uint64]string)
	last := uint64(0)
	for i := range 400 {
		chat := []string{"often", "often", "often", "at times", fmt.Sprint("once ", i)}[i%5]
		if i > 200 && chat == "at times" {
			chat = "late"
		}
		last = g.post(of(chat, fmt.Sprint(i)))
		held[last] = chat
	}
	for n := uint64(3); n < last; n += 9 {
		if err := g.log.Delete(g.ctx, n); err != nil {
			t.Fatal(err)
		}
		delete(held, n)
	}
	rapid.Check(t, func(t *rapid.T) {
		g.service.minIndexed = rapid.SampledFrom([]uint64{0, 1, 100}).Draw(t, "min_indexed")
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"often", "at times", "late", "once 4", "once 399", "nobody"}), 1, 4).Draw(t, "chats")
		first, stop := rapid.Uint64Range(1, last+1).Draw(t, "first"), rapid.Uint64Range(1, last).Draw(t, "stop")
		want := []uint64{}
		for n := first; n <= stop; n++ {
			if chat, ok := held[n]; ok && slices.Contains(keys, chat) {
				want = append(want, n)
			}
		}
		s := g.subscribe(&sluicev1.SubscribeRequest{
			Start: atSequence(first), Stop: atSequence(stop), Filter: &sluicev1.EventFilter{ChatKeys: keys},
		})
		s.opened()
		if got, err := s.rest(); err != nil || !slices.Equal(sequences(got), want) {
			t.Fatalf("%q from %d to %d = %v, %v, want %v", keys, first, stop, sequences(got), err, want)
		}
	})
}

// Who reads a chat by the index goes on with what comes.
func TestStreamOfAChatFollows(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.service.minIndexed = 0
	for i := range 20 {
		g.post(of([]string{"a", "b"}[i%2], fmt.Sprint(i)))
	}
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Filter: &sluicev1.EventFilter{ChatKeys: []string{"a"}}})
	s.opened()
	if got := s.caughtUp(); len(got) != 10 || s.cursor != g.cursor(20) {
		t.Errorf("%v, cursor %s, want every second one, and the end of the log", sequences(got), s.cursor)
	}
	g.post(of("b", "20"), of("a", "21"))
	if got := s.events(1); got[0].GetSequence() != 22 {
		t.Errorf("then %v, want 22", sequences(got))
	}
}

// Damage of a chat is met by the index as it is without.
func TestDamageInAChat(t *testing.T) {
	g, d := damagedGate(t)
	g.service.minIndexed = 0
	filter := &sluicev1.EventFilter{ChatKeys: []string{"acme/c1", "acme/c2"}}
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Stop: latest(), OnGap: sluicev1.OnGap_ON_GAP_SKIP, Filter: filter})
	s.opened()
	var got []uint64
	for uint64(len(got)) < 100 {
		frame := s.next()
		if gap := frame.GetGap(); gap != nil {
			got = append(got, upTo(gap.GetFirstSequence(), gap.GetLastSequence())...)
			if gap.GetFirstSequence() < d.First || gap.GetLastSequence() > d.Last || gap.GetReason() != sluicev1.GapReason_GAP_REASON_DAMAGED {
				t.Errorf("gap = %v, want damage from %d to %d", gap, d.First, d.Last)
			}
		}
		got = append(got, sequences(frame.GetEvents().GetEvents())...)
	}
	if !slices.Equal(got, upTo(1, 100)) {
		t.Errorf("events and gaps do not add up: %v", got)
	}
	s = g.subscribe(&sluicev1.SubscribeRequest{Start: earliest(), Filter: filter})
	s.opened()
	before, err := s.rest()
	wantError(t, err, codes.DataLoss, damaged, nil)
	if !slices.Equal(sequences(before), upTo(1, d.First-1)) {
		t.Errorf("before the damage: %v, want up to %d", sequences(before), d.First-1)
	}
	for _, newest := range []bool{false, true} {
		_, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{PageSize: 1000, NewestFirst: newest, Filter: filter})
		wantError(t, err, codes.DataLoss, damaged, nil)
	}
}

// What retention has removed is a gap of a chat, too.
func TestChatBehindRetention(t *testing.T) {
	g := newGate(t, small)
	g.service.minIndexed = 0
	for i := range 300 {
		g.post(large(i))
	}
	g.retained()
	filter := &sluicev1.EventFilter{ChatKeys: []string{"acme/c1"}}
	s := g.subscribe(&sluicev1.SubscribeRequest{Start: atSequence(1), OnGap: sluicev1.OnGap_ON_GAP_SKIP, Filter: filter})
	s.opened()
	gap := s.next().GetGap()
	if gap.GetFirstSequence() != 1 || gap.GetReason() != sluicev1.GapReason_GAP_REASON_REMOVED {
		t.Fatalf("gap = %v, want one from 1 on", gap)
	}
	if got := s.caughtUp(); !slices.Equal(sequences(got), upTo(gap.GetLastSequence()+1, 300)) {
		t.Errorf("after the gap: %v", sequences(got))
	}
}

// A record that a filter passes by without its data may hold anything, and of one
// that it selects only what is sent is looked at.
func TestFiltersDoNotDecode(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	for name, filter := range map[string]*sluicev1.EventFilter{
		"kinds":         {Kinds: []string{"message"}},
		"message_types": {MessageTypes: []sluicev1.MessageType{sluicev1.MessageType_MESSAGE_TYPE_TEXT}},
		"sources":       {Sources: []string{"acme"}},
		"bot_ids":       {BotIds: []string{"bot-1"}},
		"chat_keys":     {ChatKeys: []string{"acme/c1"}},
	} {
		selector, err := g.service.selector(filter, false)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := selector.selects(g.ctx, stored(text("x"))); !ok || err != nil {
			t.Errorf("%s: garbage that is selected = %v, %v, want true", name, ok, err)
		}
		other := &sluicev1.Event{Source: "other", ChatKey: "other", Body: &sluicev1.Event_Other{}}
		if ok, err := selector.selects(g.ctx, stored(other)); ok || err != nil {
			t.Errorf("%s: garbage that is not selected = %v, %v, want false", name, ok, err)
		}
		want := g.post(text(name))
		if _, err := g.log.Append(g.ctx, eventlog.Record{Subject: record.Subject(other), Key: "other", Data: []byte("\xff")}); err != nil {
			t.Fatal(err)
		}
		s := g.subscribe(&sluicev1.SubscribeRequest{Start: atSequence(want), Stop: latest(), Filter: filter})
		s.opened()
		if got, err := s.rest(); err != nil || !slices.Equal(sequences(got), []uint64{want}) {
			t.Errorf("%s: %v, %v, want event %d", name, sequences(got), err, want)
		}
	}
}
