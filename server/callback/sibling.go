package callback

import (
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// The callbacks beside messages. Their objects may stand in an envelope, too,
// with a code beside it.

func (d *decoder) sendResult(envelope int) *sluicev1.SendResult {
	p, bot := &sluicev1.SendResult{}, &sluicev1.Bot{}
	for name, v := range d.both(envelope) {
		switch name {
		case "sentStatus":
			d.boolean(&p.Sent, v)
		case "requestId":
			d.id(&p.RequestId, v)
		case "externalRequestId":
			d.id(&p.ExternalRequestId, v)
		case "messageId":
			d.id(&p.MessageId, v)
		case "chatId":
			d.id(&p.ChatId, v)
		case "reason":
			d.text(&p.Reason, v)
		case "errorCode":
			d.int64(&p.ErrorCode, v)
		case "sendCode":
			d.int64(&p.SendCode, v)
		case "code":
			d.int64(&p.Code, v)
		case "orgId":
			d.id(&p.OrgId, v)
		default:
			d.botField(bot, name, v)
		}
	}
	if p.Sent == nil && p.SendCode != nil {
		sent := p.GetSendCode() == 0
		p.Sent = &sent
	}
	p.Bot = known(bot)
	return p
}

func (d *decoder) friendRequest(envelope int) *sluicev1.FriendRequest {
	p := &sluicev1.FriendRequest{Contact: &sluicev1.Contact{}}
	bot := &sluicev1.Bot{}
	for name, v := range d.both(envelope) {
		switch name {
		case "imContactId":
			d.id(&p.Contact.Wxid, v)
		case "imContactName":
			d.text(&p.Contact.Name, v)
		case "hello":
			d.text(&p.Hello, v)
		default:
			d.botField(bot, name, v)
		}
	}
	p.Bot = known(bot)
	return p
}

func (d *decoder) friendAdded(envelope int) *sluicev1.FriendAdded {
	p, bot, contact := &sluicev1.FriendAdded{}, &sluicev1.Bot{}, &sluicev1.Contact{}
	for name, v := range d.both(envelope) {
		switch name {
		case "wxid":
			d.id(&contact.Wxid, v)
		case "name":
			d.text(&contact.Name, v)
		case "externalUserId":
			d.id(&contact.ExternalUserId, v)
		case "phoneNum":
			d.id(&p.PhoneNumber, v)
		case "extraInfo":
			d.text(&p.ExtraInfo, v)
		case "createTimestamp":
			d.time(&p.CreateTime, v)
		case "code":
			d.int64(&p.Code, v)
		default:
			d.botField(bot, name, v)
		}
	}
	if contact.Wxid != "" || contact.Name != "" || contact.ExternalUserId != "" {
		p.Contact = &sluicev1.Contact{Wxid: contact.Wxid, Name: contact.Name, ExternalUserId: contact.ExternalUserId}
	}
	p.Bot = known(bot)
	return p
}

func (d *decoder) addFriendResult(envelope int) *sluicev1.AddFriendResult {
	p, bot := &sluicev1.AddFriendResult{}, &sluicev1.Bot{}
	for name, v := range d.both(envelope) {
		switch name {
		case "code":
			d.int64(&p.Code, v)
		case "message":
			d.text(&p.ErrorMessage, v)
		case "errorCode":
			d.int64(&p.ErrorCode, v)
		case "fromwxid":
			d.id(&bot.Wxid, v)
		case "fromwxName":
			d.text(&p.BotName, v)
		case "fromwxAvatar":
			d.text(&p.BotAvatar, v)
		case "type":
			enum(d, &p.Method, v, sluicev1.AddFriendMethod_name)
		case "phoneNum":
			d.id(&p.PhoneNumber, v)
		case "roomWxid":
			d.id(&p.RoomWxid, v)
		case "contactSenderWxid":
			d.id(&p.ContactSenderWxid, v)
		case "extraInfo":
			d.text(&p.ExtraInfo, v)
		case "payload":
			if d.object(v) {
				if p.Contact == nil {
					p.Contact = &sluicev1.ContactCardPayload{}
				}
				fillIn(d, p.Contact, v, contactCardField)
			}
		case "createTimestamp":
			d.time(&p.CreateTime, v)
		case "sendTimestamp":
			d.time(&p.SendTime, v)
		default:
			d.botField(bot, name, v)
		}
	}
	p.Bot = known(bot)
	return p
}

func (d *decoder) followUpTimeout(envelope int) *sluicev1.FollowUpTimeout {
	p := &sluicev1.FollowUpTimeout{}
	for name, v := range d.both(envelope) {
		switch name {
		case "_id":
			d.id(&p.Id, v)
		case "chatId":
			d.id(&p.ChatId, v)
		case "round":
			d.int32(&p.Round, v)
		case "userId":
			d.id(&p.UserId, v)
		case "assignedTimestamp":
			d.time(&p.AssignedTime, v)
		case "botId":
			d.id(&p.BotId, v)
		case "expectFollowUpTimestamp":
			d.time(&p.ExpectFollowUpTime, v)
		case "markFollowUpTimestamp":
			d.time(&p.MarkFollowUpTime, v)
		case "name":
			d.text(&p.Name, v)
		case "wxid":
			d.id(&p.Wxid, v)
		default:
			d.beside(name, v)
		}
	}
	return p
}

func (d *decoder) staffChanged(envelope int) *sluicev1.StaffChanged {
	p := &sluicev1.StaffChanged{}
	for name, v := range d.both(envelope) {
		switch name {
		case "type":
			d.text(&p.ChangeType, v)
		case "event":
			d.setStruct(&p.WecomEvent, v)
		case "timestamp":
			d.time(&p.EventTime, v)
		case "userId":
			d.id(&p.UserId, v)
		case "name":
			d.text(&p.Name, v)
		case "email":
			d.text(&p.Email, v)
		case "isLogin":
			d.boolean(&p.IsLogin, v)
		case "avatar":
			d.text(&p.Avatar, v)
		default:
			d.beside(name, v)
		}
	}
	return p
}
