package callback

import "strings"

// A kind is what a callback says happened.
type kind uint8

const (
	kindOther kind = iota
	kindMessage
	kindSendResult
	kindAddFriendResult
	kindRoomMembersChanged
	kindRoomTopicChanged
	kindFollowUpTimeout
	kindCustomerAdded
	kindFriendRequest
	kindFriendAdded
	kindStaffChanged
)

// Traits are what classification looks at in an object: which of the names
// that tell callbacks apart it has a value for, and what its type is.
type traits uint32

const (
	messageID  traits = 1 << iota // messageId
	payload                       // payload
	number                        // type or messageType, a number
	word                          // type, a word
	addWord                       // type, a word about a contact that was added
	addContact                    // type, WeCom's word for a customer who was added
	times                         // timestamp
	mention                       // mentionSelf
	enterprise                    // a name that only the enterprise level uses for messages
	sent                          // sentStatus or sendCode
	request                       // requestId
	reference                     // externalRequestId
	errorCode                     // errorCode
	task                          // what only add-friend tasks have
	target                        // phoneNum or roomWxid
	failed                        // code, a number but zero
	created                       // createTimestamp
	person                        // wxid or externalUserId
	contact                       // imContactId
	hello                         // hello or imContactName
	bot                           // botInfo
	customer                      // imInfo, followUser, unionId or remarkMobiles
	room                          // imRoomId or roomId
	topic                         // topic
	moved                         // the members who joined or left, even if none
	crowd                         // members
	due                           // the times of a follow-up
	user                          // userId
	round                         // round
	staff                         // email, isLogin or name
)

// rules say which traits make which kind. The first that fits decides.
var rules = []struct {
	kind kind
	all  traits // it has all of them,
	any  traits // one of them, unless none is named,
	none traits // and none of them
}{
	{kind: kindMessage, all: messageID | payload | number},
	{kind: kindMessage, all: messageID | number, none: sent | request},
	{kind: kindMessage, all: payload | number, none: task | target | created},
	{kind: kindMessage, all: times | mention},
	{kind: kindSendResult, any: sent},
	{kind: kindAddFriendResult, any: task},
	{kind: kindSendResult, any: request},
	{kind: kindSendResult, all: reference | errorCode},
	{kind: kindAddFriendResult, all: target | created, any: number | errorCode},
	{kind: kindAddFriendResult, all: target | created | failed, none: person | staff},
	{kind: kindRoomMembersChanged, any: moved},
	{kind: kindRoomMembersChanged, all: room | crowd},
	{kind: kindRoomTopicChanged, all: room | topic},
	{kind: kindFollowUpTimeout, any: due},
	{kind: kindFollowUpTimeout, all: round | user},
	{kind: kindCustomerAdded, all: contact, any: created | bot | customer},
	{kind: kindCustomerAdded, all: addWord, any: person | customer},
	{kind: kindCustomerAdded, all: addContact},
	{kind: kindFriendRequest, all: contact | hello},
	{kind: kindFriendAdded, all: created, any: person | target},
	{kind: kindStaffChanged, all: word | user, any: staff},
}

// A class is what an object was found to be.
type class struct {
	kind     kind
	envelope int    // the object that says so
	has      traits // of that
}

// classify finds out what the object at root says, and where: in itself, or in
// its member data or message. It looks at the content only.
func (d *decoder) classify(root int) class {
	if d.kind(root) != '{' {
		return class{kindOther, root, 0}
	}
	top, data, message := d.traits(root, ^traits(0))
	candidates := [3]struct {
		at  int
		has traits
	}{{at: data}, {at: message}, {at: root, has: top}}
	for i := range candidates[:2] {
		if c := &candidates[i]; c.at >= 0 {
			c.has, _, _ = d.traits(c.at, messageID|payload|number) // then it is a message whatever else it has
			c.has |= top & (word | addWord | addContact | failed)  // these stand beside the data
		}
	}
	for _, r := range rules {
		for _, c := range candidates {
			if c.at >= 0 && c.has&r.all == r.all && (r.any == 0 || c.has&r.any != 0) && c.has&r.none == 0 {
				return class{r.kind, c.at, c.has}
			}
		}
	}
	return class{kindOther, root, top}
}

// traits returns the traits of the object v, and its members data and message
// where they are objects; -1 where not. It looks no further once v has all that
// are enough.
func (d *decoder) traits(v int, enough traits) (has traits, data, message int) {
	data, message = -1, -1
	for name, m := range d.members(v) {
		if has&enough == enough {
			break
		}
		switch name {
		case "leftMembers", "leftMember", "joinedMembers", "joinedMember", "joinMembers", "joinMember":
			has |= moved
			continue
		case "members":
			has |= crowd
			continue
		case "hello", "imContactName":
			has |= hello
			continue
		}
		if d.unset(m) {
			continue
		}
		switch name {
		case "messageId":
			has |= messageID
		case "payload":
			has |= payload
		case "type":
			has |= d.typeTraits(m)
		case "messageType":
			has |= d.typeTraits(m) & number
			has |= enterprise
		case "timestamp":
			has |= times
		case "mentionSelf":
			has |= mention
		case "imBotId", "botUserId":
			has |= enterprise
		case "imContactId":
			has |= enterprise | contact
		case "imRoomId":
			has |= enterprise | room
		case "roomId":
			has |= room
		case "sentStatus", "sendCode":
			has |= sent
		case "requestId":
			has |= request
		case "externalRequestId":
			has |= reference
		case "errorCode":
			has |= errorCode
		case "fromwxid", "fromwxName", "fromwxAvatar", "contactSenderWxid", "sendTimestamp":
			has |= task
		case "phoneNum", "roomWxid":
			has |= target
		case "createTimestamp":
			has |= created
		case "wxid", "externalUserId":
			has |= person
		case "botInfo":
			has |= bot
		case "imInfo", "followUser", "unionId", "remarkMobiles":
			has |= customer
		case "topic":
			has |= topic
		case "assignedTimestamp", "expectFollowUpTimestamp", "markFollowUpTimestamp":
			has |= due
		case "userId":
			has |= user
		case "round":
			has |= round
		case "code":
			if code, ok := parseInt(d.digits(m), 64); ok && code != 0 {
				has |= failed
			}
		case "email", "isLogin", "name":
			has |= staff
		case "data":
			if d.kind(m) == '{' {
				data = m
			}
		case "message":
			if d.kind(m) == '{' {
				message = m
			}
		}
	}
	return has, data, message
}

func (d *decoder) typeTraits(v int) traits {
	switch d.kind(v) {
	case '0':
		return number
	case '"':
		s := strings.TrimSpace(d.short(v))
		switch {
		case numeric(s):
			return number
		case strings.HasPrefix(s, "add_") && strings.HasSuffix(s, "_external_contact"):
			return word | addWord | addContact
		case strings.HasPrefix(s, "add_"):
			return word | addWord
		}
		return word
	}
	return 0
}
