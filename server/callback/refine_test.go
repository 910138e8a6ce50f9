package callback

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
)

// TestRefine is what the path adds: only what the content leaves open.
func TestRefine(t *testing.T) {
	tests := []struct{ body, path, want string }{
		// Whether members joined or left.
		{`{"imRoomId":"r","members":[]}`, "/room/left", `{"roomMembersChanged":{"change":"CHANGE_LEFT","room":{"wxid":"r"}}}`},
		{`{"imRoomId":"r","members":[]}`, "/x/room/joined/", `{"roomMembersChanged":{"change":"CHANGE_JOINED","room":{"wxid":"r"}}}`},
		{`{"imRoomId":"r","members":[]}`, "/message", `{"roomMembersChanged":{"room":{"wxid":"r"}}}`},
		{`{"imRoomId":"r","leftMembers":[]}`, "/room/joined", `{"roomMembersChanged":{"change":"CHANGE_LEFT","room":{"wxid":"r"}}}`},
		{
			`{"imRoomId":"r","topic":"t","oldTopic":"o"}`, "/room/left",
			`{"roomMembersChanged":{"change":"CHANGE_LEFT","room":{"wxid":"r","topic":"t"}},"anomalies":["UNKNOWN_FIELD"],"unmapped":{"oldTopic":"o"}}`,
		},
		{`{"imRoomId":"r","topic":"t"}`, "/room/topic", `{"roomTopicChanged":{"room":{"wxid":"r","topic":"t"}}}`},

		// What the content does not say at all.
		{`{"data":{"reason":"x","errorCode":5,"chatId":"c","y":1}}`, "/sentResult", `{"sendResult":{"reason":"x","errorCode":5,"chatId":"c"},"anomalies":["UNKNOWN_FIELD"],"unmapped":{"data.y":1}}`},
		{`{"code":1,"data":{"phoneNum":"135"}}`, "/friend/send", `{"addFriendResult":{"code":1,"phoneNumber":"135"}}`},
		{`{"code":0,"data":{"wxid":"w","phoneNum":"135"}}`, "/friend/confirm", `{"friendAdded":{"code":0,"phoneNumber":"135","contact":{"wxid":"w"}}}`},
		{`{"chatId":"c","imRoomId":"r","timestamp":0}`, "/room/left", `{"roomMembersChanged":{"change":"CHANGE_LEFT","chatId":"c","room":{"wxid":"r"},"eventTime":"1970-01-01T00:00:00Z"}}`},
		{`{"chatId":"c"}`, "/room/joined", `{"roomMembersChanged":{"change":"CHANGE_JOINED","chatId":"c"}}`},
		{`{"imRoomId":"r","topic":""}`, "/room/topic/", `{"roomTopicChanged":{"room":{"wxid":"r"}}}`},
		{`{"data":{"name":"n","followUser":null}}`, "/v1/notify/add/customer", `{"customerAdded":{"contact":{"name":"n"}}}`},
		{`{"type":"add_it","data":{"name":"n"}}`, "/v1/notify/add/customer", `{"customerAdded":{"changeType":"add_it","contact":{"name":"n"}}}`},
		{`{"type":"login","data":{"userId":"u"}}`, "/crm/v1/notify/login/user", `{"staffChanged":{"changeType":"login","userId":"u"}}`},
		{`{"data":{"userId":"u"}}`, "/login/user", `{"staffChanged":{"userId":"u"}}`},
		{`{"type":"x","event":{"a":1}}`, "/notify/add/user", `{"staffChanged":{"changeType":"x","wecomEvent":{"a":1}}}`},
		{`{"_id":"i","chatId":"c"}`, "/api/follow/timeout", `{"followUpTimeout":{"id":"i","chatId":"c"}}`},

		// A task that failed, and a friend who was added.
		{`{"data":{"phoneNum":"135","createTimestamp":0}}`, "/friend/send", `{"addFriendResult":{"phoneNumber":"135","createTime":"1970-01-01T00:00:00Z"}}`},
		{`{"data":{"phoneNum":"135","createTimestamp":0}}`, "/friend/confirm", `{"friendAdded":{"phoneNumber":"135","createTime":"1970-01-01T00:00:00Z"}}`},
		{`{"data":{"phoneNum":"135","createTimestamp":0,"wxid":"w"}}`, "/friend/send", `{"friendAdded":{"phoneNumber":"135","createTime":"1970-01-01T00:00:00Z","contact":{"wxid":"w"}}}`},

		// What stays: of a known kind, of another, without a field of the kind.
		{`{"messageId":"m","type":7}`, "/room/left", `{"dialect":"DIALECT_GROUP_FLAT","message":{"messageId":"m","type":7,"text":{}}}`},
		{`{"imContactId":"c","hello":"h"}`, "/sentResult", `{"friendRequest":{"contact":{"wxid":"c"},"hello":"h"}}`},
		{`{}`, "/chat", `{"other":{"path":"/chat","fields":{}}}`},
		{`{"x":1}`, "/sentResult/", `{"other":{"path":"/sentResult/","fields":{"x":1}}}`},
		{`{"botInfo":{"x":1}}`, "/room/topic", `{"other":{"path":"/room/topic","fields":{"botInfo":{"x":1}}}}`},
		{`{"type":"del_external_contact","data":{"name":"n"}}`, "/notify/add/customer", `{"other":{"path":"/notify/add/customer","fields":{"type":"del_external_contact","data":{"name":"n"}}}}`},
		{`[{"_id":"i"},null]`, "/follow/timeout", `{"other":{"path":"/follow/timeout","value":[{"_id":"i"},null]}}`},
		{`"x"`, "/room/left", `{"other":{"path":"/room/left","value":"x"}}`},
		{`{"chatId":"c"}`, "/xroom/left", `{"other":{"path":"/xroom/left","fields":{"chatId":"c"}}}`},
		{`{"chatId":"c"}`, "/room/Left", `{"other":{"path":"/room/Left","fields":{"chatId":"c"}}}`},
		{`{"chatId":"c"}`, "/room/left/x", `{"other":{"path":"/room/left/x","fields":{"chatId":"c"}}}`},
	}
	for _, tt := range tests {
		e := Decode([]byte(tt.body)).GetEvents()[0]
		Refine(e, tt.path)
		if string(e.GetRaw()) != tt.body {
			t.Errorf("Refine made raw %s, want %s", e.GetRaw(), tt.body)
		}
		e.Raw = nil
		wantEvent(t, tt.body+" at "+tt.path, e, tt.want)
	}
}

// TestRefineWithoutRaw checks that an event that came typed stays what it is.
func TestRefineWithoutRaw(t *testing.T) {
	e := one(t, `{"chatId":"c"}`)
	Refine(e, "/room/left")
	wantEvent(t, "no raw", e, `{"other":{"path":"/room/left","fields":{"chatId":"c"}}}`)
}

// TestRefineKeepsAnomalies checks that what was cut out of raw is not forgotten
// when raw is read again.
func TestRefineKeepsAnomalies(t *testing.T) {
	for _, anomaly := range []string{InvalidUTF8, NestedToken} {
		cb := Decode([]byte("{\"chatId\":\"c\",\"token\":\"\xff\"}"))
		if anomaly == NestedToken {
			cb = Scrub([]byte(`{"chatId":"c-secret-"}`), "-secret-")
		}
		e := cb.GetEvents()[0]
		Refine(e, "/room/left")
		e.Raw = nil
		wantEvent(t, anomaly, e, `{"roomMembersChanged":{"change":"CHANGE_LEFT","chatId":"c"},"anomalies":["`+anomaly+`"]}`)
	}
}

// FuzzRefine: the path never changes raw nor a message, takes nothing away from
// what the content says, and a second look adds nothing.
func FuzzRefine(f *testing.F) {
	seeds(f, func(body []byte) { f.Add(body, uint8(0)); f.Add(body, uint8(3)) })
	f.Fuzz(func(t *testing.T, body []byte, at uint8) {
		path := paths[int(at)%len(paths)].end
		for _, e := range Decode(body).GetEvents() {
			was := proto.CloneOf(e)
			Refine(e, path)
			again := proto.CloneOf(e)
			Refine(again, path)
			switch {
			case !bytes.Equal(e.GetRaw(), was.GetRaw()):
				t.Fatal("raw changed")
			case was.GetMessage() != nil && !proto.Equal(e, was):
				t.Fatalf("%v became %v", was, e)
			case !proto.Equal(again, e):
				t.Fatalf("%v became %v", e, again)
			case e.GetDialect() != was.GetDialect():
				t.Fatal("the dialect changed")
			}
			if _, err := proto.Marshal(e); err != nil {
				t.Fatalf("the event is not valid: %v", err)
			}
			if other := e.GetOther(); other != nil && other.GetPath() != path {
				t.Fatalf("path %q, want %q", other.GetPath(), path)
			}
		}
	})
}
