package callback

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// one decodes a body that is one event, and returns that without raw.
func one(t *testing.T, body string) *sluicev1.Event {
	t.Helper()
	cb := Decode([]byte(body))
	if len(cb.GetEvents()) != 1 {
		t.Fatalf("Decode(%s) = %d events, malformed %q, want one event", body, len(cb.GetEvents()), cb.GetMalformed())
	}
	e := cb.GetEvents()[0]
	e.Raw = nil
	return e
}

// wantEvent compares an event with one written as protojson.
func wantEvent(t *testing.T, body string, got *sluicev1.Event, want string) {
	t.Helper()
	w := &sluicev1.Event{}
	if err := protojson.Unmarshal([]byte(want), w); err != nil {
		t.Fatalf("the wanted event %s: %v", want, err)
	}
	if !proto.Equal(w, got) {
		t.Errorf("Decode(%s), -want +got:\n%s", body, cmp.Diff(w, got, protocmp.Transform()))
	}
}

// TestFieldDrift is what becomes of a value of another type, form or name than
// the vendor documents. Each row is the payload of an image message, or its
// envelope where it begins with a comma.
func TestFieldDrift(t *testing.T) {
	tests := []struct{ in, want string }{
		// As documented.
		{`{"size":1}`, `"message":{"image":{"size":1}}`},
		{`{"imageUrl":"u","url":""}`, `"message":{"image":{"url":"u"}}`},
		{`{"size":0,"width":0}`, `"message":{"image":{"size":0,"width":0}}`},

		// "", null and absent are the same, for every type.
		{`{"imageUrl":null,"size":"","width":null,"artwork":null,"artwork.width":""}`, `"message":{"image":{}},"anomalies":["DOTTED_NAME"]`},
		{`,"isSelf":"","source":null,"timestamp":"","contactType":"","botId":null`, `"message":{"image":{}}`},
		{`{}`, `"message":{"image":{}}`},
		{`null`, `"message":{"image":{}}`},
		{`""`, `"message":{"image":{}}`},

		// Numbers.
		{`{"size":"12"}`, `"message":{"image":{"size":12}},"anomalies":["STRING_FOR_NUMBER"]`},
		{`{"size":" 12 "}`, `"message":{"image":{"size":12}},"anomalies":["STRING_FOR_NUMBER"]`},
		{`{"size":12.0}`, `"message":{"image":{"size":12}}`},
		{`{"size":1.2e1}`, `"message":{"image":{"size":12}}`},
		{`{"size":9007199254740993}`, `"message":{"image":{"size":"9007199254740993"}}`},
		{`{"size":1.5}`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.payload.size":1.5}`},
		{`{"size":"1.5"}`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.payload.size":"1.5"}`},
		{`{"size":9223372036854775808}`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.payload.size":"9223372036854775808"}`},
		{`{"size":9223372036854775809}`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.payload.size":"9223372036854775809"}`},
		{`{"width":2147483648}`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.payload.width":2147483648}`},
		{`{"size":1e999999999}`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.payload.size":"1e999999999"}`},
		{`{"size":"x"}`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.size":"x"}`},
		{`{"size":"0x10"}`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.size":"0x10"}`},
		{`{"size":"Infinity"}`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.size":"Infinity"}`},
		{`{"size":true}`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.size":true}`},
		{`{"size":[1]}`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.size":[1]}`},

		// Strings.
		{`{"imageUrl":12}`, `"message":{"image":{"url":"12"}},"anomalies":["NUMBER_FOR_STRING"]`},
		{`,"chatId":2422188041612737714`, `"message":{"chatId":"2422188041612737714","image":{}},"anomalies":["NUMBER_FOR_STRING"]`},
		{`,"chatId":1.50e3`, `"message":{"chatId":"1.50e3","image":{}},"anomalies":["NUMBER_FOR_STRING"]`},
		{`{"imageUrl":true}`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.imageUrl":true}`},
		{`{"imageUrl":{"a":1}}`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.imageUrl":{"a":1}}`},
		{`,"contactName":"a\u0000b"`, `"message":{"sender":{"name":"a\u0000b"},"image":{}}`},
		{`,"chatId":"a\u0000b"`, `"message":{"image":{}},"anomalies":["NUL_IN_ID"],"unmapped":{"data.chatId":"a\u0000b"}`},
		{`,"contactName":"\ud83d"`, `"message":{"sender":{"name":"\ufffd"},"image":{}},"anomalies":["INVALID_UTF8"]`},
		{",\"contactName\":\"a\xff\"", `"message":{"sender":{"name":"a\ufffd"},"image":{}},"anomalies":["INVALID_UTF8"]`},
		{",\"contactName\":\"\\n\xff\\u0041\"", `"message":{"sender":{"name":"\n\ufffdA"},"image":{}},"anomalies":["INVALID_UTF8"]`},

		// Booleans.
		{`,"isSelf":"TRUE"`, `"message":{"isSelf":true,"image":{}},"anomalies":["STRING_FOR_BOOL"]`},
		{`,"isSelf":"0"`, `"message":{"isSelf":false,"image":{}},"anomalies":["STRING_FOR_BOOL"]`},
		{`,"isSelf":1`, `"message":{"isSelf":true,"image":{}},"anomalies":["NUMBER_FOR_BOOL"]`},
		{`,"isSelf":2`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.isSelf":2}`},
		{`,"isSelf":"yes"`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.isSelf":"yes"}`},

		// Enumerations keep the vendor's number.
		{`,"source":10`, `"message":{"source":10,"image":{}},"anomalies":["UNKNOWN_ENUM"]`},
		{`,"source":-1`, `"message":{"source":-1,"image":{}},"anomalies":["UNKNOWN_ENUM"]`},
		{`,"source":"15"`, `"message":{"source":"SOURCE_AI_REPLY","image":{}},"anomalies":["STRING_FOR_NUMBER"]`},
		{`,"source":"API"`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.source":"API"}`},
		{`,"contactType":0`, `"message":{"image":{}}`},
		{`,"contactType":4`, `"message":{"sender":{"type":4},"image":{}},"anomalies":["UNKNOWN_ENUM"]`},

		// Times, in milliseconds.
		{`,"timestamp":1763365331101`, `"message":{"sendTime":"2025-11-17T07:42:11.101Z","image":{}}`},
		{`,"timestamp":"1763365331101"`, `"message":{"sendTime":"2025-11-17T07:42:11.101Z","image":{}}`},
		{`,"timestamp":1.763365331101E12`, `"message":{"sendTime":"2025-11-17T07:42:11.101Z","image":{}}`},
		{`,"timestamp":0`, `"message":{"sendTime":"1970-01-01T00:00:00Z","image":{}}`},
		{`,"timestamp":-1`, `"message":{"sendTime":"1969-12-31T23:59:59.999Z","image":{}}`},
		{`,"timestamp":253402300799999`, `"message":{"sendTime":"9999-12-31T23:59:59.999Z","image":{}}`},
		{`,"timestamp":253402300800000`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.timestamp":253402300800000}`},
		{`,"timestamp":-62135596800001`, `"message":{"image":{}},"anomalies":["NUMBER_OUT_OF_RANGE"],"unmapped":{"data.timestamp":-62135596800001}`},
		{`,"timestamp":"2023-05-01 10:00:00"`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.timestamp":"2023-05-01 10:00:00"}`},

		// Names.
		{`{"imageUrl\t":"u","\n size\u0009":2}`, `"message":{"image":{"url":"u","size":2}},"anomalies":["TAB_IN_NAME"]`},
		{`{"imag\u0065Url":"u"}`, `"message":{"image":{"url":"u"}}`},
		{`{"artwork":{"url":"u"},"artwork.width":"3","artwork.height":4}`, `"message":{"image":{"artwork":{"url":"u","width":3,"height":4}}},"anomalies":["DOTTED_NAME","STRING_FOR_NUMBER"]`},
		{`{"artwork.width":3,"artwork":{}}`, `"message":{"image":{"artwork":{"width":3}}},"anomalies":["DOTTED_NAME"]`},
		{`{"artwork.x":1}`, `"message":{"image":{}},"anomalies":["DOTTED_NAME","UNKNOWN_FIELD"],"unmapped":{"data.payload.artwork.x":1}`},
		{`{"size":1,"size":2}`, `"message":{"image":{"size":2}},"anomalies":["DUPLICATE_NAME"]`},
		{`{"size":1,"siz\u0065":""}`, `"message":{"image":{}},"anomalies":["DUPLICATE_NAME"]`},
		{`{"size":1,"size\t":2}`, `"message":{"image":{"size":2}},"anomalies":["DUPLICATE_NAME","TAB_IN_NAME"]`},
		{`{"size\t":1,"size":2}`, `"message":{"image":{"size":2}},"anomalies":["DUPLICATE_NAME","TAB_IN_NAME"]`},
		{`{"x":1,"x":2}`, `"message":{"image":{}},"anomalies":["DUPLICATE_NAME","UNKNOWN_FIELD"],"unmapped":{"data.payload.x":2}`},

		// What no mapping knows.
		{`{"x":{"a":[1,{"b":null}],"":"e"}}`, `"message":{"image":{}},"anomalies":["UNKNOWN_FIELD"],"unmapped":{"data.payload.x":{"a":[1,{"b":null}],"":"e"}}`},
		{`{"x":null,"y":""}`, `"message":{"image":{}}`},
		{
			`,"snapshotDay":"d","isHello":true,"corporation":1,"extraInfo":{},"errCode":0,"isAutoLoad":false,"uniqueId":"u","datetime":"t","chatExternalUserId":"c","contactExternalUserId":"e"`,
			`"message":{"image":{}},"unmapped":{"data.snapshotDay":"d","data.isHello":true,"data.corporation":1,"data.extraInfo":{},"data.errCode":0,"data.isAutoLoad":false,"data.uniqueId":"u","data.datetime":"t","data.chatExternalUserId":"c","data.contactExternalUserId":"e"}`,
		},
		{`[]`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload":[]}`},
		{`"{}"`, `"message":{"image":{}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload":"{}"}`},
	}
	for _, tt := range tests {
		body := `{"data":{"messageId":"m","type":6`
		if strings.HasPrefix(tt.in, ",") {
			body += tt.in + `}}`
		} else {
			body += `,"payload":` + tt.in + `}}`
		}
		want := strings.Replace(tt.want, `"message":{`, `"message":{"messageId":"m","type":6,`, 1)
		wantEvent(t, body, one(t, body), `{"dialect":"DIALECT_GROUP",`+want+`}`)
	}
}

// TestPayloads is each kind of payload with each field that vendor or receivers
// name, and with the forms that they can take.
func TestPayloads(t *testing.T) {
	tests := []struct{ typ, payload, want string }{
		{`0`, `{"content":"<x/>"}`, `"unknown":{"content":"<x/>"}`},
		{`1`, `{"name":"n","fileUrl":"u","size\t":3}`, `"file":{"name":"n","url":"u","size":3}},"anomalies":["TAB_IN_NAME"`},
		{`2`, `{"url":"u","duration":"2.268","wxVoiceUrl":"w","text":"t","md5":"d"}`, `"voice":{"url":"u","durationSeconds":2.268,"rawUrl":"w","transcript":"t","md5":"d"}},"anomalies":["STRING_FOR_NUMBER"`},
		{
			`3`, `{"avatar":"a","coworker":true,"friend":false,"gender":1,"wxid":"x","name":"n","type":3,"weixin":"w","alias":"l","nickname":"k","content":"c"}`,
			`"contactCard":{"avatar":"a","coworker":true,"friend":false,"gender":1,"wxid":"x","name":"n","type":3,"weixin":"w","alias":"l","nickname":"k","content":"c"}`,
		},
		{`4`, `{"content":"h"}`, `"chatHistory":{"content":"h"}`},
		{`5`, `{"imageUrl":"u"}`, `"emoticon":{"url":"u"}`},
		{`7`, `{"text":"@a b","pureText":"","mention":["w","","@all"],"wecomMention":["l"]}`, `"text":{"text":"@a b","mentions":["w","@all"],"wecomMentions":["l"]}`},
		{`7`, `{"mention":"w"}`, `"text":{"mentions":["w"]}},"anomalies":["ITEM_FOR_LIST"`},
		{`7`, `{"mention":[1,{}]}`, `"text":{"mentions":["1"]}},"anomalies":["NUMBER_FOR_STRING","WRONG_TYPE"],"unmapped":{"data.payload.mention[1]":{}}` + "#"},
		{`7`, `{"quoteMessage":{}}`, `"text":{}`},
		{
			`7`, `{"quoteMessage":{"messageId":"m","wxid":"w","nickame":"n","type":7,"timestamp":1777275510346,"content":{"text":"q","pureText":"q"}}}`,
			`"text":{"quote":{"messageId":"m","wxid":"w","nickname":"n","type":7,"sendTime":"2026-04-27T07:38:30.346Z","text":"q","content":{"text":"q","pureText":"q"}}}`,
		},
		{`7`, `{"quoteMessage":{"type":"0","content":{}}}`, `"text":{"quote":{"type":0}}},"anomalies":["STRING_FOR_NUMBER"`},
		{`7`, `{"quoteMessage":{"type":2,"content":{"voiceUrl":"v","duration":1}}}`, `"text":{"quote":{"type":2,"url":"v","content":{"voiceUrl":"v","duration":1}}}`},
		{`7`, `{"quoteMessage":{"content":["a"]}}`, `"text":{"quote":{"content":["a"]}}`},
		{`8`, `{"name":"n","address":"a","latitude":"31.2397","longitude":121.4996,"accuracy":0}`, `"location":{"name":"n","address":"a","latitude":31.2397,"longitude":121.4996,"accuracy":0}},"anomalies":["STRING_FOR_NUMBER"`},
		{`8`, `{"content":"{\"name\":\"n\"}"}`, `"location":{"content":"{\"name\":\"n\"}"}`},
		{
			`9`, `{"appId":"i","title":"t","description":"d","pagePath":"p","username":"u","iconUrl":"c","thumbKey":"k","url":"l","nickname":"n","thumbnailUrl":"b"}`,
			`"miniProgram":{"appId":"i","title":"t","description":"d","pagePath":"p","username":"u","iconUrl":"c","thumbKey":"k","url":"l","nickname":"n","thumbnailUrl":"b"}`,
		},
		{`10`, `{"content":"[c]"}`, `"money":{"content":"[c]"}`},
		{`11`, `{"content":"b1dca371c502a2bf66850630dad8ffa2"}`, `"recall":{"content":"b1dca371c502a2bf66850630dad8ffa2"}`},
		{`12`, `{"title":"t","description":"d","url":"u","thumbnailUrl":"b"}`, `"link":{"title":"t","description":"d","url":"u","thumbnailUrl":"b"}`},
		{`13`, `{"videoUrl":"u","thumbnailUrl":"t","duration":30}`, `"video":{"url":"u","thumbnailUrl":"t","durationSeconds":30}`},
		{
			`14`, `{"nickname":"n","avatarUrl":"a","coverUrl":"c","thumbUrl":"t","url":"u","description":"d","feedType":9,"objectId":14000000000000000001,"objectNonceId":"o","extras":"e"}`,
			`"channel":{"nickname":"n","avatarUrl":"a","coverUrl":"c","thumbnailUrl":"t","url":"u","description":"d","feedType":9,"objectId":"14000000000000000001","objectNonceId":"o","extras":"e"}},"anomalies":["NUMBER_FOR_STRING"`,
		},
		{`15`, `{"content":"","n":1}`, `"call":{"fields":{"content":"","n":1}}`},
		{`16`, `{}`, `"solitaire":{"fields":{}}`},
		{`17`, `{"a":null}`, `"other":{"fields":{"a":null}}},"anomalies":["UNKNOWN_ENUM"`},
		{`17`, `[1]`, `"other":{}},"anomalies":["UNKNOWN_ENUM","WRONG_TYPE"],"unmapped":{"data.payload":[1]}` + "#"},
		{`9999`, `{"roomTopic":"r","avatarUrl\t":"a","invitaterName":"n","inviteModelId":"i","inviteStatus":0}`, `"roomInvitation":{"roomTopic":"r","avatarUrl":"a","inviterName":"n","inviteId":"i","status":0}},"anomalies":["TAB_IN_NAME"`},

		{`10000`, `{"type":5,"subPayload":{"messageId":"r"}}`, `"system":{"type":5,"recallFailed":{"messageId":"r"}}`},
		{`10000`, `{"RecallFailedPayload.messageId":"r","type":"5"}`, `"system":{"type":5,"recallFailed":{"messageId":"r"}}},"anomalies":["DOTTED_NAME","STRING_FOR_NUMBER"`},
		{`10000`, `{"subPayload":{"memberNames":["a","b"],"inviterName":"i"},"type":6}`, `"system":{"type":6,"roomMembersJoined":{"memberNames":["a","b"],"inviterName":"i"}}`},
		{`10000`, `{"type":9,"subPayload":{"x":1}}`, `"system":{"type":9}},"anomalies":["UNKNOWN_ENUM","UNKNOWN_FIELD"],"unmapped":{"data.payload.subPayload":{"x":1}}` + "#"},
		{`10000`, `{"subPayload":{}}`, `"system":{}`},

		{
			`10001`, `{"subPayload":{"inviteeList":["张三",{"displayName":"李四"},{},""],"inviter":{},"timestamp":"1564673668783"},"wechatSystemPayloadType":0}`,
			`"wecomSystem":{"type":0,"membersJoined":{"invitees":[{"displayName":"张三"},{"displayName":"李四"}],"time":"2019-08-01T15:34:28.783Z"}}`,
		},
		{
			`10001`, `{"wechatSystemPayloadType":0,"subPayload":{},"ContactInRoomSystemMessage.wxid":"w","ContactInRoomSysemMessage.isSelf\t":"true","ContactInRoomSystemMessage.displayName":"d","RoomJoinPayload.inviter":{},"RoomJoinPayload.inviteeList":["i"],"RoomJoinPayload.timestamp":1564673668783}`,
			`"wecomSystem":{"type":0,"membersJoined":{"inviter":{"wxid":"w","displayName":"d","isSelf":true},"invitees":[{"displayName":"i"}],"time":"2019-08-01T15:34:28.783Z"}}},"anomalies":["DOTTED_NAME","STRING_FOR_BOOL","TAB_IN_NAME"`,
		},
		{
			`10001`, `{"wechatSystemPayloadType":1,"ContactInRoomSystemMessage.wxid":"w","RoomLeavePayload.leaverList":["a"]}`,
			`"wecomSystem":{"type":1,"membersLeft":{"leavers":[{"displayName":"a"}]}}},"anomalies":["DOTTED_NAME","UNKNOWN_FIELD"],"unmapped":{"data.payload.ContactInRoomSystemMessage.wxid":"w"}` + "#",
		},
		{
			`10001`, `{"wechatSystemPayloadType":1,"subPayload":{"leaverList":[{"wxid":"w","isSelf":false,"x":1}],"remover":"r","timestamp":0}}`,
			`"wecomSystem":{"type":1,"membersLeft":{"leavers":[{"wxid":"w","isSelf":false}],"remover":{"displayName":"r"},"time":"1970-01-01T00:00:00Z"}}},"anomalies":["UNKNOWN_FIELD"],"unmapped":{"data.payload.subPayload.leaverList[0].x":1}` + "#",
		},
		{
			`10001`, `{"wechatSystemPayloadType":1,"RoomLeavePayload.leaverList":["a"],"RoomJoinPayload.timestamp":5}`,
			`"wecomSystem":{"type":1,"membersLeft":{"leavers":[{"displayName":"a"}]}}},"anomalies":["DOTTED_NAME","UNKNOWN_FIELD"],"unmapped":{"data.payload.RoomJoinPayload.timestamp":5}` + "#",
		},
		{
			`10001`, `{"wechatSystemPayloadType":2,"subPayload":{"oldTopic":"","newTopic":"n","changer":{"wxid":"w"},"timestamp":1}}`,
			`"wecomSystem":{"type":2,"topicChanged":{"newTopic":"n","changer":{"wxid":"w"},"time":"1970-01-01T00:00:00.001Z"}}`,
		},
		{`10001`, `{"wechatSystemPayloadType":3,"subPayload":{"a":1}}`, `"wecomSystem":{"type":3}},"anomalies":["UNKNOWN_ENUM","UNKNOWN_FIELD"],"unmapped":{"data.payload.subPayload":{"a":1}}` + "#"},
		{`10001`, `{"subPayload":{"inviteeList":["a"]}}`, `"wecomSystem":{}},"anomalies":["UNKNOWN_FIELD"],"unmapped":{"data.payload.subPayload":{"inviteeList":["a"]}}` + "#"},
		{`10001`, `{"wechatSystemPayloadType":0,"subPayload":{"inviter":7}}`, `"wecomSystem":{"type":0,"membersJoined":{}}},"anomalies":["WRONG_TYPE"],"unmapped":{"data.payload.subPayload.inviter":7}` + "#"},
	}
	for _, tt := range tests {
		body := `{"data":{"messageId":"m","type":` + tt.typ + `,"payload":` + tt.payload + `}}`
		want := `{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":` + tt.typ + `,` + tt.want
		switch {
		case strings.HasSuffix(want, "#"):
			want = strings.TrimSuffix(want, "#") + `}`
		case strings.Contains(tt.want, `"anomalies"`):
			want += `]}`
		default:
			want += `}}`
		}
		wantEvent(t, body, one(t, body), want)
	}
}

// TestEnvelope is what the envelope's fields mean together.
func TestEnvelope(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{
			"names of both levels", `{"messageId":"m","type":7,"roomId":"r","imContactId":"c","botWxid":"b","roomName":"n","orgId":"o"}`,
			`{"dialect":"DIALECT_ENTERPRISE","message":{"messageId":"m","type":7,"bot":{"wxid":"b"},"sender":{"wxid":"c"},"room":{"wxid":"r","topic":"n"},"orgId":"o","isSelf":false,"text":{}}}`,
		},
		{
			"an alias that is unset", `{"data":{"messageId":"m","type":7,"contactId":"c","imContactId":""}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"sender":{"wxid":"c"},"text":{}}}`,
		},
		{
			"self by wxid", `{"data":{"messageId":"m","type":7,"contactId":"b","botWxid":"b","isSelf":null}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"bot":{"wxid":"b"},"sender":{"wxid":"b"},"isSelf":true,"text":{}}}`,
		},
		{
			"the vendor knows better", `{"data":{"messageId":"m","type":7,"contactId":"b","botWxid":"b","isSelf":false}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"bot":{"wxid":"b"},"sender":{"wxid":"b"},"isSelf":false,"text":{}}}`,
		},
		{
			"room by its official id", `{"data":{"messageId":"m","type":7,"roomId":"","roomWecomChatId":"wr"}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"room":{"wecomChatId":"wr"},"text":{}}}`,
		},
		{
			"a topic makes no room", `{"data":{"messageId":"m","type":7,"roomId":"","roomTopic":"t","roomWecomChatId":null}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"text":{}},"anomalies":["TOPIC_WITHOUT_ROOM"],"unmapped":{"data.roomTopic":"t"}}`,
		},
		{
			"beside the envelope", `{"code":1,"clientId":"c","orgId":"o","data":{"messageId":"m","type":7,"code":2}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"text":{}},"anomalies":["UNKNOWN_FIELD"],"unmapped":{"code":1,"clientId":"c","orgId":"o","data.code":2}}`,
		},
		{
			"both types", `{"messageId":"m","type":"word","messageType":"7"}`,
			`{"dialect":"DIALECT_ENTERPRISE","message":{"messageId":"m","type":7,"text":{}},"anomalies":["STRING_FOR_NUMBER","WRONG_TYPE"],"unmapped":{"type":"word"}}`,
		},
		{
			"a type that is none", `{"data":{"messageId":"m","type":3000000000,"payload":{"text":"t"}}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m"},"anomalies":["NUMBER_OUT_OF_RANGE","PAYLOAD_WITHOUT_TYPE"],"unmapped":{"data.type":3000000000,"data.payload":{"text":"t"}}}`,
		},
		{
			"no type", `{"data":{"timestamp":"0","mentionSelf":true,"payload":{"text":"t"}}}`,
			`{"dialect":"DIALECT_GROUP","message":{"sendTime":"1970-01-01T00:00:00Z","mentionSelf":true},"anomalies":["PAYLOAD_WITHOUT_TYPE"],"unmapped":{"data.payload":{"text":"t"}}}`,
		},
		{
			"no type, empty payload", `{"data":{"timestamp":"0","mentionSelf":true,"payload":{}}}`,
			`{"dialect":"DIALECT_GROUP","message":{"sendTime":"1970-01-01T00:00:00Z","mentionSelf":true}}`,
		},
		{
			"a byte order mark", "\xef\xbb\xbf" + `{"data":{"messageId":"m","type":7,"token":"t","payload":{"text":"x"}}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"text":{"text":"x"}},"anomalies":["BOM"]}`,
		},
		{
			"numbers for tokens", `{"data":{"token":12345678,"messageId":"m","token":1,"type":7,"payload":{"text":"x"},"y":"z"}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"text":{"text":"x"}},"anomalies":["DUPLICATE_NAME","UNKNOWN_FIELD"],"unmapped":{"data.y":"z"}}`,
		},
		{
			"a name with a tab around data", `{"data\t":{"messageId":"m","type":7}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","type":7,"text":{}},"anomalies":["TAB_IN_NAME"]}`,
		},
		{
			"data twice", `{"data":{"messageId":"m","type":7},"data":{"messageId":"n","type":1}}`,
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"n","type":1,"file":{}},"anomalies":["DUPLICATE_NAME"]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantEvent(t, tt.body, one(t, tt.body), tt.want) })
	}
}

// TestTooLarge reads no byte of the body: none of its pages is ever in memory.
func TestTooLarge(t *testing.T) {
	s := newScanner()
	defer s.free()
	if got := s.read(make([]byte, maxBody+1)); got != TooLarge {
		t.Errorf("malformed = %q, want %q", got, TooLarge)
	}
}

// TestMalformed is what is not JSON, and why.
func TestMalformed(t *testing.T) {
	tests := map[string][]string{
		Empty:        {"", " ", "\n\t\r ", "\xef\xbb\xbf", "\xef\xbb\xbf "},
		TrailingData: {"{}{}", "{} x", "1 2", "[],", "null\x00", `"a" "b"`, "{}]", "1,", "01", "0x1", "1//"},
		TooDeep: {
			strings.Repeat("[", 65), strings.Repeat("[", 65) + strings.Repeat("]", 65), strings.Repeat(`{"a":`, 65),
			strings.Repeat("[", 1<<20), "[\"\xff\"," + strings.Repeat("[", 65),
		},
		Syntax: {
			"{", "}", "[", "]", ",", ":", "{]", "[}", "[1,]", "[,1]", "[1 2]", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `{'a':1}`, `{1:2}`,
			`{"a":1 "b":2}`, `{"a"::1}`, `"`, `"a`, "\"\n\"", "\"\x00\"", `"\x"`, `"\u12"`, `"\`, "+1", "-", "1.", ".5", "1e", "NaN", "Infinity",
			"nul", "tru", "True", "undefined", "/**/1", "\xff", "\x00", "token=abc", "<xml/>", "{\"a\":\xff}", "\xef\xbb{}", "\xff\xfe{\x00}\x00",
			strings.Repeat("[", 64), strings.Repeat("[", 64) + "]", "[\"\xff\",]",
		},
	}
	for want, bodies := range tests {
		for _, body := range bodies {
			cb := Decode([]byte(body))
			if cb.GetMalformed() != want || len(cb.GetEvents()) != 0 {
				t.Errorf("Decode(%.80q) = %q and %d events, want %q and none", body, cb.GetMalformed(), len(cb.GetEvents()), want)
			}
			if len(cb.GetTokens()) == 0 && !bytes.Equal(cb.GetRaw(), []byte(body)) {
				t.Errorf("Decode(%.80q).raw = %.80q, want the body", body, cb.GetRaw())
			}
		}
	}
	for _, body := range []string{strings.Repeat("[", 64) + strings.Repeat("]", 64), `"\u0000"`, " 1 ", "\"\xff\"", "-0.5E+7", "\xef\xbb\xbfnull"} {
		if cb := Decode([]byte(body)); cb.GetMalformed() != "" || len(cb.GetEvents()) != 1 {
			t.Errorf("Decode(%q) = %q and %d events, want one event", body, cb.GetMalformed(), len(cb.GetEvents()))
		}
	}
}
