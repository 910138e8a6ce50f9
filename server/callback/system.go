package callback

import (
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// system makes the payload of a system message. Its details stand in
// subPayload or, as the vendor's page has it, beside it under dotted names.
func (d *decoder) system(v int) *sluicev1.SystemPayload {
	p := &sluicev1.SystemPayload{}
	if !d.object(v) {
		return p
	}
	if m := d.find(v, "type"); m >= 0 {
		enum(d, &p.Type, m, sluicev1.SystemPayload_Type_name)
	}
	switch p.GetType() {
	case sluicev1.SystemPayload_TYPE_RECALL_MESSAGE_FAILED:
		detail := detailOf(d, v, "type", recallFailedField, "RecallFailedPayload")
		p.Detail = &sluicev1.SystemPayload_RecallFailed_{RecallFailed: detail}
	case sluicev1.SystemPayload_TYPE_ROOM_JOIN_MEMBER:
		detail := detailOf(d, v, "type", roomMembersJoinedField, "RoomJoinMemberPayload")
		p.Detail = &sluicev1.SystemPayload_RoomMembersJoined_{RoomMembersJoined: detail}
	default:
		d.unknownDetail(v, "type")
	}
	return p
}

// wecomSystem makes the payload of a notice by WeCom; its details are where
// those of a system message are.
func (d *decoder) wecomSystem(v int) *sluicev1.WecomSystemPayload {
	p := &sluicev1.WecomSystemPayload{}
	if !d.object(v) {
		return p
	}
	const typ = "wechatSystemPayloadType"
	if m := d.find(v, typ); m >= 0 {
		optionalEnum(d, &p.Type, m, sluicev1.WecomSystemPayload_Type_name)
	}
	switch {
	case p.Type == nil:
		d.unknownDetail(v, typ)
	case p.GetType() == sluicev1.WecomSystemPayload_TYPE_JOIN:
		detail := detailOf(d, v, typ, membersJoinedField, "RoomJoinPayload")
		p.Detail = &sluicev1.WecomSystemPayload_MembersJoined_{MembersJoined: detail}
	case p.GetType() == sluicev1.WecomSystemPayload_TYPE_LEAVE:
		detail := detailOf(d, v, typ, membersLeftField, "RoomLeavePayload")
		p.Detail = &sluicev1.WecomSystemPayload_MembersLeft_{MembersLeft: detail}
	case p.GetType() == sluicev1.WecomSystemPayload_TYPE_TOPIC:
		detail := detailOf(d, v, typ, topicChangedField, "RoomTopicPayload")
		p.Detail = &sluicev1.WecomSystemPayload_TopicChanged_{TopicChanged: detail}
	default:
		d.unknownDetail(v, typ)
	}
	return p
}

// detailOf makes what a system message says from its payload v, but for the
// member named typ: from the members of subPayload, and from those beside it,
// with "nest." before their names or without.
func detailOf[T any](d *decoder, v int, typ string, set func(d *decoder, p *T, name string, v int), nest string) *T {
	p := new(T)
	for name, m := range d.members(v) {
		switch name {
		case typ:
		case "subPayload":
			if d.object(m) {
				fillIn(d, p, m, set)
			}
		default:
			if field := d.nest(name, nest, "subPayload"); field != "" {
				name = field
			}
			set(d, p, name, m)
		}
	}
	return p
}

// unknownDetail keeps the members of a payload of a type that is not known.
func (d *decoder) unknownDetail(v int, typ string) {
	for name, m := range d.members(v) {
		if name != typ && !d.empty(m) {
			d.unknown(m)
		}
	}
}

func recallFailedField(d *decoder, p *sluicev1.SystemPayload_RecallFailed, name string, v int) {
	switch name {
	case "messageId":
		d.id(&p.MessageId, v)
	default:
		d.unknown(v)
	}
}

func roomMembersJoinedField(d *decoder, p *sluicev1.SystemPayload_RoomMembersJoined, name string, v int) {
	switch name {
	case "memberNames":
		d.texts(&p.MemberNames, v)
	case "inviterName":
		d.text(&p.InviterName, v)
	default:
		d.unknown(v)
	}
}

func membersJoinedField(d *decoder, p *sluicev1.WecomSystemPayload_MembersJoined, name string, v int) {
	switch name {
	case "inviter":
		d.person(&p.Inviter, v)
	case "inviteeList":
		d.persons(&p.Invitees, v)
	case "timestamp":
		d.time(&p.Time, v)
	default:
		d.actor(&p.Inviter, name, v)
	}
}

func membersLeftField(d *decoder, p *sluicev1.WecomSystemPayload_MembersLeft, name string, v int) {
	switch name {
	case "remover":
		d.person(&p.Remover, v)
	case "leaverList":
		d.persons(&p.Leavers, v)
	case "timestamp":
		d.time(&p.Time, v)
	default:
		d.unknown(v)
	}
}

func topicChangedField(d *decoder, p *sluicev1.WecomSystemPayload_TopicChanged, name string, v int) {
	switch name {
	case "oldTopic":
		d.text(&p.OldTopic, v)
	case "newTopic":
		d.text(&p.NewTopic, v)
	case "changer":
		d.person(&p.Changer, v)
	case "timestamp":
		d.time(&p.Time, v)
	default:
		d.actor(&p.Changer, name, v)
	}
}

// actor takes in a field of the person who acted, which the vendor's page
// writes flat, in two spellings; other fields are unknown. It is not for those
// who left: nobody need have removed them.
func (d *decoder) actor(dst **sluicev1.Person, name string, v int) {
	field := d.nest(name, "ContactInRoomSystemMessage", "ContactInRoomSysemMessage")
	switch {
	case field == "":
		d.unknown(v)
	case !d.unset(v):
		if *dst == nil {
			*dst = &sluicev1.Person{}
		}
		personField(d, *dst, field, v)
	}
}

// person sets dst to a person: an object, or a name only.
func (d *decoder) person(dst **sluicev1.Person, v int) {
	named := d.kind(v) == '"' && !d.unset(v)
	if !named && !d.object(v) {
		return
	}
	if *dst == nil {
		*dst = &sluicev1.Person{}
	}
	if named {
		d.text(&(*dst).DisplayName, v)
	} else {
		fillIn(d, *dst, v, personField)
	}
}

func (d *decoder) persons(dst *[]*sluicev1.Person, v int) {
	var list []*sluicev1.Person
	for i := range d.items(v) {
		var p *sluicev1.Person
		if d.person(&p, i); p != nil {
			list = append(list, p)
		}
	}
	setList(d, dst, v, list)
}

func personField(d *decoder, p *sluicev1.Person, name string, v int) {
	switch name {
	case "wxid":
		d.id(&p.Wxid, v)
	case "displayName":
		d.text(&p.DisplayName, v)
	case "isSelf":
		d.boolean(&p.IsSelf, v)
	default:
		d.unknown(v)
	}
}
