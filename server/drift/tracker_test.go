package drift

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
)

// event is the event that Sluice makes of a body posted to path.
func event(t *testing.T, sequence uint64, path, body string) *sluicev1.Event {
	t.Helper()
	events := callback.Decode([]byte(body)).GetEvents()
	if len(events) != 1 {
		t.Fatalf("%s is %d events, want 1", body, len(events))
	}
	e := events[0]
	callback.Refine(e, path)
	e.Sequence, e.Path, e.ReceiveTime = sequence, path, &timestamppb.Timestamp{Seconds: int64(sequence)}
	return e
}

const (
	field     = sluicev1.DriftFinding_KIND_FIELD
	anomaly   = sluicev1.DriftFinding_KIND_ANOMALY
	enumValue = sluicev1.DriftFinding_KIND_ENUM_VALUE
	subPath   = sluicev1.DriftFinding_KIND_PATH
	bodyShape = sluicev1.DriftFinding_KIND_SHAPE
)

func TestTracker(t *testing.T) {
	type finding = sluicev1.DriftFinding
	tests := map[string]struct {
		path, body string // "" is "/"
		want       []*finding
	}{
		"as documented":       {body: `{"data":{"messageId":"1","type":7,"payload":{"text":"hello"},"botId":"b"}}`},
		"unmapped on purpose": {body: `{"code":0,"data":{"messageId":"1","type":7,"payload":{"text":"hello"},"snapshotDay":"x"}}`},
		"new field": {
			body: `{"code":0,"data":{"messageId":"1","type":7,"payload":{"text":"a","mood":"geheim"}}}`,
			want: []*finding{{Kind: field, Name: "data.payload.mood", Example: "string of 6 bytes"}},
		},
		"a name that is known elsewhere": {
			body: `{"data":{"messageId":"1","type":7,"payload":{"text":"a","code":1}}}`,
			want: []*finding{{Kind: field, Name: "data.payload.code", Example: "number"}},
		},
		"new fields of every type": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"a":true,"b":{"x":1,"y":2},"c":[1,2,3]}}`,
			want: []*finding{
				{Kind: field, Name: "data.a", Example: "boolean"},
				{Kind: field, Name: "data.b", Example: "object of 2 members"},
				{Kind: field, Name: "data.c", Example: "list of 3 items"},
			},
		},
		"items of a list": {
			path: "/room/left",
			body: `{"chatId":"c","imRoomId":"r","leftMembers":[{"imContactId":"a","mood":1},{"imContactId":"b","mood":2}]}`,
			want: []*finding{{Kind: field, Name: "leftMembers[].mood", Example: "number"}},
		},
		"one reason": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"timestamp":"string"}}`,
			want: []*finding{{Kind: anomaly, Name: "WRONG_TYPE", Where: "data.timestamp", Example: "string of 6 bytes"}},
		},
		"number too large": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"timestamp":1e22}}`,
			want: []*finding{{Kind: anomaly, Name: "NUMBER_OUT_OF_RANGE", Where: "data.timestamp", Example: "number"}},
		},
		"a field under two names": {
			body: `{"data":{"messageId":"1","type":2,"payload":{"voiceUrl":"a","url":"b"}}}`,
			want: []*finding{{Kind: anomaly, Name: "DUPLICATE_NAME", Where: "data.payload.url", Example: "string of 1 bytes"}},
		},
		"NUL": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"chatId":"a\u0000"}}`,
			want: []*finding{{Kind: anomaly, Name: "NUL_IN_ID", Where: "data.chatId", Example: "string of 2 bytes"}},
		},
		"payload without a type": {
			body: `{"data":{"timestamp":1,"mentionSelf":false,"payload":{"text":"a"}}}`,
			want: []*finding{{Kind: anomaly, Name: "PAYLOAD_WITHOUT_TYPE", Where: "data.payload", Example: "object of 1 members"}},
		},
		"topic without a room": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"roomTopic":"geheim"}}`,
			want: []*finding{{Kind: anomaly, Name: "TOPIC_WITHOUT_ROOM", Where: "data.roomTopic", Example: "string of 6 bytes"}},
		},
		"deep new field": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"mood":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}}`,
			want: []*finding{{Kind: field, Name: "data.mood", Example: "list of 1 items"}, {Kind: anomaly, Name: "VALUE_AS_TEXT"}},
		},
		"known, but too wide": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"snapshotDay":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}}`,
			want: []*finding{{Kind: anomaly, Name: "VALUE_AS_TEXT"}},
		},
		"a mapped object that is too wide": {
			body: `{"type":"add_external_contact","data":{"unionId":"u"},"event":{` + strings.Repeat(`"":0,`, 9999) + `"":0}}`,
			want: []*finding{{Kind: anomaly, Name: "VALUE_AS_TEXT", Where: "event", Example: "string of 50001 bytes"}},
		},
		"two reasons": {
			body: `{"data":{"messageId":"1","type":7,"payload":{},"timestamp":"string","mood":1}}`,
			want: []*finding{
				{Kind: field, Name: "data.mood", Example: "number"},
				{Kind: field, Name: "data.timestamp", Example: "string of 6 bytes"},
				{Kind: anomaly, Name: "WRONG_TYPE"},
			},
		},
		"anomaly without a value": {
			body: `{"data":{"messageId":"1","type":"7","payload":{}}}`,
			want: []*finding{{Kind: anomaly, Name: "STRING_FOR_NUMBER"}},
		},
		"numbers without a name": {
			body: `{"data":{"messageId":"1","type":77,"contactType":99,"payload":{}}}`,
			want: []*finding{
				{Kind: enumValue, Name: "message.sender.type", Example: "99"},
				{Kind: enumValue, Name: "message.type", Example: "77"},
			},
		},
		"a number twice in an event": {
			path: "/room/left",
			body: `{"chatId":"c","imRoomId":"r","leftMembers":[{"imContactId":"a","contactType":99},{"imContactId":"b","contactType":99}]}`,
			want: []*finding{{Kind: enumValue, Name: "room_members_changed.members[].type", Example: "99"}},
		},
		"path": {
			path: "/mood",
			body: `{"data":{"messageId":"1","type":7,"payload":{}}}`,
			want: []*finding{{Kind: subPath, Name: "/mood"}},
		},
		"other object": {
			path: "/chat",
			body: `{"type":"login","data":{"geheim":1}}`,
			want: []*finding{{Kind: bodyShape, Name: "{data, type}", Where: "/chat"}},
		},
		"other list": {body: `[1,"geheim"]`, want: []*finding{{Kind: bodyShape, Name: "list", Where: "/"}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var tracker Tracker
			path := tt.path
			if path == "" {
				path = "/"
			}
			fresh := tracker.Observe(event(t, 3, path, tt.body))
			if again := tracker.Observe(event(t, 5, path, tt.body)); len(again) != 0 {
				t.Errorf("the second event is the first of %v", again)
			}
			for _, f := range tt.want {
				f.Count, f.FirstSequence, f.LastSequence = 2, 3, 5
				f.FirstTime, f.LastTime = &timestamppb.Timestamp{Seconds: 3}, &timestamppb.Timestamp{Seconds: 5}
			}
			got := tracker.Report()
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" && len(tt.want)+len(got) > 0 {
				t.Errorf("Report (-want +got):\n%s", diff)
			}
			if len(fresh) != len(tt.want) {
				t.Errorf("the first event is the first of %v, want %d findings", fresh, len(tt.want))
			}
			if odd := tracker.odd; odd != 2*uint64(min(len(tt.want), 1)) {
				t.Errorf("%d of the two events are odd", odd)
			}
			if strings.Contains(fmt.Sprint(got), "geheim") {
				t.Errorf("a value is in the report: %v", got)
			}
		})
	}
}

// TestTrackerForgetsNoAnomaly holds that whatever the decoder notes is found,
// under its own name or as what it is about.
func TestTrackerForgetsNoAnomaly(t *testing.T) {
	for _, a := range callback.Anomalies() {
		var tracker Tracker
		tracker.Observe(&sluicev1.Event{Sequence: 1, Anomalies: []string{a}})
		if got := tracker.Report(); len(got) != 1 || got[0].GetName() != a {
			t.Errorf("an event with %s alone makes %v", a, got)
		}
	}
}

func TestTrackerShowsTheNewestFirst(t *testing.T) {
	var tracker Tracker
	for i, path := range []string{"/a", "/b", "/a", "/c"} {
		tracker.Observe(event(t, uint64(i+1), path, `{"data":{"messageId":"1","type":7,"payload":{}}}`))
	}
	var got []string
	for _, f := range tracker.Report() {
		got = append(got, f.GetName())
	}
	if diff := cmp.Diff([]string{"/c", "/b", "/a"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestTrackerIsBounded posts names without end, long ones too.
func TestTrackerIsBounded(t *testing.T) {
	var tracker Tracker
	const more = 7
	for i := range maxFindings + more {
		name := fmt.Sprintf("%d%s", i, strings.Repeat("名", maxName))
		tracker.Observe(event(t, uint64(i+1), "/"+name, `{"data":{"messageId":"1","type":7,"payload":{}}}`))
	}
	findings := tracker.Report()
	if len(findings) != maxFindings || tracker.leftOff != more || tracker.odd != maxFindings+more {
		t.Errorf("%d findings, %d left off, %d odd, want %d, %d, %d",
			len(findings), tracker.leftOff, tracker.odd, maxFindings, more, maxFindings+more)
	}
	for _, f := range findings {
		if len(f.GetName()) > maxName || !strings.HasSuffix(f.GetName(), "名…") {
			t.Fatalf("name %q has %d bytes, want at most %d and whole characters", f.GetName(), len(f.GetName()), maxName)
		}
	}
	known := findings[0].GetName()
	before := proto.CloneOf(findings[0])
	tracker.Observe(event(t, before.GetFirstSequence(), "/x", `{}`)) // no room for it
	if got := tracker.Report()[0]; got.GetName() != known || !proto.Equal(got, before) {
		t.Errorf("a full tracker changed %v to %v", before, got)
	}
}
