package callback

import (
	"iter"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func (d *decoder) customerAdded(envelope int) *sluicev1.CustomerAdded {
	p := &sluicev1.CustomerAdded{Contact: &sluicev1.Contact{}}
	bot := &sluicev1.Bot{}
	for name, v := range d.both(envelope) {
		switch name {
		case "type":
			if d.typeTraits(v)&word != 0 {
				d.text(&p.ChangeType, v) // the event's; a number is the contact's
				continue
			}
			enum(d, &p.Contact.Type, v, sluicev1.ContactType_name)
		case "contactType":
			enum(d, &p.Contact.Type, v, sluicev1.ContactType_name)
		case "event":
			d.setStruct(&p.WecomEvent, v)
		case "timestamp":
			d.time(&p.EventTime, v)
		case "imContactId":
			d.id(&p.Contact.Wxid, v)
		case "wxid":
			d.id(&p.Contact.Wxid, d.documented(v, "imContactId"))
			d.id(&p.Contact.Wxid, v)
		case "name":
			d.text(&p.Contact.Name, v)
		case "externalUserId":
			d.id(&p.Contact.ExternalUserId, v)
		case "coworker":
			d.boolean(&p.Contact.Coworker, v)
		case "avatar":
			d.text(&p.Avatar, v)
		case "gender":
			enum(d, &p.Gender, v, sluicev1.Gender_name)
		case "createTimestamp":
			d.time(&p.CreateTime, v)
		case "remarkMobiles":
			d.ids(&p.RemarkMobiles, v)
		case "unionId":
			d.id(&p.UnionId, v)
		case "followUser":
			d.followUsers(&p.FollowUsers, v)
		case "imInfo":
			if d.object(v) {
				fillIn(d, p, v, imInfoField)
			}
		case "botInfo":
			d.botInfo(bot, &p.BotName, &p.BotAvatar, v)
		default:
			d.botField(bot, name, v)
		}
	}
	p.Bot = known(bot)
	return p
}

func imInfoField(d *decoder, p *sluicev1.CustomerAdded, name string, v int) {
	switch name {
	case "externalUserId":
		d.id(&p.Contact.ExternalUserId, v)
	case "followUser":
		d.followUsers(&p.FollowUsers, v)
	case "unionId":
		d.id(&p.UnionId, v)
	default:
		d.unknown(v)
	}
}

// followUsers takes in one or more employees: WeCom's own event has a list of
// them, the vendor's an object.
func (d *decoder) followUsers(dst *[]*sluicev1.FollowUser, v int) {
	if d.kind(v) != '{' {
		fillList(d, dst, v, followUserField)
	} else if d.object(v) {
		setList(d, dst, v, []*sluicev1.FollowUser{fill(d, v, followUserField)})
	}
}

func followUserField(d *decoder, p *sluicev1.FollowUser, name string, v int) {
	switch name {
	case "userId", "wecomUserId":
		d.id(&p.UserId, v)
	case "name":
		d.text(&p.Name, v)
	case "remark":
		d.text(&p.Remark, v)
	case "avatar":
		d.text(&p.Avatar, v)
	case "createTimestamp":
		d.time(&p.CreateTime, v)
	case "tags":
		fillList(d, &p.Tags, v, tagField)
	case "remarkMobiles":
		d.ids(&p.RemarkMobiles, v)
	default:
		d.unknown(v)
	}
}

func tagField(d *decoder, p *sluicev1.FollowUser_Tag, name string, v int) {
	switch name {
	case "tagId":
		d.id(&p.Id, v)
	case "tagName":
		d.text(&p.Name, v)
	case "groupName":
		d.text(&p.GroupName, v)
	case "type":
		d.text(&p.Type, v)
	default:
		d.unknown(v)
	}
}

// both walks the members of envelope and those around it.
func (d *decoder) both(envelope int) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for name, v := range d.members(envelope) {
			if !yield(name, v) {
				return
			}
		}
		if envelope == d.root {
			return
		}
		if d.nodes[envelope].flags&opaque != 0 {
			d.keep(envelope)
		}
		for name, v := range d.members(d.root) {
			if v != envelope && !yield(name, v) {
				return
			}
		}
	}
}

// botField takes in a field that names the hosted account, or one that no
// mapping knows.
func (d *decoder) botField(p *sluicev1.Bot, name string, v int) {
	switch name {
	case "botId":
		d.id(&p.Id, v)
	case "imBotId", "botWxid":
		d.id(&p.Wxid, v)
	case "botUserId", "botWeixin", "wecomUserId":
		d.id(&p.UserId, v)
	default:
		d.beside(name, v)
	}
}

// botInfo takes in the object that describes the hosted account. avatar can be
// nil.
func (d *decoder) botInfo(p *sluicev1.Bot, botName, avatar *string, v int) {
	if !d.object(v) {
		return
	}
	for name, m := range d.members(v) {
		switch {
		case name == "name" || name == "nickName":
			d.text(botName, m)
		case name == "avatar" && avatar != nil:
			d.text(avatar, m)
		default:
			d.botField(p, name, m)
		}
	}
}

// known returns what p says, or nil when that is nothing. It returns a copy, so
// that a bot that is not known needs no memory.
func known(p *sluicev1.Bot) *sluicev1.Bot {
	if p.Id == "" && p.Wxid == "" && p.UserId == "" {
		return nil
	}
	return &sluicev1.Bot{Id: p.Id, Wxid: p.Wxid, UserId: p.UserId}
}
