package retype

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func messageEvent(edit func(*sluicev1.Message)) *sluicev1.Event {
	m := &sluicev1.Message{
		Type: sluicev1.MessageType_MESSAGE_TYPE_TEXT, SendTime: &timestamppb.Timestamp{Seconds: 1},
		Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: "hello", Mentions: []string{"a", "b"}}},
	}
	edit(m)
	return &sluicev1.Event{Dialect: sluicev1.Dialect_DIALECT_GROUP, Body: &sluicev1.Event_Message{Message: m}}
}

func object(members ...string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value)}
	for i := 0; i < len(members); i += 2 {
		s.Fields[members[i]] = structpb.NewStringValue(members[i+1])
	}
	return s
}

func TestDiff(t *testing.T) {
	same := func(*sluicev1.Message) {}
	tests := map[string]struct {
		before, after *sluicev1.Event
		want          []string // path: before -> after
	}{
		"the same": {messageEvent(same), messageEvent(same), nil},
		"the envelope does not count": {
			&sluicev1.Event{Sequence: 1, Key: "a", Raw: []byte("x"), DecoderVersion: 1},
			&sluicev1.Event{Sequence: 2, Key: "b", RevisionOf: 1, ChatKey: "c", Path: "/"}, nil,
		},
		"text":      {messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.GetText().Text = "a" }), []string{"message.text.text: hello -> a"}},
		"list":      {messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.GetText().Mentions = []string{"c"} }), []string{"message.text.mentions[0]: a -> c", "message.text.mentions[1]: b -> "}},
		"time":      {messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.SendTime.Nanos = 5e8 }), []string{"message.send_time: 1970-01-01T00:00:01Z -> 1970-01-01T00:00:01.5Z"}},
		"presence":  {messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.IsSelf = proto.Bool(false) }), []string{"message.is_self:  -> false"}},
		"enum":      {messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.Type = 77 }), []string{"message.type: MESSAGE_TYPE_TEXT -> 77"}},
		"nested":    {messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.Bot = &sluicev1.Bot{Id: "b"} }), []string{"message.bot.id:  -> b"}},
		"no fields": {messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.Bot = &sluicev1.Bot{} }), []string{"message.bot:  -> {}"}},
		"dialect":   {&sluicev1.Event{Dialect: 1}, &sluicev1.Event{}, []string{"dialect: DIALECT_GROUP -> "}},
		"anomalies": {&sluicev1.Event{Anomalies: []string{"BOM"}}, &sluicev1.Event{Anomalies: []string{"BOM", "WRONG_TYPE"}}, []string{"anomalies: BOM -> BOM, WRONG_TYPE"}},
		"unmapped": {
			&sluicev1.Event{Unmapped: object("data.b", "1", "data.a", "2", "same", "x")},
			&sluicev1.Event{Unmapped: object("same", "x", "data.c", `"`)},
			[]string{`unmapped["data.a"]: "2" -> `, `unmapped["data.b"]: "1" -> `, `unmapped["data.c"]:  -> "\""`},
		},
		"no unmapped": {&sluicev1.Event{}, &sluicev1.Event{Unmapped: object("a", "1")}, []string{`unmapped["a"]:  -> "1"`}},
		"another body": {
			&sluicev1.Event{Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{Path: "/", Fields: object("x", "y"), Value: structpb.NewBoolValue(true)}}},
			&sluicev1.Event{Body: &sluicev1.Event_FriendRequest{FriendRequest: &sluicev1.FriendRequest{Hello: "hi"}}},
			[]string{"friend_request.hello:  -> hi", "other.path: / -> ", `other.fields["x"]: "y" -> `, "other.value: true -> "},
		},
		"long": {
			messageEvent(same), messageEvent(func(m *sluicev1.Message) { m.GetText().Text = strings.Repeat("名", maxText) }),
			[]string{"message.text.text: hello -> " + strings.Repeat("名", maxText/3)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range Diff(tt.before, tt.after) {
				got = append(got, c.GetPath()+": "+c.GetBefore()+" -> "+c.GetAfter())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Diff (-want +got):\n%s", diff)
			}
			if back := Diff(tt.after, tt.before); len(back) != len(tt.want) {
				t.Errorf("the other way round there are %d changes, want %d", len(back), len(tt.want))
			}
		})
	}
}
