package callback

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// kindOf returns the name of the field of the oneof called name that is set.
func kindOf(m proto.Message, name protoreflect.Name) string {
	r := m.ProtoReflect()
	if f := r.WhichOneof(r.Descriptor().Oneofs().ByName(name)); f != nil {
		return string(f.Name())
	}
	return ""
}

// TestClassify is what a body is taken for: first what must be found, then
// what looks like it.
func TestClassify(t *testing.T) {
	tests := map[string][]string{
		"message": {
			`{"data":{"messageId":"m","type":7}}`,
			`{"data":{"payload":{},"type":"7"}}`,
			`{"data":{"payload":{"text":"t"},"type":7.0}}`,
			`{"messageId":"m","messageType":0}`,
			`{"messageId":"m","type":0}`,
			`{"message":{"messageId":"m","type":0}}`,
			`{"data":{"timestamp":"1","mentionSelf":false}}`,
			`{"data":{"timestamp":1,"mentionSelf":"true"}}`,
			// with what others have
			`{"data":{"messageId":"m","type":7,"payload":{},"requestId":"r","sentStatus":true}}`,
			`{"data":{"messageId":"m","type":7,"externalRequestId":"r","errorCode":0}}`,
			`{"type":"word","data":{"messageId":"m","type":7}}`,
			`{"messageId":"m","type":1,"data":{"userId":"u","name":"n"}}`,
			`{"messageId":"m","messageType":7,"imContactId":"c","imContactName":"n","hello":"h","botInfo":{}}`,
			`{"messageId":"m","type":1e999}`,
		},
		"send_result": {
			`{"data":{"sentStatus":false,"reason":"r"}}`,
			`{"data":{"sentStatus":true,"messageId":"m","type":7}}`,
			`{"requestId":"r","messageId":"m","messageType":7}`,
			`{"externalRequestId":"e","errorCode":-1}`,
			`{"sendCode":"0"}`,
			`{"data":{"sentStatus":true,"sendTimestamp":1}}`,
		},
		"friend_request": {
			`{"botId":"b","imBotId":"w","imContactId":"c","imContactName":"n","hello":"h"}`,
			`{"imContactId":"c","hello":""}`,
			`{"imContactId":"c","imContactName":null}`,
			`{"data":{"imContactId":"c","hello":"h"}}`,
		},
		"friend_added": {
			`{"data":{"wxid":"w","createTimestamp":1}}`,
			`{"externalUserId":"e","createTimestamp":1}`,
			`{"code":0,"data":{"phoneNum":"1","createTimestamp":1}}`,
			`{"code":"0","data":{"phoneNum":"1","createTimestamp":1}}`,
			`{"code":1,"data":{"phoneNum":"1","createTimestamp":1,"wxid":"w"}}`,
			`{"code":1,"data":{"phoneNum":"1","createTimestamp":1,"name":"n"}}`,
		},
		"add_friend_result": {
			`{"code":1,"message":"no","data":{"fromwxid":"f","type":1,"payload":{"wxid":"w"},"createTimestamp":1,"sendTimestamp":2}}`,
			`{"data":{"type":2,"roomWxid":"r","payload":{},"createTimestamp":1}}`,
			`{"data":{"type":3,"contactSenderWxid":"s","payload":{"name":"n"}}}`,
			`{"data":{"phoneNum":"1","createTimestamp":1,"errorCode":5}}`,
			`{"data":{"fromwxid":"f","requestId":"r"}}`,
			`{"code":1,"data":{"phoneNum":"1","createTimestamp":1}}`,
			`{"code":"-1","data":{"roomWxid":"r","createTimestamp":1}}`,
			`{"code":1,"phoneNum":"1","createTimestamp":1}`,
		},
		"customer_added": {
			`{"imContactId":"c","createTimestamp":1}`,
			`{"data":{"imContactId":"c","name":"n","botInfo":{"botId":"b"}}}`,
			`{"type":"add_external_contact","data":{"unionId":"u"}}`,
			`{"type":"add_half_external_contact","data":{"externalUserId":"e","type":1}}`,
			`{"type":"add_external_contact","data":{"unionId":null,"name":"n"}}`,
			`{"type":"add_external_contact"}`,
			`{"type":"add_it","data":{"unionId":"u"}}`,
		},
		"room_members_changed": {
			`{"imRoomId":"r","leftMembers":[]}`,
			`{"leftMember":{"imContactId":"c"}}`,
			`{"chatId":"c","joinedMembers":null}`,
			`{"imRoomId":"r","topic":"t","members":[{"imContactId":"c"}]}`,
			`{"data":{"imRoomId":"r","leftMembers":[{}]}}`,
		},
		"room_topic_changed": {
			`{"chatId":"c","botInfo":{},"imRoomId":"r","topic":"t","timestamp":"1"}`,
			`{"data":{"imRoomId":"r","topic":"t"}}`,
		},
		"staff_changed": {
			`{"type":"create_user","data":{"userId":"u","name":"n"}}`,
			`{"type":"login","data":{"userId":"u","isLogin":true},"timestamp":1}`,
			`{"type":"add_user","data":{"userId":"u","email":"e"}}`,
		},
		"follow_up_timeout": {
			`[{"_id":"i","expectFollowUpTimestamp":1}]`,
			`{"_id":"i","chatId":"c","markFollowUpTimestamp":1}`,
			`[{"_id":"i","round":1,"userId":"u"}]`,
			`{"_id":"i","round":0,"userId":"u"}`,
		},
		"other": {
			`null`, `true`, `0`, `"token"`, `[]`, `{}`, `[{}]`, `[[]]`,
			`[{"_id":"i","expectFollowUpTimestamp":1},{"x":1}]`,
			`[{"_id":"i","round":1},{"_id":"i","userId":"u"}]`,
			`{"type":"add_it","data":{"name":"n"}}`,
			`[{"data":{"_id":"i","expectFollowUpTimestamp":1}}]`,
			`[{"data":{"messageId":"m","type":7}}]`,
			`{"data":[{"messageId":"m","type":7}]}`,
			`{"data":"{\"messageId\":\"m\",\"type\":7}"}`,
			`{"payload":{"messageId":"m","type":7}}`,
			`{"messageId":"m"}`, `{"messageId":"","type":7}`, `{"type":7}`, `{"payload":null,"type":7}`, `{"messageId":"m","type":""}`,
			`{"type":"text","data":{"messageId":"m","payload":{"text":"t"}}}`,
			`{"type":"event","messageId":"m","payload":{},"data":{}}`,
			`{"messageId":"m","type":"7x"}`, `{"messageId":"m","type":true}`, `{"messageId":"m","type":[7]}`,
			`{"mentionSelf":false}`, `{"timestamp":"","mentionSelf":false}`,
			`{"type":"del_external_contact","data":{"unionId":"u","name":"n","followUser":[]}}`,
			`{"data":{"userId":"u","name":"n","email":"e"}}`,
			`{"imContactId":"c"}`, `{"requestid":"r"}`, `{"externalRequestId":"e"}`, `{"topic":"t"}`,
			`{"eventType":"logout","imBotId":"w","bot":{"status":0}}`,
		},
	}
	for want, bodies := range tests {
		for _, body := range bodies {
			if got := kindOf(one(t, body), "body"); got != want {
				t.Errorf("Decode(%s) is %s, want %s", body, got, want)
			}
		}
	}
}

func TestDialect(t *testing.T) {
	tests := map[string]sluicev1.Dialect{
		`{"data":{"messageId":"m","type":7}}`:                            sluicev1.Dialect_DIALECT_GROUP,
		`{"data":{"messageId":"m","messageType":7,"imBotId":"b"}}`:       sluicev1.Dialect_DIALECT_GROUP,
		`{"messageId":"m","messageType":7}`:                              sluicev1.Dialect_DIALECT_ENTERPRISE,
		`{"messageId":"m","type":7,"imContactId":"c"}`:                   sluicev1.Dialect_DIALECT_ENTERPRISE,
		`{"messageId":"m","type":7,"contactId":"c","botWxid":"b"}`:       sluicev1.Dialect_DIALECT_GROUP_FLAT,
		`{"message":{"messageId":"m","type":7}}`:                         sluicev1.Dialect_DIALECT_STREAM_PACKET,
		`{"clientId":"c","message\t":{"messageId":"m","messageType":7}}`: sluicev1.Dialect_DIALECT_STREAM_PACKET,
		`{"data":{"sentStatus":true}}`:                                   sluicev1.Dialect_DIALECT_UNSPECIFIED,
		`{"x":1}`:                                                        sluicev1.Dialect_DIALECT_UNSPECIFIED,
	}
	for body, want := range tests {
		if got := one(t, body).GetDialect(); got != want {
			t.Errorf("Decode(%s) has %v, want %v", body, got, want)
		}
	}
}

// TestSiblings is what the callbacks beside messages become where the corpus
// does not show it.
func TestSiblings(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{
			"a failed send", `{"code":"1","data":{"sentStatus":"false","requestId":7,"reason":"r","errorCode":"-5","chatId":"c","botWxid":"b","x":1}}`,
			`{"sendResult":{"sent":false,"requestId":"7","reason":"r","errorCode":-5,"chatId":"c","code":1,"bot":{"wxid":"b"}},
			 "anomalies":["NUMBER_FOR_STRING","STRING_FOR_BOOL","STRING_FOR_NUMBER","UNKNOWN_FIELD"],"unmapped":{"data.x":1}}`,
		},
		{
			"a failed send, enterprise", `{"orgId":"o","requestId":"r","sendCode":3,"errorCode":4}`,
			`{"sendResult":{"sent":false,"requestId":"r","orgId":"o","sendCode":3,"errorCode":4}}`,
		},
		{
			"a failed add-friend task", `{"code":1,"message":"busy","data":{"fromwxid":"f","type":3,"contactSenderWxid":"s","errorCode":9,"message":"","payload":{}}}`,
			`{"addFriendResult":{"code":1,"errorMessage":"busy","errorCode":9,"bot":{"wxid":"f"},"method":"ADD_FRIEND_METHOD_CARD","contactSenderWxid":"s"}}`,
		},
		{
			"a friend request without hello", `{"botId":"b","imBotId":"w","imContactId":"c","imContactName":"n"}`,
			`{"friendRequest":{"bot":{"id":"b","wxid":"w"},"contact":{"wxid":"c","name":"n"}}}`,
		},
		{
			"a new customer in data", `{"data":{"imContactId":"c","createTimestamp":"0","remarkMobiles":["1"],"imInfo":{"externalUserId":"e","followUser":[{"wecomUserId":"u"}],"y":2}}}`,
			`{"customerAdded":{"contact":{"wxid":"c","externalUserId":"e"},"createTime":"1970-01-01T00:00:00Z","remarkMobiles":["1"],"followUsers":[{"userId":"u"}]},
			 "anomalies":["UNKNOWN_FIELD"],"unmapped":{"data.imInfo.y":2}}`,
		},
		{
			"one member, not a list", `{"imRoomId":"r","leftMember":{"imContactId":"c","x":1}}`,
			`{"roomMembersChanged":{"change":"CHANGE_LEFT","room":{"wxid":"r"},"members":[{"wxid":"c"}]},
			 "anomalies":["ITEM_FOR_LIST","UNKNOWN_FIELD"],"unmapped":{"leftMember.x":1}}`,
		},
		{
			"members that are none", `{"imRoomId":"r","joinedMembers":["a",{"imContactId":"c","contactType":"1"}]}`,
			`{"roomMembersChanged":{"change":"CHANGE_JOINED","room":{"wxid":"r"},"members":[{"wxid":"c","type":1}]},
			 "anomalies":["STRING_FOR_NUMBER","WRONG_TYPE"],"unmapped":{"joinedMembers[0]":"a"}}`,
		},
		{
			"a new topic", `{"chatId":"c","token":"t","botInfo":{"imBotId":"b","nickName":"n","x":1},"imRoomId":"r","topic":"new","oldTopic":"old","avatarUrl":"a","ownerImContactId":"o","groupId":"g","timestamp":"0"}`,
			`{"roomTopicChanged":{"chatId":"c","bot":{"wxid":"b"},"botName":"n","room":{"wxid":"r","topic":"new"},"oldTopic":"old","avatar":"a","ownerWxid":"o","groupId":"g","eventTime":"1970-01-01T00:00:00Z"},
			 "anomalies":["UNKNOWN_FIELD"],"unmapped":{"botInfo.x":1}}`,
		},
		{
			"other, as it came", `{"n":12345678901234567890,"f":0.30000000000000004,"z":-0.0,"e":1E2,"t\t":" ","d.e":null,"a":[true,"\ud83d\ude0a"],"token":"x"}`,
			`{"other":{"fields":{"n":"12345678901234567890","f":0.30000000000000004,"z":0,"e":100,"t\t":" ","d.e":null,"a":[true,"😊"]}},"anomalies":["TAB_IN_NAME"]}`,
		},
		{"other, a list", `[1,{"a":1}]`, `{"other":{"value":[1,{"a":1}]}}`},
		{"other, null", `null`, `{"other":{"value":null}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantEvent(t, tt.body, one(t, tt.body), tt.want) })
	}
}

// TestFollowUpTimeouts is the one callback that is an array: an event for each
// item, with the item's own bytes.
func TestFollowUpTimeouts(t *testing.T) {
	items := []string{
		`{"_id":"1","chatId":"c", "expectFollowUpTimestamp":1,"token":""}`,
		`{"_id":"2","round":"2","assignedTimestamp":1,"x":{"y":1}}`,
		`{"round":3,"userId":"u"}`,
	}
	cb := Decode([]byte(` [` + strings.Replace(strings.Join(items, ", "), `""`, `"secret"`, 1) + `]`))
	if len(cb.GetEvents()) != len(items) {
		t.Fatalf("%d events, want %d", len(cb.GetEvents()), len(items))
	}
	for i, e := range cb.GetEvents() {
		if string(e.GetRaw()) != items[i] {
			t.Errorf("raw of event %d = %s, want %s", i, e.GetRaw(), items[i])
		}
		e.Raw = nil
	}
	wantEvent(t, items[0], cb.GetEvents()[0],
		`{"followUpTimeout":{"id":"1","chatId":"c","expectFollowUpTime":"1970-01-01T00:00:00.001Z"}}`)
	wantEvent(t, items[1], cb.GetEvents()[1],
		`{"followUpTimeout":{"id":"2","round":2,"assignedTime":"1970-01-01T00:00:00.001Z"},
		  "anomalies":["STRING_FOR_NUMBER","UNKNOWN_FIELD"],"unmapped":{"x":{"y":1}}}`)
	wantEvent(t, items[2], cb.GetEvents()[2], `{"followUpTimeout":{"round":3,"userId":"u"}}`)
	if diff := cmp.Diff([]string{"secret"}, cb.GetTokens()); diff != "" {
		t.Errorf("tokens, -want +got:\n%s", diff)
	}
}

// TestEveryPayloadCase walks the schema: each case of Message.payload is made
// for the number that its name stands for, and each number has a case.
func TestEveryPayloadCase(t *testing.T) {
	message := (&sluicev1.Message{}).ProtoReflect().Descriptor()
	cases := map[string]bool{}
	for i := range message.Oneofs().ByName("payload").Fields().Len() {
		cases[string(message.Oneofs().ByName("payload").Fields().Get(i).Name())] = true
	}
	enum := sluicev1.MessageType(0).Descriptor().Values()
	for i := range enum.Len() {
		value := enum.Get(i)
		m := &sluicev1.Message{Type: sluicev1.MessageType(value.Number())}
		(&decoder{tape: &tape{}}).payload(m, -1)
		want := strings.ToLower(strings.TrimPrefix(string(value.Name()), "MESSAGE_TYPE_"))
		if got := kindOf(m, "payload"); got != want {
			t.Errorf("type %d has payload %q, want %q", value.Number(), got, want)
		}
		delete(cases, want)
	}
	m := &sluicev1.Message{Type: 17}
	(&decoder{tape: &tape{}}).payload(m, -1)
	delete(cases, kindOf(m, "payload"))
	for name := range cases {
		t.Errorf("no type makes the payload %q", name)
	}
}

// TestEveryBodyCase walks the schema: the corpus, and a body for what is not in
// it, make each case of Event.body.
func TestEveryBodyCase(t *testing.T) {
	fields := (&sluicev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	cases := map[string]bool{}
	for i := range fields.Len() {
		cases[string(fields.Get(i).Name())] = true
	}
	bodies := corpus(t)
	bodies["topic"] = []byte(`{"imRoomId":"r","topic":"t"}`)
	for _, body := range bodies {
		for _, e := range Decode(body).GetEvents() {
			delete(cases, kindOf(e, "body"))
		}
	}
	for name := range cases {
		t.Errorf("no body makes the event %q", name)
	}
}

// TestOrder checks that the order of members changes nothing but which of two
// with one name wins.
func TestOrder(t *testing.T) {
	for name, body := range corpus(t) {
		if strings.Contains(name, "duplicate") || strings.HasPrefix(name, "a09") {
			continue
		}
		want, got := Decode(body), Decode(reversed(t, body))
		for i := range want.GetEvents() {
			want.GetEvents()[i].Raw, got.GetEvents()[i].Raw = nil, nil
		}
		if diff := cmp.Diff(want.GetEvents(), got.GetEvents(), protocmp.Transform()); diff != "" {
			t.Errorf("%s with its members reversed, -want +got:\n%s", name, diff)
		}
	}
}
