package callback

import (
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func (d *decoder) roomMembersChanged(envelope int) *sluicev1.RoomMembersChanged {
	p := &sluicev1.RoomMembersChanged{}
	bot, room := &sluicev1.Bot{}, &sluicev1.Room{}
	for name, v := range d.both(envelope) {
		switch name {
		case "leftMembers", "leftMember":
			d.moved(p, sluicev1.RoomMembersChanged_CHANGE_LEFT, v)
		case "joinedMembers", "joinedMember", "joinMembers", "joinMember":
			d.moved(p, sluicev1.RoomMembersChanged_CHANGE_JOINED, v)
		case "members":
			fillList(d, &p.Members, v, roomMemberField)
		case "chatId":
			d.id(&p.ChatId, v)
		case "botInfo":
			d.botInfo(bot, &p.BotName, nil, v)
		case "avatarUrl":
			d.text(&p.Avatar, v)
		case "ownerImContactId":
			d.id(&p.OwnerWxid, v)
		case "groupId":
			d.id(&p.GroupId, v)
		case "timestamp":
			d.time(&p.EventTime, v)
		default:
			d.roomField(room, bot, name, v)
		}
	}
	if room.Wxid != "" || room.Topic != "" || room.WecomChatId != "" {
		p.Room = room
	}
	p.Bot = known(bot)
	return p
}

func (d *decoder) roomTopicChanged(envelope int) *sluicev1.RoomTopicChanged {
	p := &sluicev1.RoomTopicChanged{Room: &sluicev1.Room{}}
	bot := &sluicev1.Bot{}
	for name, v := range d.both(envelope) {
		switch name {
		case "oldTopic":
			d.text(&p.OldTopic, v)
		case "chatId":
			d.id(&p.ChatId, v)
		case "botInfo":
			d.botInfo(bot, &p.BotName, nil, v)
		case "avatarUrl":
			d.text(&p.Avatar, v)
		case "ownerImContactId":
			d.id(&p.OwnerWxid, v)
		case "groupId":
			d.id(&p.GroupId, v)
		case "timestamp":
			d.time(&p.EventTime, v)
		default:
			d.roomField(p.Room, bot, name, v)
		}
	}
	p.Bot = known(bot)
	return p
}

func (d *decoder) roomField(room *sluicev1.Room, bot *sluicev1.Bot, name string, v int) {
	switch name {
	case "imRoomId":
		d.id(&room.Wxid, v)
	case "roomId":
		d.id(&room.Wxid, d.documented(v, "imRoomId"))
		d.id(&room.Wxid, v)
	case "topic":
		d.text(&room.Topic, v)
	case "roomTopic":
		d.text(&room.Topic, d.documented(v, "topic"))
		d.text(&room.Topic, v)
	case "roomWecomChatId":
		d.id(&room.WecomChatId, v)
	default:
		d.botField(bot, name, v)
	}
}

// moved takes in the members who joined, or who left. An event has one of the
// two; a list that is empty says which only where the other is not there.
func (d *decoder) moved(p *sluicev1.RoomMembersChanged, change sluicev1.RoomMembersChanged_Change, v int) {
	switch {
	case p.GetChange() == change, p.GetChange() == 0:
	case d.empty(v):
		return
	case len(p.GetMembers()) > 0:
		d.reject(v, DuplicateName)
		return
	}
	p.Change = change
	fillList(d, &p.Members, v, roomMemberField)
}

func roomMemberField(d *decoder, p *sluicev1.RoomMember, name string, v int) {
	switch name {
	case "imContactId":
		d.id(&p.Wxid, v)
	case "nickName":
		d.text(&p.Name, v)
	case "avatarUrl":
		d.text(&p.Avatar, v)
	case "roomAlias":
		d.text(&p.RoomAlias, v)
	case "isFriend":
		d.boolean(&p.Friend, v)
	case "contactType":
		enum(d, &p.Type, v, sluicev1.ContactType_name)
	case "coworker":
		d.boolean(&p.Coworker, v)
	case "isSelf":
		d.boolean(&p.IsSelf, v)
	default:
		d.unknown(v)
	}
}
