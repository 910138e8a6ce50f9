// Package record is the stored form of an event: how a sluice.v1.Event becomes
// the bytes and the subject of a log record, and how it comes back. It also
// makes and reads cursors. It does no I/O.
package record

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// body is the oneof of Event that says what happened.
var body = (*sluicev1.Event)(nil).ProtoReflect().Descriptor().Oneofs().ByName("body")

// revisionOf is the number of Event.revision_of.
const revisionOf protowire.Number = 8

// Kinds returns the names of the fields of Event.body, in order.
func Kinds() []string {
	fields := body.Fields()
	kinds := make([]string, fields.Len())
	for i := range kinds {
		kinds[i] = string(fields.Get(i).Name())
	}
	return kinds
}

// Kind returns the name of the field of Event.body that is set, for example
// "message"; "" when none is.
func Kind(e *sluicev1.Event) string {
	switch e.GetBody().(type) { // asking the descriptor costs ten times as much
	case *sluicev1.Event_Message:
		return "message"
	case *sluicev1.Event_SendResult:
		return "send_result"
	case *sluicev1.Event_FriendRequest:
		return "friend_request"
	case *sluicev1.Event_FriendAdded:
		return "friend_added"
	case *sluicev1.Event_AddFriendResult:
		return "add_friend_result"
	case *sluicev1.Event_CustomerAdded:
		return "customer_added"
	case *sluicev1.Event_RoomMembersChanged:
		return "room_members_changed"
	case *sluicev1.Event_RoomTopicChanged:
		return "room_topic_changed"
	case *sluicev1.Event_StaffChanged:
		return "staff_changed"
	case *sluicev1.Event_FollowUpTimeout:
		return "follow_up_timeout"
	case *sluicev1.Event_Other:
		return "other"
	}
	return ""
}

// Bot returns the hosted account an event is about; nil when it names none.
func Bot(e *sluicev1.Event) *sluicev1.Bot {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Message:
		return b.Message.GetBot()
	case *sluicev1.Event_SendResult:
		return b.SendResult.GetBot()
	case *sluicev1.Event_FriendRequest:
		return b.FriendRequest.GetBot()
	case *sluicev1.Event_FriendAdded:
		return b.FriendAdded.GetBot()
	case *sluicev1.Event_AddFriendResult:
		return b.AddFriendResult.GetBot()
	case *sluicev1.Event_CustomerAdded:
		return b.CustomerAdded.GetBot()
	case *sluicev1.Event_RoomMembersChanged:
		return b.RoomMembersChanged.GetBot()
	case *sluicev1.Event_RoomTopicChanged:
		return b.RoomTopicChanged.GetBot()
	case *sluicev1.Event_FollowUpTimeout:
		return &sluicev1.Bot{Id: b.FollowUpTimeout.GetBotId()}
	}
	return nil
}

// BotID returns the one name for a hosted account that filters and identities
// use: the vendor's id, else the wxid, else the WeCom user id; "" for none.
func BotID(b *sluicev1.Bot) string {
	switch {
	case b.GetId() != "":
		return b.GetId()
	case b.GetWxid() != "":
		return b.GetWxid()
	}
	return b.GetUserId()
}

// ChatID returns the conversation an event is about; "" when it names none.
func ChatID(e *sluicev1.Event) string {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Message:
		return b.Message.GetChatId()
	case *sluicev1.Event_SendResult:
		return b.SendResult.GetChatId()
	case *sluicev1.Event_RoomMembersChanged:
		return b.RoomMembersChanged.GetChatId()
	case *sluicev1.Event_RoomTopicChanged:
		return b.RoomTopicChanged.GetChatId()
	case *sluicev1.Event_FollowUpTimeout:
		return b.FollowUpTimeout.GetChatId()
	}
	return ""
}

// RoomWxid returns the room an event is about; "" when it names none.
func RoomWxid(e *sluicev1.Event) string {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Message:
		return b.Message.GetRoom().GetWxid()
	case *sluicev1.Event_RoomMembersChanged:
		return b.RoomMembersChanged.GetRoom().GetWxid()
	case *sluicev1.Event_RoomTopicChanged:
		return b.RoomTopicChanged.GetRoom().GetWxid()
	case *sluicev1.Event_AddFriendResult:
		return b.AddFriendResult.GetRoomWxid()
	}
	return ""
}

// Contact returns the wxid of the other party of an event; "" when it names
// none.
func Contact(e *sluicev1.Event) string {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Message:
		return b.Message.GetSender().GetWxid()
	case *sluicev1.Event_FriendRequest:
		return b.FriendRequest.GetContact().GetWxid()
	case *sluicev1.Event_FriendAdded:
		return b.FriendAdded.GetContact().GetWxid()
	case *sluicev1.Event_AddFriendResult:
		return b.AddFriendResult.GetContact().GetWxid()
	case *sluicev1.Event_CustomerAdded:
		return b.CustomerAdded.GetContact().GetWxid()
	case *sluicev1.Event_FollowUpTimeout:
		return b.FollowUpTimeout.GetWxid()
	}
	return ""
}

// Labels are what a record's subject says of its event, so that a reader can
// pass over a record without decoding it.
type Labels struct {
	Kind        string               // as Kind returns it
	MessageType sluicev1.MessageType // of a message; 0 otherwise
	Source      string               // name of the source
	Bot         string               // token for BotID, from Token
	Odd         bool                 // as Odd returned it when the record was made
}

// The tokens that stand for Labels.Odd.
const (
	oddToken   = "odd"
	plainToken = "plain"
)

// Subject returns the subject under which e is stored.
func Subject(e *sluicev1.Event) string {
	oddness := plainToken
	if Odd(e) {
		oddness = oddToken
	}
	return strings.Join([]string{
		Kind(e), strconv.Itoa(int(e.GetMessage().GetType())), Token(e.GetSource()), Token(BotID(Bot(e))), oddness,
	}, ".")
}

// ParseSubject returns what a subject made by Subject says. Source and Bot are
// tokens: compare them with Token of what is looked for. It returns false for
// any other subject.
func ParseSubject(s string) (Labels, bool) {
	kind, rest, ok1 := strings.Cut(s, ".")
	typ, rest, ok2 := strings.Cut(rest, ".")
	source, rest, ok3 := strings.Cut(rest, ".")
	bot, oddness, ok4 := strings.Cut(rest, ".")
	n, err := strconv.ParseInt(typ, 10, 32)
	if !ok1 || !ok2 || !ok3 || !ok4 || err != nil || oddness != oddToken && oddness != plainToken {
		return Labels{}, false
	}
	return Labels{
		Kind: kind, MessageType: sluicev1.MessageType(n), Source: source, Bot: bot, Odd: oddness == oddToken,
	}, true
}

// maxToken is the longest value that Token keeps readable.
const maxToken = 48

// Token returns a subject token for s: s itself where it is short and of
// letters, digits and "_" and "-", "-" when it is empty, and else a hash
// (marked by a leading "~").
func Token(s string) string {
	if s == "" {
		return "-"
	}
	if len(s) <= maxToken && s != "-" && !strings.ContainsFunc(s, notInToken) {
		return s
	}
	return "~" + ID(s)
}

func notInToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
}

// ID returns the idempotency id of a record for an identity: 22 characters,
// 128 bits of its SHA-256.
func ID(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// Encode returns the bytes that are stored for e.
func Encode(e *sluicev1.Event) ([]byte, error) {
	return proto.Marshal(e)
}

// RevisionOf returns revision_of of the event that data, as Encode or Revise
// returned it, stands for. It costs far less than Decode. It returns 0 for
// garbage.
func RevisionOf(data []byte) (first uint64) {
	for len(data) > 0 {
		number, wire, n := protowire.ConsumeTag(data)
		if n < 0 {
			return 0
		}
		data = data[n:]
		if number == revisionOf && wire == protowire.VarintType {
			first, _ = protowire.ConsumeVarint(data)
		}
		if n = protowire.ConsumeFieldValue(number, wire, data); n < 0 {
			return 0
		}
		data = data[n:]
	}
	return first
}

// Revise returns data, as Encode returned it for an event without revision_of,
// with revision_of set to first. It may use data's spare capacity.
func Revise(data []byte, first uint64) []byte {
	data = protowire.AppendTag(data, revisionOf, protowire.VarintType)
	return protowire.AppendVarint(data, first)
}

// Decode returns the event that data, the record at sequence of the log named
// epoch, stands for, with sequence and cursor set. raw says whether to keep the
// vendor's body.
func Decode(data []byte, sequence uint64, epoch string, raw bool) (*sluicev1.Event, error) {
	e := &sluicev1.Event{}
	if err := proto.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("record %d: %w", sequence, err)
	}
	if !raw {
		e.Raw = nil
	}
	e.Sequence = sequence
	e.Cursor = Cursor{Epoch: epoch, Sequence: sequence}.String()
	return e, nil
}

// Payload returns the name of the field of Message.payload that is set, for
// example "text"; "" when none is.
func Payload(m *sluicev1.Message) string {
	r := m.ProtoReflect()
	if f := r.WhichOneof(r.Descriptor().Oneofs().ByName(protoreflect.Name("payload"))); f != nil {
		return string(f.Name())
	}
	return ""
}
