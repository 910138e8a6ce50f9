package record

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// stored are events that differ in what is looked at without decoding.
func stored() map[string]*sluicev1.Event {
	received := timestamppb.New(time.Unix(1763365331, 110_000_001))
	return map[string]*sluicev1.Event{
		"empty": {},
		"message": {
			Source: "acme", ReceiveTime: received, ChatKey: "acme/c-1", Key: "k", Raw: []byte(`{"data":{}}`), Anomalies: []string{"BOM", "TAB_IN_NAME"},
			Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
				MessageId: "m", SendTime: timestamppb.New(time.Unix(-1, 5)), IsSelf: proto.Bool(false),
				Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: "您好"}},
			}},
		},
		"message without a time": {
			ReceiveTime: received, ChatKey: "c", Body: &sluicev1.Event_Message{Message: &sluicev1.Message{ChatId: "c"}},
		},
		"revision": {ReceiveTime: received, ChatKey: "c", RevisionOf: 1 << 40, DecoderVersion: 3},
		"another kind": {
			ReceiveTime: received, ChatKey: "c", Raw: []byte("{}"),
			Body: &sluicev1.Event_SendResult{SendResult: &sluicev1.SendResult{ChatId: "c", Sent: proto.Bool(true)}},
		},
	}
}

func TestOutlineIsWhatDecodeSays(t *testing.T) {
	for name, e := range stored() {
		t.Run(name, func(t *testing.T) {
			data, err := Encode(e)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseOutline(data)
			if err != nil {
				t.Fatal(err)
			}
			want := Outline{ChatKey: e.GetChatKey(), Received: e.GetReceiveTime().AsTime(), RevisionOf: e.GetRevisionOf()}
			if e.GetMessage().GetSendTime() != nil {
				want.Sent = e.GetMessage().GetSendTime().AsTime()
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			want.RevisionOf = 7
			if got, err := ParseOutline(Revise(data, 7)); err != nil || got != want {
				t.Errorf("ParseOutline of a revision = %+v, %v, want %+v", got, err, want)
			}
		})
	}
	if _, err := ParseOutline([]byte{0xff}); err == nil {
		t.Error("ParseOutline of garbage succeeded")
	}
}

// at9 is where the events of these tests stand in a log.
var at9 = Cursor{Epoch: epoch, Sequence: 9}

// forms are the ways to send a stored event without decoding it. Each returns the
// event in its wire form.
var forms = map[string]func(data []byte, raw bool) ([]byte, error){
	"undecoded": func(data []byte, raw bool) ([]byte, error) {
		e, err := Undecoded(data, at9, raw)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(e)
	},
	"appended": func(data []byte, raw bool) ([]byte, error) {
		const before = "before"
		b, err := AppendEvent([]byte(before), 5, data, at9, raw)
		if err != nil {
			if string(b) != before {
				return nil, fmt.Errorf("garbage left %q behind", b)
			}
			return nil, err
		}
		n, typ, tag := protowire.ConsumeTag(b[len(before):])
		event, size := protowire.ConsumeBytes(b[len(before)+max(tag, 0):])
		if n != 5 || typ != protowire.BytesType || len(before)+tag+size != len(b) {
			return nil, fmt.Errorf("not one field: %q", b)
		}
		return event, nil
	},
}

// Who gets an event that was not decoded must find what it would have found in
// one that was.
func TestUndecodedIsSentAsDecodedWouldBe(t *testing.T) {
	for form, send := range forms {
		t.Run(form, func(t *testing.T) {
			for name, e := range stored() {
				data, err := Encode(e)
				if err != nil {
					t.Fatal(err)
				}
				for _, data := range [][]byte{data, Revise(data, 4)} {
					for _, raw := range []bool{false, true} {
						want, err := Decode(data, 9, epoch, raw)
						if err != nil {
							t.Fatal(err)
						}
						got := &sluicev1.Event{}
						if sent, err := send(data, raw); err != nil || proto.Unmarshal(sent, got) != nil {
							t.Fatalf("%s: %x, %v, want an event", name, sent, err)
						}
						if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
							t.Errorf("%s, raw %v: %s", name, raw, diff)
						}
					}
				}
			}
			if _, err := send([]byte{0xff}, true); !errors.Is(err, errWire) {
				t.Errorf("garbage: %v, want %v", err, errWire)
			}
			// What a record says of its own position is not believed.
			data, err := Encode(&sluicev1.Event{Sequence: 1, Cursor: "x", ChatKey: "c", Source: "s"})
			if err != nil {
				t.Fatal(err)
			}
			e := &sluicev1.Event{}
			if sent, err := send(append(data, data...), false); err != nil || proto.Unmarshal(sent, e) != nil ||
				e.GetSequence() != 9 || e.GetCursor() != at9.String() || e.GetChatKey() != "c" {
				t.Errorf("got %v, %v, want the position of the record", e, err)
			}
		})
	}
}

// FuzzSent checks that what is sent of any bytes, if it is sent at all, is what
// they say.
func FuzzSent(f *testing.F) {
	for _, e := range stored() {
		data, err := Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, true)
		f.Add(data, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, raw bool) {
		want, err := Decode(data, 9, epoch, raw)
		if err == nil { // a field of a known number and another type is none
			want.ProtoReflect().SetUnknown(nil)
		}
		for name, send := range forms {
			sent, sendErr := send(data, raw)
			if sendErr != nil {
				if err == nil {
					t.Errorf("%s: %v, but it decodes", name, sendErr)
				}
				continue
			}
			got := &sluicev1.Event{}
			gotErr := proto.Unmarshal(sent, got)
			got.ProtoReflect().SetUnknown(nil)
			if err == nil && (gotErr != nil || !proto.Equal(want, got)) {
				t.Errorf("%s: got %v, %v, want %v", name, got, gotErr, want)
			}
		}
	})
}

func BenchmarkForms(b *testing.B) {
	data, err := Encode(stored()["message"])
	if err != nil {
		b.Fatal(err)
	}
	room := make([]byte, 0, 4<<10)
	for name, do := range map[string]func() error{
		"appended":  func() error { _, err := AppendEvent(room, 1, data, at9, false); return err },
		"decode":    func() error { _, err := Decode(data, 9, epoch, false); return err },
		"undecoded": func() error { _, err := Undecoded(data, at9, false); return err },
		"outline":   func() error { _, err := ParseOutline(data); return err },
	} {
		b.Run("form="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
