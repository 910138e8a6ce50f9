package ingest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

func TestDuplicates(t *testing.T) {
	message := text("m1", "hello")
	tests := map[string]struct{ first, again string }{
		"identical":      {message, message},
		"other token":    {message, strings.Replace(message, token, "another-token-of-the-same-source", 1)},
		"no token":       {message, strings.Replace(message, `"token":"`+token+`",`, "", 1)},
		"white space":    {message, strings.ReplaceAll(message, `,"`, ",\n\t\"")},
		"escapes":        {message, strings.Replace(message, "hello", `hell\u006f`, 1)},
		"order of names": {`{"a":1,"b":{"c":2,"d":3}}`, `{"b":{"d":3,"c":2},"a":1}`},
		"no id":          {`{"a":1}`, `{"a":1}`},
		"scalar":         {`1`, `1`},
		"not JSON":       {`{"a`, `{"a`},
		"empty":          {``, ``},
		"retry":          {corpus(t, "e07-retry-identical"), corpus(t, "d07-ent-type7-text")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := start(t, t.TempDir(), Config{})
			g.mustPost("/", tt.first)
			events, isolated := g.events.Durable(), g.quarantine.Durable()
			g.mustPost("/", tt.again)
			g.wantStored(events, isolated)
			if events+isolated != 1 {
				t.Errorf("the first is stored %d times", events+isolated)
			}
		})
	}
}

// Reordered keys of a message, where the stored body is compared.
func TestDuplicateReordered(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	g.mustPost("/",
		`{"messageId":"m1","botId":"b1","chatId":"c1","messageType":7,"payload":{"text":"x","pureText":"x"}}`,
		`{"payload":{"pureText":"x","text":"x"},"messageType":7,"chatId":"c1","botId":"b1","messageId":"m1"}`)
	g.wantStored(1, 0)
	if got := g.metric(g.service.metrics.duplicates, "default"); got != 1 {
		t.Errorf("duplicates = %v, want 1", got)
	}
}

// What looks alike and is not the same.
func TestNotDuplicates(t *testing.T) {
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "a", Path: "/a"}, {Name: "b", Path: "/b"}}})
	g.mustPost("/a", text("m1", "x"), `{"a":1}`, `{"a":"1"}`)
	g.mustPost("/b", text("m1", "x"), `{"a":1}`)
	g.mustPost("/a/room/left", `{"a":1}`)
	g.mustPost("/a", strings.Replace(text("m1", "x"), "b1", "b2", 1), text("m2", "x"))
	g.wantStored(8, 0)
	for _, e := range g.stored() {
		if e.GetRevisionOf() != 0 {
			t.Errorf("event %d is a revision of %d", e.GetSequence(), e.GetRevisionOf())
		}
	}
}

// The vendor pushes media up to three times with one id, and the second and
// third push may be retried, too.
func TestRevisions(t *testing.T) {
	dir := t.TempDir()
	pushes := []string{
		corpus(t, "e01-media-first-push-no-url"), corpus(t, "e02-media-second-push-loaded"), corpus(t, "e03-media-third-push-artwork"),
	}
	check := func(g *gate) {
		t.Helper()
		events := g.stored()
		if len(events) != 3 {
			t.Fatalf("%d events, want 3", len(events))
		}
		for i, want := range []uint64{0, 1, 1} {
			if got := events[i].GetRevisionOf(); got != want {
				t.Errorf("event %d: revision_of = %d, want %d", i+1, got, want)
			}
			if events[i].GetKey() != events[0].GetKey() {
				t.Errorf("event %d: key = %q, want %q", i+1, events[i].GetKey(), events[0].GetKey())
			}
		}
		if url := events[1].GetMessage().GetImage().GetUrl(); url == "" {
			t.Error("the second push has no URL")
		}
	}
	g := start(t, dir, Config{})
	g.mustPost("/", pushes...)
	check(g)
	g.mustPost("/", pushes...)
	check(g)
	if got := g.metric(g.service.metrics.revisions, "default"); got != 2 {
		t.Errorf("revisions = %v, want 2", got)
	}
	g.stop()

	g = start(t, dir, Config{}) // in the window
	g.mustPost("/", pushes[2], pushes[1], pushes[0])
	check(g)
}

// The same message on another path is another statement about it: some
// receivers get message bodies as send results.
func TestTwoPaths(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	for range 2 {
		g.mustPost("/", text("m1", "x"))
		g.mustPost("/message", text("m1", "x"))
		g.mustPost("/message/", text("m1", "x"))
	}
	events := g.stored()
	if len(events) != 2 || events[1].GetPath() != "/message" || events[1].GetRevisionOf() != 1 {
		t.Errorf("events = %v, want two, the second a revision of the first", events)
	}
}

func TestTwoBots(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	g.mustPost("/", corpus(t, "e05-same-message-bot-1"), corpus(t, "e06-same-message-bot-2"), corpus(t, "e05-same-message-bot-1"))
	events := g.stored()
	if len(events) != 2 {
		t.Fatalf("%d events, want 2", len(events))
	}
	if events[0].GetKey() == events[1].GetKey() || events[0].GetChatKey() == events[1].GetChatKey() {
		t.Errorf("two bots share a key: %q, %q", events[0].GetKey(), events[0].GetChatKey())
	}
	if got, want := events[0].GetKey(), "default/60aa00000000000000000b01/2c0115f88983f63ecd43fc6e00000386"; got != want {
		t.Errorf("key = %q, want %q", got, want)
	}
	if got, want := events[0].GetChatKey(), "default/60aa00000000000000000c11"; got != want {
		t.Errorf("chat_key = %q, want %q", got, want)
	}
}

// Twins arrive at the same time: one is stored, and all are answered.
func TestConcurrentTwins(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	var wg sync.WaitGroup
	for i := range 48 {
		wg.Go(func() { g.mustPost("/", text(fmt.Sprintf("m%d", i%3), fmt.Sprintf("x%d", i%6))) })
	}
	wg.Wait()
	first := make(map[string]uint64)
	for _, e := range g.stored() {
		if e.GetRevisionOf() == 0 {
			if first[e.GetKey()] != 0 {
				t.Errorf("two events with the key %q are the first", e.GetKey())
			}
			first[e.GetKey()] = e.GetSequence()
		} else if e.GetRevisionOf() != first[e.GetKey()] {
			t.Errorf("event %d is a revision of %d, want %d", e.GetSequence(), e.GetRevisionOf(), first[e.GetKey()])
		}
	}
	g.wantStored(6, 0)
}

// The first event is gone while its identity is still remembered.
func TestFirstRemoved(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	g.mustPost("/", text("m1", "first"))
	if err := g.events.Delete(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	g.mustPost("/", text("m1", "second"), text("m1", "second"))
	if got := g.events.Durable(); got != 2 {
		t.Fatalf("the log goes up to %d, want 2", got)
	}
	r, err := g.events.Get(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	e := &sluicev1.Event{}
	if err := proto.Unmarshal(r.Data, e); err != nil {
		t.Fatal(err)
	}
	if e.GetRevisionOf() != 0 || e.GetMessage().GetText().GetText() != "second" {
		t.Errorf("event 2 = %v, want a first event", e)
	}
}

func TestWindow(t *testing.T) {
	short := eventlog.LogConfig{Name: "EVENTS", DedupeWindow: 100 * time.Millisecond}
	g := start(t, t.TempDir(), Config{}, short)
	g.mustPost("/", text("m1", "x"))
	for g.events.Durable() < 2 { // ends when the window does; the test's deadline is the bound
		g.mustPost("/", text("m1", "x"))
	}
	if got := g.stored()[1].GetRevisionOf(); got != 0 {
		t.Errorf("revision_of = %d, want 0", got)
	}
}

// Each item of an array is an event with an identity of its own.
func TestArray(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	array := corpus(t, "s14-follow-timeout-array")
	g.mustPost("/api/follow/timeout", array)
	stored := g.events.Durable()
	if stored == 0 {
		t.Fatal("nothing is stored")
	}
	for _, e := range g.stored() {
		if len(e.GetRaw()) == 0 || len(e.GetRaw()) >= len(array) {
			t.Errorf("event %d: raw has %d bytes, want those of its item", e.GetSequence(), len(e.GetRaw()))
		}
	}
	g.mustPost("/api/follow/timeout", array)
	g.wantStored(stored, 0)

	item := `{"_id":"i%d","chatId":"c%d","round":%d,"userId":"u","botId":"b","name":"n","wxid":"7881300000000001",` +
		`"assignedTimestamp":1763365331161,"expectFollowUpTimestamp":1763365331161}`
	var items []string
	for i := range 100 {
		items = append(items, fmt.Sprintf(item, i, i%4, i))
	}
	g.mustPost("/api/follow/timeout", "["+strings.Join(items, ",")+"]")
	round := make(map[string]int32)
	for _, e := range g.stored()[stored:] {
		f := e.GetFollowUpTimeout()
		if last, seen := round[f.GetChatId()]; seen && f.GetRound() < last {
			t.Errorf("chat %s: round %d comes after %d", f.GetChatId(), f.GetRound(), last)
		}
		round[f.GetChatId()] = f.GetRound()
	}
	g.wantStored(stored+100, 0)
}

func TestKeys(t *testing.T) {
	long := strings.Repeat("x", maxPart+1)
	message := func(bot, id string) *sluicev1.Event {
		return &sluicev1.Event{Source: "s", Path: "/", Body: &sluicev1.Event_Message{
			Message: &sluicev1.Message{MessageId: id, Bot: &sluicev1.Bot{Id: bot}},
		}}
	}
	seen := make(map[string]string)
	for _, parts := range [][2]string{
		{"b", "m"}, {"", "b/m"}, {"b/m", ""}, {"b", "/m"}, {"b/", "m"}, {"b%2F", "m"}, {"b", "m\n"}, {"b", "m%0A"}, {"b", long}, {"b", long + "x"},
	} {
		key, hashed, err := identify(message(parts[0], parts[1]))
		if err != nil {
			t.Fatal(err)
		}
		if hashed != (parts[1] == "") {
			t.Errorf("identify(%q) says that it is a hash: %v", parts, hashed)
		}
		if len(key) > 2*maxPart {
			t.Errorf("identify(%q) has %d bytes", parts, len(key))
		}
		if other, taken := seen[key]; taken {
			t.Errorf("identify(%q) = %q, as that of %q", parts, key, other)
		}
		seen[key] = fmt.Sprint(parts)
	}
}

func TestChatKey(t *testing.T) {
	bot := &sluicev1.Bot{Wxid: "w1"}
	for want, m := range map[string]*sluicev1.Message{
		"s/c1":     {ChatId: "c1", Bot: bot, Room: &sluicev1.Room{Wxid: "r1"}},
		"s/w1/R:1": {Bot: bot, Room: &sluicev1.Room{Wxid: "R:1"}, Sender: &sluicev1.Contact{Wxid: "p1"}},
		"s/w1/p1":  {Bot: bot, Sender: &sluicev1.Contact{Wxid: "p1"}},
		"k":        {Bot: bot},
	} {
		e := &sluicev1.Event{Source: "s", Key: "k", Body: &sluicev1.Event_Message{Message: m}}
		if got := chatKey(e); got != want {
			t.Errorf("chatKey(%v) = %q, want %q", m, got, want)
		}
	}
}
