package record

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

// Who gets an undecoded event must find what it would have found in a decoded
// one.
func TestUndecodedIsSentAsDecodedWouldBe(t *testing.T) {
	for name, e := range stored() {
		t.Run(name, func(t *testing.T) {
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
					undecoded, err := Undecoded(data, 9, epoch, raw)
					if err != nil {
						t.Fatal(err)
					}
					sent, err := proto.Marshal(undecoded)
					if err != nil {
						t.Fatal(err)
					}
					got := &sluicev1.Event{}
					if err := proto.Unmarshal(sent, got); err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
						t.Errorf("raw %v: %s", raw, diff)
					}
				}
			}
		})
	}
	if _, err := Undecoded([]byte{0xff}, 9, epoch, true); err == nil {
		t.Error("Undecoded of garbage succeeded")
	}
	// What a record says of its own position is not believed.
	data, err := Encode(&sluicev1.Event{Sequence: 1, Cursor: "x", ChatKey: "c"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Undecoded(data, 9, epoch, false)
	if err != nil {
		t.Fatal(err)
	}
	if sent, err := proto.Marshal(e); err != nil || proto.Unmarshal(sent, e) != nil || e.GetSequence() != 9 || e.GetCursor() == "x" {
		t.Errorf("sequence = %d, cursor = %q, %v, want those of the record", e.GetSequence(), e.GetCursor(), err)
	}
}

func BenchmarkForms(b *testing.B) {
	data, err := Encode(stored()["message"])
	if err != nil {
		b.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"decode":    func() error { _, err := Decode(data, 9, epoch, false); return err },
		"undecoded": func() error { _, err := Undecoded(data, 9, epoch, false); return err },
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
