package callback

import (
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// message makes a Message of the object at envelope. The names of all dialects
// are understood in each.
func (d *decoder) message(envelope int) *sluicev1.Message {
	m := &sluicev1.Message{}
	bot, sender := &sluicev1.Bot{}, &sluicev1.Contact{}
	var roomWxid, roomTopic, roomChat string
	payload, topic, typed := -1, -1, false
	for name, v := range d.members(envelope) {
		switch name {
		case "messageId":
			d.id(&m.MessageId, v)
		case "chatId":
			d.id(&m.ChatId, v)
		case "timestamp":
			d.time(&m.SendTime, v)
		case "botId":
			d.id(&bot.Id, v)
		case "botWxid", "imBotId":
			d.id(&bot.Wxid, v)
		case "botWeixin", "botUserId":
			d.id(&bot.UserId, v)
		case "contactId", "imContactId":
			d.id(&sender.Wxid, v)
		case "contactName":
			d.text(&sender.Name, v)
		case "contactType":
			enum(d, &sender.Type, v, sluicev1.ContactType_name)
		case "externalUserId":
			d.id(&sender.ExternalUserId, v)
		case "coworker":
			d.boolean(&m.Coworker, v)
		case "roomId", "imRoomId":
			d.id(&roomWxid, v)
		case "roomTopic", "roomName":
			if roomTopic == "" {
				topic = v
			}
			d.text(&roomTopic, v)
		case "roomWecomChatId":
			d.id(&roomChat, v)
		case "orgId":
			d.id(&m.OrgId, v)
		case "groupId":
			d.id(&m.GroupId, v)
		case "avatar":
			d.text(&m.Avatar, v)
		case "isSelf":
			d.boolean(&m.IsSelf, v)
		case "mentionSelf":
			d.boolean(&m.MentionSelf, v)
		case "source":
			optionalEnum(d, &m.Source, v, sluicev1.Source_name)
		case "sendBy":
			d.id(&m.SendBy, v)
		case "customerExternalUserId":
			d.id(&m.CustomerExternalUserId, v)
		case "externalRequestId":
			d.id(&m.ExternalRequestId, v)
		case "type", "messageType":
			switch n, ok := enumerated[sluicev1.MessageType](d, v, sluicev1.MessageType_name); {
			case !ok:
			case !typed:
				m.Type, typed = n, true
			case n != m.Type:
				d.reject(v, DuplicateName)
			}
		case "payload":
			payload = v
		default:
			d.beside(name, v)
		}
	}
	if envelope != d.root {
		d.around(envelope)
	}

	m.Bot = known(bot)
	if sender.Wxid != "" || sender.Name != "" || sender.Type != 0 || sender.ExternalUserId != "" || m.Coworker != nil {
		m.Sender = &sluicev1.Contact{
			Wxid: sender.Wxid, Name: sender.Name, Type: sender.Type, ExternalUserId: sender.ExternalUserId, Coworker: m.Coworker,
		}
	}
	switch {
	case roomWxid != "" || roomChat != "":
		m.Room = &sluicev1.Room{Wxid: roomWxid, Topic: roomTopic, WecomChatId: roomChat}
	case roomTopic != "":
		d.reject(topic, TopicWithoutRoom)
	}
	if m.IsSelf == nil && sender.Wxid != "" && bot.Wxid != "" {
		self := sender.Wxid == bot.Wxid
		m.IsSelf = &self
	}
	switch {
	case typed:
		d.payload(m, payload)
	case payload >= 0 && !d.empty(payload):
		d.reject(payload, PayloadWithoutType)
	}
	return m
}

// beside takes in a field of an envelope that is no field of what it carries.
func (d *decoder) beside(name string, v int) {
	switch name {
	case "snapshotDay", "isHello", "corporation", "extraInfo", "errCode", "isAutoLoad", "uniqueId", "datetime", "code",
		"clientId", "chatExternalUserId", "contactExternalUserId":
		d.keep(v) // seen by receivers, documented nowhere
	default:
		d.unknown(v)
	}
}

// around takes in what stands around an envelope that is inside the body.
func (d *decoder) around(envelope int) {
	for name, v := range d.members(d.root) {
		if v != envelope {
			d.beside(name, v)
		}
	}
}

// dialect returns the shape of the message at envelope.
func (d *decoder) dialect(envelope int, has traits) sluicev1.Dialect {
	switch {
	case envelope == d.root && has&enterprise != 0:
		return sluicev1.Dialect_DIALECT_ENTERPRISE
	case envelope == d.root:
		return sluicev1.Dialect_DIALECT_GROUP_FLAT
	}
	if name, _ := d.name(envelope); name == "message" {
		return sluicev1.Dialect_DIALECT_STREAM_PACKET
	}
	return sluicev1.Dialect_DIALECT_GROUP
}
