package show

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// mark is in every string that fill sets.
const mark = "‹set›"

// fill sets every field of m; of a oneof, the member that stands last.
func fill(m protoreflect.Message) {
	if s, ok := m.Interface().(*structpb.Struct); ok {
		s.Fields = map[string]*structpb.Value{"x": structpb.NewStringValue(mark)}
		return
	}
	if v, ok := m.Interface().(*structpb.Value); ok {
		v.Kind = &structpb.Value_StringValue{StringValue: mark}
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsList() && f.Message() != nil:
			fill(m.Mutable(f).List().AppendMutable().Message())
		case f.IsList():
			m.Mutable(f).List().Append(filler(f))
		case f.Message() != nil:
			fill(m.Mutable(f).Message())
		default:
			m.Set(f, filler(f))
		}
	}
}

func filler(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(mark)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(mark))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(1.5)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	default:
		return protoreflect.ValueOfUint64(1)
	}
}

// members returns the fields of the oneof of that name in m.
func members(m proto.Message, oneof protoreflect.Name) []protoreflect.FieldDescriptor {
	fields := m.ProtoReflect().Descriptor().Oneofs().ByName(oneof).Fields()
	all := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range all {
		all[i] = fields.Get(i)
	}
	return all
}

// checkSummary expects a summary that says something of a full body, and one of
// an empty body.
func checkSummary(t *testing.T, full, empty *sluicev1.Event) {
	t.Helper()
	if got := summary(full); !strings.Contains(got, mark) {
		t.Errorf("summary = %q, want it to say something of %v", got, full)
	}
	if got := happened(empty); strings.Contains(got, "<nil>") || strings.HasSuffix(got, " ") || strings.HasSuffix(got, ":") {
		t.Errorf("summary of an empty body = %q", got)
	}
	if kind(full) == "" || sender(full) == "" {
		t.Errorf("a column is empty: kind %q, sender %q", kind(full), sender(full))
	}
	r := full.ProtoReflect()
	body := r.Mutable(r.WhichOneof(r.Descriptor().Oneofs().ByName("body"))).Message()
	for _, place := range []protoreflect.Name{"room", "chat_id"} { // the one in front of the other
		f := body.Descriptor().Fields().ByName(place)
		if f == nil || !body.Has(f) {
			continue
		}
		if got := chat(full, false); got != mark {
			t.Errorf("chat = %q, want the %s of %s", got, place, body.Descriptor().Name())
		}
		body.Clear(f)
	}
}

// TestSummaryForgetsNothing fails for a kind of event, a payload or a notice
// that the schema has and summary does not.
func TestSummaryForgetsNothing(t *testing.T) {
	for _, f := range members(&sluicev1.Event{}, "body") {
		t.Run(string(f.Name()), func(t *testing.T) {
			full, empty := &sluicev1.Event{}, &sluicev1.Event{}
			fill(full.ProtoReflect().Mutable(f).Message())
			empty.ProtoReflect().Mutable(f)
			checkSummary(t, full, empty)
		})
	}
	for _, f := range members(&sluicev1.Message{}, "payload") {
		t.Run("message."+string(f.Name()), func(t *testing.T) {
			full, empty := &sluicev1.Message{}, &sluicev1.Message{}
			fill(full.ProtoReflect().Mutable(f).Message())
			empty.ProtoReflect().Mutable(f)
			checkSummary(t, eventOf(full), eventOf(empty))
		})
	}
	for payload, holder := range map[protoreflect.Name]proto.Message{
		"system": &sluicev1.SystemPayload{}, "wecom_system": &sluicev1.WecomSystemPayload{},
	} {
		for _, f := range members(holder, "detail") {
			t.Run("message."+string(payload)+"."+string(f.Name()), func(t *testing.T) {
				full, empty := &sluicev1.Message{}, &sluicev1.Message{}
				for _, m := range []*sluicev1.Message{full, empty} {
					p := m.ProtoReflect()
					detail := p.Mutable(p.Descriptor().Fields().ByName(payload)).Message().Mutable(f).Message()
					if m == full {
						fill(detail)
					}
				}
				checkSummary(t, eventOf(full), eventOf(empty))
			})
		}
	}
}

func eventOf(m *sluicev1.Message) *sluicev1.Event {
	return &sluicev1.Event{Body: &sluicev1.Event_Message{Message: m}}
}

// TestDetailForgetsNothing fails for a field that Detail does not show.
func TestDetailForgetsNothing(t *testing.T) {
	for _, f := range members(&sluicev1.Event{}, "body") {
		e := &sluicev1.Event{}
		body := e.ProtoReflect().Mutable(f).Message()
		fill(body)
		var out strings.Builder
		if err := Detail(&out, e, shanghai); err != nil {
			t.Fatal(err)
		}
		fields := body.Descriptor().Fields()
		for i := range fields.Len() {
			if name := string(fields.Get(i).Name()); body.Has(fields.Get(i)) && !strings.Contains(out.String(), "\n  "+name) {
				t.Errorf("Detail of %s does not show %s:\n%s", f.Name(), name, out.String())
			}
		}
	}
}

func TestSummary(t *testing.T) {
	tests := map[string]struct {
		body *sluicev1.Message
		want string
	}{
		"text":            {want: "hello", body: &sluicev1.Message{Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: "hello"}}}},
		"no payload":      {want: nothing, body: &sluicev1.Message{}},
		"image to come":   {want: "(not loaded yet)", body: &sluicev1.Message{Payload: &sluicev1.Message_Image{Image: &sluicev1.ImagePayload{}}}},
		"file":            {want: "a.pdf (0 bytes)", body: &sluicev1.Message{Payload: &sluicev1.Message_File{File: &sluicev1.FilePayload{Name: "a.pdf", Size: proto.Int64(0)}}}},
		"recall":          {want: "took back m-1", body: &sluicev1.Message{Payload: &sluicev1.Message_Recall{Recall: &sluicev1.RecallPayload{Content: "m-1"}}}},
		"unknown notice":  {want: "notice of type 77", body: &sluicev1.Message{Payload: &sluicev1.Message_WecomSystem{WecomSystem: &sluicev1.WecomSystemPayload{Type: sluicev1.WecomSystemPayload_Type(77).Enum()}}}},
		"invitation sent": {want: "invites to a room (sent)", body: &sluicev1.Message{Payload: &sluicev1.Message_RoomInvitation{RoomInvitation: &sluicev1.RoomInvitationPayload{Status: sluicev1.RoomInvitationPayload_STATUS_SENT.Enum()}}}},
		"someone left": {want: "李四 left", body: &sluicev1.Message{Payload: &sluicev1.Message_WecomSystem{WecomSystem: &sluicev1.WecomSystemPayload{
			Detail: &sluicev1.WecomSystemPayload_MembersLeft_{MembersLeft: &sluicev1.WecomSystemPayload_MembersLeft{Leavers: []*sluicev1.Person{{DisplayName: "李四"}}}},
		}}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := summary(eventOf(tt.body)); got != tt.want {
				t.Errorf("summary = %q, want %q", got, tt.want)
			}
		})
	}
}
