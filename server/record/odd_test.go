package record

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// plain is an event without a surprise.
func plain() *sluicev1.Event {
	return &sluicev1.Event{
		Path: "/message", Dialect: sluicev1.Dialect_DIALECT_GROUP,
		Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
			Type: sluicev1.MessageType_MESSAGE_TYPE_TEXT, Sender: &sluicev1.Contact{Type: 1},
			Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Quote: &sluicev1.QuotedMessage{}}},
		}},
	}
}

func TestOdd(t *testing.T) {
	tests := map[string]struct {
		edit func(*sluicev1.Event)
		want bool
	}{
		"nothing":            {edit: func(*sluicev1.Event) {}},
		"anomaly":            {edit: func(e *sluicev1.Event) { e.Anomalies = []string{"BOM"} }, want: true},
		"no unmapped":        {edit: func(e *sluicev1.Event) { e.Unmapped = &structpb.Struct{} }},
		"unmapped":           {edit: func(e *sluicev1.Event) { e.Unmapped = &structpb.Struct{Fields: map[string]*structpb.Value{"x": nil}} }, want: true},
		"other":              {edit: func(e *sluicev1.Event) { e.Body = &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{}} }, want: true},
		"root path":          {edit: func(e *sluicev1.Event) { e.Path = "/" }},
		"path below another": {edit: func(e *sluicev1.Event) { e.Path = "/crm/v1/notify/add/user" }},
		"unknown path":       {edit: func(e *sluicev1.Event) { e.Path = "/xmessage" }, want: true},
		"unnamed":            {edit: func(e *sluicev1.Event) { e.GetMessage().Type = 77 }, want: true},
		"decoded":            {edit: func(e *sluicev1.Event) { e.DecoderVersion = 1 }},
		"decoded, anomaly":   {edit: func(e *sluicev1.Event) { e.DecoderVersion, e.Anomalies = 1, []string{"BOM"} }, want: true},
		"unnamed below":      {edit: func(e *sluicev1.Event) { e.GetMessage().Sender.Type = 77 }, want: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := plain()
			tt.edit(e)
			if got := Odd(e); got != tt.want {
				t.Errorf("Odd(%v) = %v, want %v", e, got, tt.want)
			}
		})
	}
}

func TestUnnamedValues(t *testing.T) {
	members := &sluicev1.Event{Body: &sluicev1.Event_RoomMembersChanged{RoomMembersChanged: &sluicev1.RoomMembersChanged{
		Change: 9, Members: []*sluicev1.RoomMember{{Type: 1}, {Type: 77}, {Type: 78}},
	}}}
	got := make(map[string][]protoreflect.EnumNumber)
	for path, n := range UnnamedValues(members) {
		got[path] = append(got[path], n)
	}
	want := map[string][]protoreflect.EnumNumber{"room_members_changed.change": {9}, "room_members_changed.members[].type": {77, 78}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for range UnnamedValues(members) {
		break // must be allowed
	}
	message := plain()
	message.GetMessage().Source = sluicev1.Source(99).Enum()
	message.GetMessage().GetText().Quote.Type = sluicev1.MessageType(98).Enum()
	numbers := maps.Collect(UnnamedValues(message))
	if diff := cmp.Diff(map[string]protoreflect.EnumNumber{"message.source": 99, "message.text.quote.type": 98}, numbers); diff != "" {
		t.Error(diff)
	}
}
