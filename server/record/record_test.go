package record

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const epoch = "00112233445566ff"

func TestEventComesBackAsItWas(t *testing.T) {
	want := &sluicev1.Event{
		Source: "acme", Key: "acme/b/1", Raw: []byte(`{}`),
		Body: &sluicev1.Event_Message{Message: &sluicev1.Message{MessageId: "1", Type: 7}},
	}
	data, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data, 9, epoch, true)
	if err != nil {
		t.Fatal(err)
	}
	want.Sequence, want.Cursor = 9, Cursor{Epoch: epoch, Sequence: 9}.String()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got, err = Decode(data, 9, epoch, false); err != nil || got.GetRaw() != nil {
		t.Errorf("Decode without raw = %q, %v", got.GetRaw(), err)
	}
	if got, err = Decode(Revise(data, 4), 9, epoch, true); err != nil || got.GetRevisionOf() != 4 {
		t.Errorf("Decode of a revision = %d, %v, want 4", got.GetRevisionOf(), err)
	}
	for data, want := range map[string]uint64{string(data): 0, string(Revise(data, 4)): 4, "\xff": 0, "\x40": 0, "": 0} {
		if got := RevisionOf([]byte(data)); got != want {
			t.Errorf("RevisionOf(%q) = %d, want %d", data, got, want)
		}
	}
	if _, err := Decode([]byte{0xff}, 9, epoch, true); err == nil {
		t.Error("Decode of garbage succeeded")
	}
}

func TestSubjectSaysWhatTheEventIs(t *testing.T) {
	odd := "租户 1.*>"
	e := &sluicev1.Event{
		Source: "acme",
		Body:   &sluicev1.Event_Message{Message: &sluicev1.Message{Type: 10001, Bot: &sluicev1.Bot{Wxid: odd}}},
	}
	s := Subject(e)
	if strings.ContainsAny(s, " *>") || strings.Count(s, ".") != 4 {
		t.Errorf("Subject = %q, want five plain tokens", s)
	}
	got, ok := ParseSubject(s)
	want := Labels{Kind: "message", MessageType: 10001, Source: "acme", Bot: Token(odd)}
	if !ok || got != want {
		t.Errorf("ParseSubject(%q) = %+v, %v, want %+v", s, got, ok, want)
	}
	e.Anomalies = []string{"BOM"}
	want.Odd = true
	if got, ok = ParseSubject(Subject(e)); !ok || got != want {
		t.Errorf("ParseSubject(%q) = %+v, %v, want %+v", Subject(e), got, ok, want)
	}
	for _, s := range []string{"", "a", "a.b", "a.1.c.d", "a.b.c.d.odd", "a.99999999999.c.d.odd", "a.1.c.d.", "a.1.c.d.odd.e"} {
		if got, ok := ParseSubject(s); ok {
			t.Errorf("ParseSubject(%q) = %+v, want none", s, got)
		}
	}
}

func TestTokensAreDistinct(t *testing.T) {
	long := strings.Repeat("a", maxToken+1)
	values := []string{"", "-", "a", "A", "a.b", "a_b", "a b", long, long + "a", "~" + ID("a.b"), "中"}
	seen := make(map[string]string)
	for _, v := range values {
		token := Token(v)
		if other, ok := seen[token]; ok {
			t.Errorf("Token(%q) = Token(%q) = %q", v, other, token)
		}
		seen[token] = v
	}
}

// TestEveryKindIsKnown walks the oneof, so that a new kind of event cannot be
// forgotten by the functions that look into bodies.
func TestEveryKindIsKnown(t *testing.T) {
	named := map[string]struct{ bot, chat, room, contact bool }{
		"message":              {bot: true, chat: true, room: true, contact: true},
		"send_result":          {bot: true, chat: true},
		"friend_request":       {bot: true, contact: true},
		"friend_added":         {bot: true, contact: true},
		"add_friend_result":    {bot: true, room: true, contact: true},
		"customer_added":       {bot: true, contact: true},
		"room_members_changed": {bot: true, chat: true, room: true},
		"room_topic_changed":   {bot: true, chat: true, room: true},
		"staff_changed":        {},
		"follow_up_timeout":    {bot: true, chat: true, contact: true},
		"other":                {},
	}
	for _, kind := range Kinds() {
		want, ok := named[kind]
		if !ok {
			t.Errorf("kind %s is not in this test: say what it names", kind)
			continue
		}
		e := &sluicev1.Event{}
		fill(e.ProtoReflect(), body.Fields().ByName(protoreflect.Name(kind)), 3)
		if got := Kind(e); got != kind {
			t.Errorf("Kind = %q, want %q", got, kind)
		}
		got := struct{ bot, chat, room, contact bool }{
			BotID(Bot(e)) != "", ChatID(e) != "", RoomWxid(e) != "", Contact(e) != "",
		}
		if got != want {
			t.Errorf("%s names %+v, want %+v", kind, got, want)
		}
	}
}

// fill sets a field, and what is below it, to something.
func fill(m protoreflect.Message, f protoreflect.FieldDescriptor, depth int) {
	switch {
	case f.IsList(), f.IsMap(), depth == 0:
	case f.Kind() == protoreflect.StringKind:
		m.Set(f, protoreflect.ValueOfString("x"))
	case f.Kind() == protoreflect.MessageKind:
		sub := m.Mutable(f).Message()
		for i := range sub.Descriptor().Fields().Len() {
			if g := sub.Descriptor().Fields().Get(i); g.ContainingOneof() == nil {
				fill(sub, g, depth-1)
			}
		}
	}
}

func TestCursor(t *testing.T) {
	for _, want := range []Cursor{{epoch, 0}, {epoch, 1}, {epoch, 1<<64 - 1}, {"ffffffffffffffff", 300}} {
		got, err := ParseCursor(want.String())
		if err != nil || got != want {
			t.Errorf("ParseCursor(%q) = %+v, %v, want %+v", want.String(), got, err, want)
		}
	}
	for _, epoch := range []string{"", "00", epoch + "00", "zz112233445566ff"} {
		if s := (Cursor{Epoch: epoch}).String(); s != "" {
			t.Errorf("cursor with epoch %q = %q, want none", epoch, s)
		}
	}
	good := Cursor{epoch, 77}.String()
	for i := range good {
		bad := []byte(good)
		bad[i] ^= 1
		if c, err := ParseCursor(string(bad)); err == nil {
			t.Errorf("ParseCursor of %q, a cursor with a flipped bit, = %+v", bad, c)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add(Cursor{epoch, 77}.String())
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCursor(s); err == nil && c.String() != s {
			t.Errorf("ParseCursor(%q) = %+v, which is %q", s, c, c.String())
		}
	})
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(&sluicev1.Event{Source: "s", Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{Path: "/"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Decode(bytes.Clone(data), 1, epoch, true)
		if err != nil {
			return
		}
		if e.GetSequence() != 1 || e.GetCursor() == "" {
			t.Errorf("Decode left the position out: %v", e)
		}
		_ = proto.Size(e)
		_, _ = ParseSubject(Subject(e))
	})
}
