package callback

import (
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// payload sets the payload of m from v, which is -1 when there is none. The
// type of m alone says its kind.
func (d *decoder) payload(m *sluicev1.Message, v int) {
	switch m.GetType() {
	case sluicev1.MessageType_MESSAGE_TYPE_UNKNOWN:
		m.Payload = &sluicev1.Message_Unknown{Unknown: &sluicev1.UnknownPayload{Content: d.content(v)}}
	case sluicev1.MessageType_MESSAGE_TYPE_FILE:
		m.Payload = &sluicev1.Message_File{File: fill(d, v, fileField)}
	case sluicev1.MessageType_MESSAGE_TYPE_VOICE:
		m.Payload = &sluicev1.Message_Voice{Voice: fill(d, v, voiceField)}
	case sluicev1.MessageType_MESSAGE_TYPE_CONTACT_CARD:
		m.Payload = &sluicev1.Message_ContactCard{ContactCard: fill(d, v, contactCardField)}
	case sluicev1.MessageType_MESSAGE_TYPE_CHAT_HISTORY:
		m.Payload = &sluicev1.Message_ChatHistory{ChatHistory: &sluicev1.ChatHistoryPayload{Content: d.content(v)}}
	case sluicev1.MessageType_MESSAGE_TYPE_EMOTICON:
		m.Payload = &sluicev1.Message_Emoticon{Emoticon: fill(d, v, emoticonField)}
	case sluicev1.MessageType_MESSAGE_TYPE_IMAGE:
		m.Payload = &sluicev1.Message_Image{Image: d.image(v)}
	case sluicev1.MessageType_MESSAGE_TYPE_TEXT:
		m.Payload = &sluicev1.Message_Text{Text: fill(d, v, textField)}
	case sluicev1.MessageType_MESSAGE_TYPE_LOCATION:
		m.Payload = &sluicev1.Message_Location{Location: fill(d, v, locationField)}
	case sluicev1.MessageType_MESSAGE_TYPE_MINI_PROGRAM:
		m.Payload = &sluicev1.Message_MiniProgram{MiniProgram: fill(d, v, miniProgramField)}
	case sluicev1.MessageType_MESSAGE_TYPE_MONEY:
		m.Payload = &sluicev1.Message_Money{Money: &sluicev1.MoneyPayload{Content: d.content(v)}}
	case sluicev1.MessageType_MESSAGE_TYPE_RECALL:
		m.Payload = &sluicev1.Message_Recall{Recall: &sluicev1.RecallPayload{Content: d.content(v)}}
	case sluicev1.MessageType_MESSAGE_TYPE_LINK:
		m.Payload = &sluicev1.Message_Link{Link: fill(d, v, linkField)}
	case sluicev1.MessageType_MESSAGE_TYPE_VIDEO:
		m.Payload = &sluicev1.Message_Video{Video: fill(d, v, videoField)}
	case sluicev1.MessageType_MESSAGE_TYPE_CHANNEL:
		m.Payload = &sluicev1.Message_Channel{Channel: fill(d, v, channelField)}
	case sluicev1.MessageType_MESSAGE_TYPE_CALL:
		m.Payload = &sluicev1.Message_Call{Call: &sluicev1.CallPayload{Fields: d.structOf(v)}}
	case sluicev1.MessageType_MESSAGE_TYPE_SOLITAIRE:
		m.Payload = &sluicev1.Message_Solitaire{Solitaire: &sluicev1.SolitairePayload{Fields: d.structOf(v)}}
	case sluicev1.MessageType_MESSAGE_TYPE_ROOM_INVITATION:
		m.Payload = &sluicev1.Message_RoomInvitation{RoomInvitation: fill(d, v, roomInvitationField)}
	case sluicev1.MessageType_MESSAGE_TYPE_SYSTEM:
		m.Payload = &sluicev1.Message_System{System: d.system(v)}
	case sluicev1.MessageType_MESSAGE_TYPE_WECOM_SYSTEM:
		m.Payload = &sluicev1.Message_WecomSystem{WecomSystem: d.wecomSystem(v)}
	default:
		m.Payload = &sluicev1.Message_Other{Other: &sluicev1.OtherPayload{Fields: d.structOf(v)}}
	}
}

// content returns the one field of the payloads that have no other.
func (d *decoder) content(v int) (s string) {
	if !d.object(v) {
		return ""
	}
	for name, m := range d.members(v) {
		switch name {
		case "content":
			d.text(&s, m)
		default:
			d.unknown(m)
		}
	}
	return s
}

func fileField(d *decoder, p *sluicev1.FilePayload, name string, v int) {
	switch name {
	case "name":
		d.text(&p.Name, v)
	case "fileUrl":
		d.text(&p.Url, v)
	case "url":
		d.text(&p.Url, d.documented(v, "fileUrl"))
		d.text(&p.Url, v)
	case "size":
		d.int64(&p.Size, v)
	default:
		d.unknown(v)
	}
}

func voiceField(d *decoder, p *sluicev1.VoicePayload, name string, v int) {
	switch name {
	case "voiceUrl":
		d.text(&p.Url, v)
	case "url":
		d.text(&p.Url, d.documented(v, "voiceUrl"))
		d.text(&p.Url, v)
	case "duration":
		d.double(&p.DurationSeconds, v)
	case "wxVoiceUrl":
		d.text(&p.RawUrl, v)
	case "text":
		d.text(&p.Transcript, v)
	case "md5":
		d.id(&p.Md5, v)
	default:
		d.unknown(v)
	}
}

func contactCardField(d *decoder, p *sluicev1.ContactCardPayload, name string, v int) {
	switch name {
	case "avatar":
		d.text(&p.Avatar, v)
	case "coworker":
		d.boolean(&p.Coworker, v)
	case "friend":
		d.boolean(&p.Friend, v)
	case "gender":
		enum(d, &p.Gender, v, sluicev1.Gender_name)
	case "wxid":
		d.id(&p.Wxid, v)
	case "name":
		d.text(&p.Name, v)
	case "type":
		enum(d, &p.Type, v, sluicev1.ContactType_name)
	case "weixin":
		d.id(&p.Weixin, v)
	case "alias":
		d.text(&p.Alias, v)
	case "nickname":
		d.text(&p.Nickname, v)
	case "content":
		d.text(&p.Content, v)
	default:
		d.unknown(v)
	}
}

func emoticonField(d *decoder, p *sluicev1.EmoticonPayload, name string, v int) {
	switch name {
	case "imageUrl":
		d.text(&p.Url, v)
	case "url":
		d.text(&p.Url, d.documented(v, "imageUrl"))
		d.text(&p.Url, v)
	default:
		d.unknown(v)
	}
}

func (d *decoder) image(v int) *sluicev1.ImagePayload {
	p := fill(d, v, imageField)
	if a := p.GetArtwork(); a != nil && a.Url == "" && a.Width == nil && a.Height == nil {
		p.Artwork = nil // not loaded yet
	}
	return p
}

func imageField(d *decoder, p *sluicev1.ImagePayload, name string, v int) {
	switch name {
	case "imageUrl":
		d.text(&p.Url, v)
	case "url":
		d.text(&p.Url, d.documented(v, "imageUrl"))
		d.text(&p.Url, v)
	case "size":
		d.int64(&p.Size, v)
	case "width":
		d.int32(&p.Width, v)
	case "height":
		d.int32(&p.Height, v)
	case "artwork":
		if d.object(v) {
			fillIn(d, artwork(p), v, artworkField)
		}
	default:
		if field := d.nest(name, "artwork"); field != "" {
			artworkField(d, artwork(p), field, v)
			return
		}
		d.unknown(v)
	}
}

// artwork returns the artwork of p, which it makes when there is none yet: it
// can come in parts.
func artwork(p *sluicev1.ImagePayload) *sluicev1.ImagePayload_Artwork {
	if p.Artwork == nil {
		p.Artwork = &sluicev1.ImagePayload_Artwork{}
	}
	return p.Artwork
}

func artworkField(d *decoder, p *sluicev1.ImagePayload_Artwork, name string, v int) {
	switch name {
	case "url":
		d.text(&p.Url, v)
	case "width":
		d.int32(&p.Width, v)
	case "height":
		d.int32(&p.Height, v)
	default:
		d.unknown(v)
	}
}

func textField(d *decoder, p *sluicev1.TextPayload, name string, v int) {
	switch name {
	case "text":
		d.text(&p.Text, v)
	case "mention":
		d.ids(&p.Mentions, v)
	case "pureText":
		d.text(&p.PureText, v)
	case "wecomMention":
		d.ids(&p.WecomMentions, v)
	case "quoteMessage":
		if d.object(v) {
			p.Quote = fill(d, v, quoteField)
		}
	default:
		d.unknown(v)
	}
}

func quoteField(d *decoder, p *sluicev1.QuotedMessage, name string, v int) {
	switch name {
	case "messageId":
		d.id(&p.MessageId, v)
	case "wxid":
		d.id(&p.Wxid, v)
	case "nickname":
		d.text(&p.Nickname, v)
	case "nickame":
		d.text(&p.Nickname, d.documented(v, "nickname"))
		d.text(&p.Nickname, v)
	case "type":
		optionalEnum(d, &p.Type, v, sluicev1.MessageType_name)
	case "timestamp":
		d.time(&p.SendTime, v)
	case "content":
		d.quote(p, v)
	default:
		d.unknown(v)
	}
}

// quote takes in what was quoted: an object, {} or plain text.
func (d *decoder) quote(p *sluicev1.QuotedMessage, v int) {
	if d.empty(v) {
		return
	}
	p.Content = d.value(v, 1)
	p.Text = p.GetContent().GetStructValue().GetFields()["text"].GetStringValue()
	if d.kind(v) == '"' {
		p.Text = p.GetContent().GetStringValue()
	}
	for _, name := range []string{"url", "imageUrl", "fileUrl", "videoUrl", "voiceUrl"} {
		if url := p.GetContent().GetStructValue().GetFields()[name].GetStringValue(); url != "" {
			p.Url = url
			break
		}
	}
}

func locationField(d *decoder, p *sluicev1.LocationPayload, name string, v int) {
	switch name {
	case "content":
		d.text(&p.Content, v)
	case "name":
		d.text(&p.Name, v)
	case "address":
		d.text(&p.Address, v)
	case "latitude":
		d.double(&p.Latitude, v)
	case "longitude":
		d.double(&p.Longitude, v)
	case "accuracy":
		d.double(&p.Accuracy, v)
	default:
		d.unknown(v)
	}
}

func miniProgramField(d *decoder, p *sluicev1.MiniProgramPayload, name string, v int) {
	switch name {
	case "appid":
		d.id(&p.AppId, v)
	case "appId":
		d.id(&p.AppId, d.documented(v, "appid"))
		d.id(&p.AppId, v)
	case "title":
		d.text(&p.Title, v)
	case "description":
		d.text(&p.Description, v)
	case "pagePath":
		d.text(&p.PagePath, v)
	case "username":
		d.id(&p.Username, v)
	case "iconUrl":
		d.text(&p.IconUrl, v)
	case "thumbKey":
		d.text(&p.ThumbKey, v)
	case "url":
		d.text(&p.Url, v)
	case "nickname":
		d.text(&p.Nickname, v)
	case "thumbnailUrl", "thumbUrl":
		d.text(&p.ThumbnailUrl, v)
	default:
		d.unknown(v)
	}
}

func linkField(d *decoder, p *sluicev1.LinkPayload, name string, v int) {
	switch name {
	case "content":
		d.text(&p.Content, v)
	case "title":
		d.text(&p.Title, v)
	case "description":
		d.text(&p.Description, v)
	case "url":
		d.text(&p.Url, v)
	case "thumbnailUrl", "thumbUrl":
		d.text(&p.ThumbnailUrl, v)
	default:
		d.unknown(v)
	}
}

func videoField(d *decoder, p *sluicev1.VideoPayload, name string, v int) {
	switch name {
	case "videoUrl":
		d.text(&p.Url, v)
	case "url":
		d.text(&p.Url, d.documented(v, "videoUrl"))
		d.text(&p.Url, v)
	case "thumbnailUrl":
		d.text(&p.ThumbnailUrl, v)
	case "duration":
		d.double(&p.DurationSeconds, v)
	default:
		d.unknown(v)
	}
}

func channelField(d *decoder, p *sluicev1.ChannelPayload, name string, v int) {
	switch name {
	case "nickname":
		d.text(&p.Nickname, v)
	case "avatarUrl":
		d.text(&p.AvatarUrl, v)
	case "coverUrl":
		d.text(&p.CoverUrl, v)
	case "thumbUrl", "thumbnailUrl":
		d.text(&p.ThumbnailUrl, v)
	case "url":
		d.text(&p.Url, v)
	case "description":
		d.text(&p.Description, v)
	case "feedType":
		d.int32(&p.FeedType, v)
	case "objectId":
		d.id(&p.ObjectId, v)
	case "objectNonceId":
		d.id(&p.ObjectNonceId, v)
	case "extras":
		d.text(&p.Extras, v)
	default:
		d.unknown(v)
	}
}

func roomInvitationField(d *decoder, p *sluicev1.RoomInvitationPayload, name string, v int) {
	switch name {
	case "roomTopic":
		d.text(&p.RoomTopic, v)
	case "avatarUrl":
		d.text(&p.AvatarUrl, v)
	case "invitaterName":
		d.text(&p.InviterName, v)
	case "inviterName":
		d.text(&p.InviterName, d.documented(v, "invitaterName"))
		d.text(&p.InviterName, v)
	case "inviteModelId":
		d.id(&p.InviteId, v)
	case "inviteStatus":
		optionalEnum(d, &p.Status, v, sluicev1.RoomInvitationPayload_Status_name)
	default:
		d.unknown(v)
	}
}
