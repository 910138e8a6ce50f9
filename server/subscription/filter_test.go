package subscription

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

func mustCompile(tb testing.TB, f *sluicev1.EventFilter) *Filter {
	tb.Helper()
	compiled, err := Compile(f)
	if err != nil {
		tb.Fatalf("Compile(%v): %v", f, err)
	}
	return compiled
}

func TestFilterSelects(t *testing.T) {
	invoice := &sluicev1.Event{
		Source: "acme",
		Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
			ChatId: "c1", Type: sluicev1.MessageType_MESSAGE_TYPE_TEXT,
			Bot: &sluicev1.Bot{Id: "b1", Wxid: "w1"}, Room: &sluicev1.Room{Wxid: "r1"},
			IsSelf: proto.Bool(false), MentionSelf: proto.Bool(true),
			Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: "请开发票，谢谢"}},
		}},
	}
	bare := &sluicev1.Event{Source: "other", Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
		Bot: &sluicev1.Bot{Wxid: "w2"},
	}}}
	sent := &sluicev1.Event{Source: "acme", Body: &sluicev1.Event_SendResult{SendResult: &sluicev1.SendResult{
		ChatId: "c1", Sent: proto.Bool(true), Bot: &sluicev1.Bot{Id: "b1"},
	}}}
	timeout := &sluicev1.Event{Source: "acme", Body: &sluicev1.Event_FollowUpTimeout{FollowUpTimeout: &sluicev1.FollowUpTimeout{BotId: "b1"}}}
	all := []*sluicev1.Event{invoice, bare, sent, timeout}
	const i, b, s, f = 1, 2, 4, 8 // invoice, bare, sent, timeout

	expression := func(x string) *sluicev1.EventFilter { return &sluicev1.EventFilter{Expression: x} }
	tests := map[string]struct {
		filter *sluicev1.EventFilter
		want   int
	}{
		"nothing set":           {nil, i | b | s | f},
		"empty":                 {&sluicev1.EventFilter{}, i | b | s | f},
		"source":                {&sluicev1.EventFilter{Sources: []string{"acme"}}, i | s | f},
		"values are an or":      {&sluicev1.EventFilter{Sources: []string{"other", "acme"}}, i | b | s | f},
		"fields are an and":     {&sluicev1.EventFilter{Sources: []string{"acme"}, Kinds: []string{"message"}}, i},
		"bot by id":             {&sluicev1.EventFilter{BotIds: []string{"b1"}}, i | s | f},
		"bot by wxid":           {&sluicev1.EventFilter{BotIds: []string{"w2"}}, b},
		"bot has an id":         {&sluicev1.EventFilter{BotIds: []string{"w1"}}, 0},
		"chat":                  {&sluicev1.EventFilter{ChatIds: []string{"c1"}}, i | s},
		"room":                  {&sluicev1.EventFilter{RoomWxids: []string{"r1"}}, i},
		"type":                  {&sluicev1.EventFilter{MessageTypes: []sluicev1.MessageType{7}}, i},
		"type 0 is of messages": {&sluicev1.EventFilter{MessageTypes: []sluicev1.MessageType{0}}, b},
		"unnamed type":          {&sluicev1.EventFilter{MessageTypes: []sluicev1.MessageType{4711}}, 0},
		"kinds":                 {&sluicev1.EventFilter{Kinds: []string{"send_result", "follow_up_timeout"}}, s | f},
		"is_self":               {&sluicev1.EventFilter{IsSelf: proto.Bool(true)}, 0},
		"is_self unknown":       {&sluicev1.EventFilter{IsSelf: proto.Bool(false)}, i},
		"mention_self":          {&sluicev1.EventFilter{MentionSelf: proto.Bool(true)}, i},
		"not mention_self":      {&sluicev1.EventFilter{MentionSelf: proto.Bool(false)}, 0},
		"expression":            {expression(`event.source == "other"`), b},
		"chinese contains":      {expression(`event.message.text.text.contains("发票")`), i},
		"chinese regexp":        {expression(`event.message.text.text.matches("开.{1,3}[，。]")`), i},
		"chinese size":          {expression(`event.message.text.text.size() == 7`), i},
		"no message is unset":   {expression(`!has(event.message)`), s | f},
		"enum by name":          {expression(`event.message.type == MessageType.MESSAGE_TYPE_TEXT`), i},
		"presence":              {expression(`has(event.message.is_self) && !event.message.is_self`), i},
		"raw is hidden":         {expression(`size(event.raw) == 0`), i | b | s | f},
		"failure is no match":   {expression(`event.anomalies[0] == "X" || true`), i | b | s | f},
		"failure":               {expression(`event.anomalies[0] == "X"`), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			compiled := mustCompile(t, tt.filter)
			got := 0
			for n, e := range all {
				if admits(compiled, e) {
					got |= 1 << n
				}
			}
			if got != tt.want {
				t.Errorf("matches %04b, want %04b", got, tt.want)
			}
		})
	}
}

// The rows about expressions are row 35 of the fault matrix.
func TestCompileRefuses(t *testing.T) {
	expression := func(x string) *sluicev1.EventFilter { return &sluicev1.EventFilter{Expression: x} }
	list := "[" + strings.Repeat("0,", 500) + "0]"
	tests := map[string]struct {
		filter *sluicev1.EventFilter
		field  string
	}{
		"unknown kind":         {&sluicev1.EventFilter{Kinds: []string{"message", "messages"}}, "filter.kinds[1]"},
		"empty source":         {&sluicev1.EventFilter{Sources: []string{""}}, "filter.sources[0]"},
		"empty bot":            {&sluicev1.EventFilter{BotIds: []string{"a", ""}}, "filter.bot_ids[1]"},
		"too many chats":       {&sluicev1.EventFilter{ChatIds: make([]string, maxValues+1)}, "filter.chat_ids"},
		"too many rooms":       {&sluicev1.EventFilter{RoomWxids: make([]string, maxValues+1)}, "filter.room_wxids"},
		"too many types":       {&sluicev1.EventFilter{MessageTypes: make([]sluicev1.MessageType, maxValues+1)}, "filter.message_types"},
		"syntax":               {expression("event."), "filter.expression"},
		"unknown field":        {expression("event.text == ''"), "filter.expression"},
		"unknown variable":     {expression("message.type == 7"), "filter.expression"},
		"not a bool":           {expression("event.sequence"), "filter.expression"},
		"perhaps a bool":       {expression(`event.unmapped["x"]`), "filter.expression"},
		"1 MB":                 {expression("true" + strings.Repeat(" || true", 1<<20/8)), "filter.expression"},
		"one byte too long":    {expression("true" + strings.Repeat(" ", maxExpression-3)), "filter.expression"},
		"deep":                 {expression(strings.Repeat("(", 2000) + "true" + strings.Repeat(")", 2000)), "filter.expression"},
		"cost bomb":            {expression(list + ".map(a, " + list + ".map(b, a + b)).size() > 0"), "filter.expression"},
		"large regexp":         {expression(`event.key.matches("(a{1000}){1000}")`), "filter.expression"},
		"larger regexp":        {expression(`event.key.matches("(a{100}|b{100}){9}")`), "filter.expression"},
		"wrong regexp":         {expression(`event.key.matches("(")`), "filter.expression"},
		"backreference":        {expression(`event.key.matches("(a)\\1")`), "filter.expression"},
		"regexp from an event": {expression(`event.key.matches(event.path)`), "filter.expression"},
		"string builder":       {expression(`event.key.replace("", "a") == ""`), "filter.expression"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(tt.filter)
			var own *apierror.Error
			if !errors.As(err, &own) {
				t.Fatalf("Compile() = %v, want an *apierror.Error", err)
			}
			if own.Reason != sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER || own.Field != tt.field {
				t.Errorf("Compile() = %v of %s, want INVALID_FILTER of %s", own.Reason, own.Field, tt.field)
			}
		})
	}
}

func TestCompileTakesTheLargestFilter(t *testing.T) {
	values := make([]string, maxValues)
	for i := range values {
		values[i] = fmt.Sprint("v", i)
	}
	mustCompile(t, &sluicev1.EventFilter{
		Sources: values, BotIds: values, ChatIds: values, RoomWxids: values,
		Expression: "true" + strings.Repeat(" ", maxExpression-4),
	})
}

// A pattern that takes other engines for ever takes RE2 no time.
func TestCatastrophicRegexpIsLinear(t *testing.T) {
	f := mustCompile(t, &sluicev1.EventFilter{Expression: `event.key.matches("^(a+)+$")`})
	began := time.Now()
	if admits(f, &sluicev1.Event{Key: strings.Repeat("a", 30_000) + "b"}) {
		t.Error("Match() = true, want false")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Match() took %v", took)
	}
}

// What an expression may cost is the same on every machine.
func TestExpressionThatCostsTooMuchDoesNotMatch(t *testing.T) {
	f := mustCompile(t, &sluicev1.EventFilter{
		Expression: `event.anomalies.all(a, event.anomalies.all(b, a == b))`,
	})
	few, many := &sluicev1.Event{}, &sluicev1.Event{}
	for range 10 {
		few.Anomalies = append(few.Anomalies, "A")
	}
	for range 1000 {
		many.Anomalies = append(many.Anomalies, "A")
	}
	if ok, err := f.match(context.Background(), few); !ok || err != nil {
		t.Errorf("match(10 anomalies) = %v, %v, want true", ok, err)
	}
	if ok, err := f.match(context.Background(), many); ok || err == nil {
		t.Errorf("match(1000 anomalies) = %v, %v, want false and an error", ok, err)
	}
}

func TestExpressionEndsWithItsContext(t *testing.T) {
	f := mustCompile(t, &sluicev1.EventFilter{Expression: `event.anomalies.all(a, a == "A")`})
	e := &sluicev1.Event{}
	for range 1000 {
		e.Anomalies = append(e.Anomalies, "A")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := f.match(ctx, e); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("match(ended context) = %v, %v, want that it has ended", ok, err)
	}
}

// admits is f.Match of e.
func admits(f *Filter, e *sluicev1.Event) bool {
	ok, _ := f.Match(context.Background(), func() (*sluicev1.Event, error) { return e, nil })
	return ok
}

// drawFilter draws a filter over the same few values that drawEvent uses.
func drawFilter(t *rapid.T) *sluicev1.EventFilter {
	some := func(values []string, label string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(values), 0, 2, rapid.ID).Draw(t, label)
	}
	f := &sluicev1.EventFilter{
		Sources:   some(sources, "sources"),
		BotIds:    some(bots[1:], "bots"),
		ChatIds:   some(chats[1:], "chats"),
		RoomWxids: some(rooms[1:], "rooms"),
		ChatKeys:  some(chatKeys, "chat_keys"),
		Kinds:     some([]string{"message", "send_result", "follow_up_timeout", "other"}, "kinds"),
		IsSelf:    drawBool(t, "is_self"), MentionSelf: drawBool(t, "mention_self"),
	}
	for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(types), 0, 2, rapid.ID).Draw(t, "types") {
		f.MessageTypes = append(f.MessageTypes, sluicev1.MessageType(n))
	}
	return f
}

var (
	sources = []string{"acme", "有限公司", "with.dot", "~x"}
	bots    = []string{"", "b1", "机器人", strings.Repeat("b", 60), "-"}
	chats   = []string{"", "c1", "c2"}
	rooms   = []string{"", "r1", "r2"}
	types   = []int32{0, 7, 11, 4711, -1}

	chatKeys = []string{"acme/c1", "acme/c2", "acme/nobody"}
)

// drawEvent draws an event of few different values, so that filters meet them.
func drawEvent(t *rapid.T) *sluicev1.Event {
	e := &sluicev1.Event{
		Source: rapid.SampledFrom(sources).Draw(t, "source"), ChatKey: rapid.SampledFrom([]string{"acme/c1", "acme/c2", "acme/c3"}).Draw(t, "chat_key"),
	}
	pick := func(values []string, label string) string { return rapid.SampledFrom(values).Draw(t, label) }
	bot := &sluicev1.Bot{Id: pick(bots, "id"), Wxid: pick(bots, "wxid"), UserId: pick(bots, "user")}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		e.Body = &sluicev1.Event_SendResult{SendResult: &sluicev1.SendResult{Bot: bot, ChatId: pick(chats, "chat")}}
	case 1:
		e.Body = &sluicev1.Event_FollowUpTimeout{FollowUpTimeout: &sluicev1.FollowUpTimeout{BotId: bot.GetId()}}
	case 2:
		e.Body = &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{}}
	default:
		e.Body = &sluicev1.Event_Message{Message: &sluicev1.Message{
			Bot: bot, ChatId: pick(chats, "chat"), Room: &sluicev1.Room{Wxid: pick(rooms, "room")},
			Type:   sluicev1.MessageType(rapid.SampledFrom(types).Draw(t, "type")),
			IsSelf: drawBool(t, "is_self"), MentionSelf: drawBool(t, "mention_self"),
		}}
	}
	return e
}

func drawBool(t *rapid.T, label string) *bool {
	return rapid.SampledFrom([]*bool{nil, proto.Bool(false), proto.Bool(true)}).Draw(t, label)
}

func TestRecordsAgreeWithMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, err := Compile(drawFilter(t))
		if err != nil {
			t.Fatalf("Compile: %v", err)
		}
		e := drawEvent(t)
		match, decided := f.ByRecord(stored(e))
		if want := admits(f, e); decided && match != want || !match && !decided {
			t.Fatalf("Match is %v, ByRecord %v, decided %v", want, match, decided)
		}
	})
}

// stored is e as it is read back, without what only decoding shows.
func stored(e *sluicev1.Event) eventlog.Record {
	return eventlog.Record{Subject: record.Subject(e), KeyHash: eventlog.HashKey(e.GetChatKey()), Data: []byte("\xff")}
}

func TestRecordsDecideWhatTheyTell(t *testing.T) {
	rec := stored(text("x"))
	for name, filter := range map[string]*sluicev1.EventFilter{
		"kind":         {Kinds: []string{"other"}},
		"type":         {MessageTypes: []sluicev1.MessageType{1}},
		"source":       {Sources: []string{"other"}},
		"bot":          {BotIds: []string{"b2"}},
		"chat_key":     {ChatKeys: []string{"acme/c2"}, ChatIds: []string{"c1"}},
		"mention_self": {MentionSelf: proto.Bool(true), Kinds: []string{"other"}},
	} {
		if match, decided := mustCompile(t, filter).ByRecord(rec); match || !decided {
			t.Errorf("%s: ByRecord() = %v, decided %v: every record would be decoded", name, match, decided)
		}
	}
	for name, tt := range map[string]struct {
		filter *sluicev1.EventFilter
		want   bool
	}{
		"nothing":      {nil, true},
		"kind":         {&sluicev1.EventFilter{Kinds: []string{"message"}}, true},
		"type":         {&sluicev1.EventFilter{MessageTypes: []sluicev1.MessageType{sluicev1.MessageType_MESSAGE_TYPE_TEXT}}, true},
		"source":       {&sluicev1.EventFilter{Sources: []string{"acme"}}, true},
		"bot":          {&sluicev1.EventFilter{BotIds: []string{"bot-1"}}, true},
		"chat_key":     {&sluicev1.EventFilter{ChatKeys: []string{"acme/c2", "acme/c1"}}, true},
		"chat":         {&sluicev1.EventFilter{ChatIds: []string{"c1"}}, false},
		"room":         {&sluicev1.EventFilter{RoomWxids: []string{"r1"}}, false},
		"is_self":      {&sluicev1.EventFilter{IsSelf: proto.Bool(true)}, false},
		"mention_self": {&sluicev1.EventFilter{MentionSelf: proto.Bool(true)}, false},
		"expression":   {&sluicev1.EventFilter{Expression: "true"}, false},
	} {
		if match, decided := mustCompile(t, tt.filter).ByRecord(rec); !match && decided || decided != tt.want {
			t.Errorf("%s: ByRecord() = %v, decided %v, want %v", name, match, decided, tt.want)
		}
	}
}

func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		`event.message.text.text.contains("发票")`,
		`event.key.matches("^(a+)+$")`,
		`event.anomalies.exists(a, a.startsWith("TAB"))`,
		`has(event.message.is_self) ? event.message.is_self : event.receive_time < timestamp("2026-01-01T00:00:00Z")`,
		`event.unmapped["a"].b[0] == 1`,
	} {
		f.Add(seed)
	}
	e := text("请开发票")
	e.Anomalies = []string{"TAB_IN_NAME"}
	f.Fuzz(func(t *testing.T, source string) {
		compiled, err := Compile(&sluicev1.EventFilter{Expression: source})
		if err != nil {
			var own *apierror.Error
			if !errors.As(err, &own) || own.Reason != sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER {
				t.Fatalf("Compile(%q) = %v, want INVALID_FILTER", source, err)
			}
			return
		}
		if first, again := admits(compiled, e), admits(compiled, e); first != again {
			t.Fatalf("Match(%q) = %v, then %v", source, first, again)
		}
	})
}
