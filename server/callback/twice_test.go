package callback

import (
	"slices"
	"strings"
	"testing"
)

// TestFieldTwice is a field under two of its names, or in two places: one value
// is taken, the other is in unmapped, and equal or unset ones are no matter.
// Each row is a body, or the type and payload of a message.
func TestFieldTwice(t *testing.T) {
	tests := []struct{ in, want string }{
		// A documented name wins, wherever it stands.
		{`2,"payload":{"voiceUrl":"a","url":"b"}`, `"voice":{"url":"a"}},"unmapped":{"data.payload.url":"b"}`},
		{`2,"payload":{"url":"b","voiceUrl":"a"}`, `"voice":{"url":"a"}},"unmapped":{"data.payload.url":"b"}`},
		{`2,"payload":{"url":"b","voiceUrl":""}`, `"voice":{"url":"b"}}`},
		{`2,"payload":{"url":"a","voiceUrl":"a"}`, `"voice":{"url":"a"}}`},
		{`1,"payload":{"url":"b","fileUrl":"a"}`, `"file":{"url":"a"}},"unmapped":{"data.payload.url":"b"}`},
		{`5,"payload":{"url":"b","imageUrl":"a"}`, `"emoticon":{"url":"a"}},"unmapped":{"data.payload.url":"b"}`},
		{`6,"payload":{"url":"b","imageUrl":"a"}`, `"image":{"url":"a"}},"unmapped":{"data.payload.url":"b"}`},
		{`13,"payload":{"url":"b","videoUrl":"a"}`, `"video":{"url":"a"}},"unmapped":{"data.payload.url":"b"}`},
		{`7,"payload":{"quoteMessage":{"nickame":"b","nickname":"a"}}`, `"text":{"quote":{"nickname":"a"}}},"unmapped":{"data.payload.quoteMessage.nickame":"b"}`},
		{`9,"payload":{"appId":"b","appid":"a"}`, `"miniProgram":{"appId":"a"}},"unmapped":{"data.payload.appId":"b"}`},
		{`9999,"payload":{"inviterName":"b","invitaterName":"a"}`, `"roomInvitation":{"inviterName":"a"}},"unmapped":{"data.payload.inviterName":"b"}`},

		// Of names of one rank the first wins.
		{`9,"payload":{"thumbUrl":"a","thumbnailUrl":"b"}`, `"miniProgram":{"thumbnailUrl":"a"}},"unmapped":{"data.payload.thumbnailUrl":"b"}`},
		{`7,"imBotId":"a","botWxid":"b"`, `"bot":{"wxid":"a"},"text":{}},"unmapped":{"data.botWxid":"b"}`},
		{`7,"roomId":"r","roomTopic":"a","roomName":"b"`, `"room":{"wxid":"r","topic":"a"},"text":{}},"unmapped":{"data.roomName":"b"}`},
		{`3,"messageType":7`, `"contactCard":{}},"unmapped":{"data.messageType":7}`},
		{`0,"messageType":7`, `"unknown":{}},"unmapped":{"data.messageType":7}`},

		// A nest and beside it.
		{`6,"payload":{"artwork":{"width":1,"url":"u"},"artwork.width":2}`, `"image":{"artwork":{"width":1,"url":"u"}}},"anomalies":["DOTTED_NAME"],"unmapped":{"data.payload.artwork.width":2}`},
		{`10000,"payload":{"type":6,"subPayload":{"memberNames":["a"]},"RoomJoinMemberPayload.memberNames":["b"]}`, `"system":{"type":6,"roomMembersJoined":{"memberNames":["a"]}}},"anomalies":["DOTTED_NAME"],"unmapped":{"data.payload.RoomJoinMemberPayload.memberNames":["b"]}`},
		{
			`10001,"payload":{"wechatSystemPayloadType":1,"subPayload":{"leaverList":["a"],"timestamp":1},"leaverList":["a"],"timestamp":2}`,
			`"wecomSystem":{"type":1,"membersLeft":{"leavers":[{"displayName":"a"}],"time":"1970-01-01T00:00:00.001Z"}}},"unmapped":{"data.payload.timestamp":2}`,
		},

		// Other callbacks: the envelope wins over what is around it.
		{`{"code":1,"data":{"requestId":"r","code":2,"sentStatus":true},"requestId":"x","sentStatus":false}`, `{"sendResult":{"code":2,"sent":true,"requestId":"r"},"unmapped":{"code":1,"requestId":"x","sentStatus":false}`},
		{`{"data":{"requestId":"r","sendCode":0},"errorCode":"1","requestId":"r"}`, `{"sendResult":{"requestId":"r","errorCode":1,"sendCode":0,"sent":true},"anomalies":["STRING_FOR_NUMBER"]`},
		{`{"wxid":"b","imContactId":"a","botInfo":{"botId":"c"},"botId":"d"}`, `{"customerAdded":{"contact":{"wxid":"a"},"bot":{"id":"c"}},"unmapped":{"wxid":"b","botId":"d"}`},
		{`{"imContactId":"a","followUser":[{"userId":"u"}],"imInfo":{"followUser":{"userId":"v"}}}`, `{"customerAdded":{"contact":{"wxid":"a"},"followUsers":[{"userId":"u"}]},"unmapped":{"imInfo.followUser":{"userId":"v"}}`},
		{`{"type":"add_external_contact","event":{"a":1},"data":{"unionId":"u","event":{"a":2},"gender":1},"gender":2}`, `{"customerAdded":{"contact":{},"changeType":"add_external_contact","unionId":"u","gender":1,"wecomEvent":{"a":2}},"unmapped":{"event":{"a":1},"gender":2}`},
		{`{"data":{"fromwxid":"f","payload":{"name":"a"}},"payload":{"name":"b","wxid":"w"}}`, `{"addFriendResult":{"bot":{"wxid":"f"},"contact":{"name":"a","wxid":"w"}},"unmapped":{"payload.name":"b"}`},
		{`{"roomId":"b","imRoomId":"a","roomTopic":"d","topic":"c"}`, `{"roomTopicChanged":{"room":{"wxid":"a","topic":"c"}},"unmapped":{"roomId":"b","roomTopic":"d"}`},
		{`{"joinedMembers":[],"leftMembers":[{"imContactId":"a"}],"joinMembers":[{"imContactId":"b"}],"members":[{"imContactId":"a"}]}`, `{"roomMembersChanged":{"change":"CHANGE_LEFT","members":[{"wxid":"a"}]},"unmapped":{"joinMembers":[{"imContactId":"b"}]}`},
		{`{"leftMembers":[{"imContactId":"a"}],"leftMember":{"imContactId":"b"},"joinedMembers":[]}`, `{"roomMembersChanged":{"change":"CHANGE_LEFT","members":[{"wxid":"a"}]},"anomalies":["ITEM_FOR_LIST"],"unmapped":{"leftMember":{"imContactId":"b"}}`},
	}
	for _, tt := range tests {
		body, want := tt.in, tt.want
		if body[0] != '{' {
			typ := body[:len(body)-len(strings.TrimLeft(body, "0123456789"))]
			body = `{"data":{"messageId":"m","type":` + body + `}}`
			want = `{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":` + typ + `,` + want
		}
		e := one(t, body)
		if lost := e.GetUnmapped() != nil; lost != slices.Contains(e.GetAnomalies(), DuplicateName) {
			t.Errorf("Decode(%s) has anomalies %v with unmapped %v", body, e.GetAnomalies(), e.GetUnmapped())
		}
		e.Anomalies = slices.DeleteFunc(e.GetAnomalies(), func(a string) bool { return a == DuplicateName })
		wantEvent(t, body, e, want+"}")
	}
}
