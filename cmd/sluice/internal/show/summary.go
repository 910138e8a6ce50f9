package show

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// nothing is the summary of an event that says nothing.
const nothing = "(empty)"

// summary returns what happened, in a few words and as it came: it is for
// Visible to make it safe to show.
func summary(e *sluicev1.Event) string {
	text := cmp.Or(happened(e), nothing)
	if first := e.GetRevisionOf(); first != 0 {
		return fmt.Sprintf("[revises %d] %s", first, text)
	}
	return text
}

// happened returns what an event says; "" when it is nothing.
func happened(e *sluicev1.Event) string {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Message:
		return said(b.Message)
	case *sluicev1.Event_SendResult:
		return sendResult(b.SendResult)
	case *sluicev1.Event_FriendRequest:
		return join(": ", "asks to be a friend", b.FriendRequest.GetHello())
	case *sluicev1.Event_FriendAdded:
		return join(", ", "is a friend now", b.FriendAdded.GetPhoneNumber(), b.FriendAdded.GetExtraInfo())
	case *sluicev1.Event_AddFriendResult:
		return addFriendResult(b.AddFriendResult)
	case *sluicev1.Event_CustomerAdded:
		c := b.CustomerAdded
		return join(" ", "is a new customer", after("of ", cmp.Or(c.GetBotName(), followers(c))), parens(c.GetChangeType()))
	case *sluicev1.Event_RoomMembersChanged:
		return roomMembersChanged(b.RoomMembersChanged)
	case *sluicev1.Event_RoomTopicChanged:
		return renamed(b.RoomTopicChanged.GetOldTopic(), b.RoomTopicChanged.GetRoom().GetTopic(), "")
	case *sluicev1.Event_StaffChanged:
		return staffChanged(b.StaffChanged)
	case *sluicev1.Event_FollowUpTimeout:
		f := b.FollowUpTimeout
		return join(" ", "waited too long for an answer", after("by ", f.GetUserId()), parens(number("reminder ", f.Round)))
	case *sluicev1.Event_Other:
		return join(" ", b.Other.GetPath(), asJSON(b.Other.GetFields()), asJSON(b.Other.GetValue()))
	}
	return ""
}

// said returns what a message says; "" when it is nothing.
func said(m *sluicev1.Message) string {
	switch p := m.GetPayload().(type) {
	case *sluicev1.Message_Unknown:
		return p.Unknown.GetContent()
	case *sluicev1.Message_File:
		return join(" ", p.File.GetName(), parens(number("", p.File.Size, " bytes")), p.File.GetUrl())
	case *sluicev1.Message_Voice:
		return join(" ", number("", p.Voice.DurationSeconds, " s"), p.Voice.GetTranscript(), p.Voice.GetUrl())
	case *sluicev1.Message_ContactCard:
		c := p.ContactCard
		return join(" ", cmp.Or(c.GetName(), c.GetNickname(), c.GetAlias(), c.GetWeixin(), c.GetWxid()), c.GetContent())
	case *sluicev1.Message_ChatHistory:
		return p.ChatHistory.GetContent()
	case *sluicev1.Message_Emoticon:
		return p.Emoticon.GetUrl()
	case *sluicev1.Message_Image:
		return image(p.Image)
	case *sluicev1.Message_Text:
		return text(p.Text)
	case *sluicev1.Message_Location:
		l := p.Location
		return join(" ", l.GetName(), l.GetAddress(), parens(join(", ", number("", l.Latitude), number("", l.Longitude))), l.GetContent())
	case *sluicev1.Message_MiniProgram:
		return join(": ", p.MiniProgram.GetNickname(), cmp.Or(p.MiniProgram.GetTitle(), p.MiniProgram.GetDescription(), p.MiniProgram.GetAppId()))
	case *sluicev1.Message_Money:
		return p.Money.GetContent()
	case *sluicev1.Message_Recall:
		return after("took back ", cmp.Or(p.Recall.GetContent(), "a message"))
	case *sluicev1.Message_Link:
		return join(" ", cmp.Or(p.Link.GetTitle(), p.Link.GetDescription()), p.Link.GetUrl(), p.Link.GetContent())
	case *sluicev1.Message_Video:
		return join(" ", number("", p.Video.DurationSeconds, " s"), p.Video.GetUrl())
	case *sluicev1.Message_Channel:
		return join(" ", join(": ", p.Channel.GetNickname(), p.Channel.GetDescription()), p.Channel.GetUrl())
	case *sluicev1.Message_Call:
		return asJSON(p.Call.GetFields())
	case *sluicev1.Message_Solitaire:
		return asJSON(p.Solitaire.GetFields())
	case *sluicev1.Message_RoomInvitation:
		return roomInvitation(p.RoomInvitation)
	case *sluicev1.Message_System:
		return system(p.System)
	case *sluicev1.Message_WecomSystem:
		return wecomSystem(p.WecomSystem)
	case *sluicev1.Message_Other:
		return asJSON(p.Other.GetFields())
	}
	return ""
}

func text(t *sluicev1.TextPayload) string {
	q := t.GetQuote()
	if q == nil {
		return t.GetText()
	}
	quoted := cmp.Or(q.GetText(), q.GetUrl(), asJSON(q.GetContent()), q.GetMessageId())
	return join(" ", t.GetText(), "[answers "+join(": ", cmp.Or(q.GetNickname(), q.GetWxid()), quoted)+"]")
}

func image(i *sluicev1.ImagePayload) string {
	if a := i.GetArtwork(); a.GetUrl() != "" {
		return join(" ", pixels(a.Width, a.Height), a.GetUrl())
	}
	return join(" ", pixels(i.Width, i.Height), cmp.Or(i.GetUrl(), "(not loaded yet)"))
}

func pixels(width, height *int32) string {
	if width == nil || height == nil {
		return ""
	}
	return fmt.Sprintf("%dx%d", *width, *height)
}

func roomInvitation(r *sluicev1.RoomInvitationPayload) string {
	status := ""
	if r.Status != nil {
		status = enumName(r.GetStatus())
	}
	return join(" ", r.GetInviterName(), "invites to", cmp.Or(r.GetRoomTopic(), "a room"), parens(status))
}

func system(s *sluicev1.SystemPayload) string {
	switch d := s.GetDetail().(type) {
	case *sluicev1.SystemPayload_RecallFailed_:
		return "could not take back " + cmp.Or(d.RecallFailed.GetMessageId(), "a message")
	case *sluicev1.SystemPayload_RoomMembersJoined_:
		return joined(d.RoomMembersJoined.GetMemberNames(), d.RoomMembersJoined.GetInviterName())
	}
	return "notice of type " + enumName(s.GetType())
}

func wecomSystem(s *sluicev1.WecomSystemPayload) string {
	switch d := s.GetDetail().(type) {
	case *sluicev1.WecomSystemPayload_MembersJoined_:
		return joined(people(d.MembersJoined.GetInvitees()), person(d.MembersJoined.GetInviter()))
	case *sluicev1.WecomSystemPayload_MembersLeft_:
		return left(people(d.MembersLeft.GetLeavers()), person(d.MembersLeft.GetRemover()))
	case *sluicev1.WecomSystemPayload_TopicChanged_:
		return renamed(d.TopicChanged.GetOldTopic(), d.TopicChanged.GetNewTopic(), person(d.TopicChanged.GetChanger()))
	}
	if s.Type == nil {
		return "notice"
	}
	return "notice of type " + enumName(s.GetType())
}

func sendResult(r *sluicev1.SendResult) string {
	outcome := "outcome not said"
	switch {
	case r.GetSent():
		outcome = "sent"
	case r.Sent != nil:
		outcome = join(": ", "not sent", join(" ", r.GetReason(), parens(number("error ", r.ErrorCode))))
	}
	return join(" ", outcome, cmp.Or(after("message ", r.GetMessageId()), after("request ", r.GetRequestId())),
		after("for ", r.GetExternalRequestId()))
}

func addFriendResult(r *sluicev1.AddFriendResult) string {
	outcome := "request made"
	if code := r.GetCode(); code != 0 || r.GetErrorMessage() != "" {
		outcome = join(": ", "request failed", join(" ", r.GetErrorMessage(), parens(number("error ", r.ErrorCode))))
	}
	c := r.GetContact()
	who := cmp.Or(c.GetName(), c.GetNickname(), c.GetWxid(), r.GetPhoneNumber())
	return join(" ", outcome, after("to ", who), after("by ", r.GetBotName()))
}

func roomMembersChanged(r *sluicev1.RoomMembersChanged) string {
	var names []string
	for _, m := range r.GetMembers() {
		names = append(names, cmp.Or(m.GetRoomAlias(), m.GetName(), m.GetWxid()))
	}
	switch r.GetChange() {
	case sluicev1.RoomMembersChanged_CHANGE_JOINED:
		return joined(names, "")
	case sluicev1.RoomMembersChanged_CHANGE_LEFT:
		return left(names, "")
	default:
		return "joined or left: " + someone(names)
	}
}

func staffChanged(s *sluicev1.StaffChanged) string {
	login := ""
	if s.IsLogin != nil {
		login = "logged out"
		if s.GetIsLogin() {
			login = "logged in"
		}
	}
	return join(" ", s.GetChangeType(), cmp.Or(s.GetName(), s.GetUserId()), parens(login))
}

// joined says that names joined a room, by "" or somebody's invitation.
func joined(names []string, inviter string) string {
	return join(", ", someone(names)+" joined", after("invited by ", inviter))
}

// left says that names left a room, by themselves where remover is "".
func left(names []string, remover string) string {
	return join(", ", someone(names)+" left", after("removed by ", remover))
}

// renamed says that a room changed its name. Any of the three may be "".
func renamed(before, now, changer string) string {
	return join(" ", "room renamed", after("from ", before), after("to ", now), after("by ", changer))
}

func someone(names []string) string {
	return cmp.Or(join(", ", names...), "somebody")
}

func people(ps []*sluicev1.Person) []string {
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = person(p)
	}
	return names
}

func person(p *sluicev1.Person) string {
	return cmp.Or(p.GetDisplayName(), p.GetWxid())
}

func followers(c *sluicev1.CustomerAdded) string {
	var names []string
	for _, u := range c.GetFollowUsers() {
		names = append(names, cmp.Or(u.GetName(), u.GetUserId()))
	}
	return join(", ", names...)
}

// join joins the parts that are not empty.
func join(separator string, parts ...string) string {
	var set []string
	for _, p := range parts {
		if p != "" {
			set = append(set, p)
		}
	}
	return strings.Join(set, separator)
}

// after returns s behind lead; "" when s is.
func after(lead, s string) string {
	if s == "" {
		return ""
	}
	return lead + s
}

// parens returns s in parentheses; "" when it is.
func parens(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

// number returns n between lead and its unit; "" when it is unset.
func number[N int32 | int64 | float64](lead string, n *N, unit ...string) string {
	if n == nil {
		return ""
	}
	return lead + fmt.Sprint(*n) + strings.Join(unit, "")
}

// asJSON returns m as JSON; "" when it is nil.
func asJSON(m proto.Message) string {
	if !m.ProtoReflect().IsValid() {
		return ""
	}
	b, err := compactJSON(m)
	if err != nil {
		return "" // a value that JSON has no form for
	}
	return string(b)
}
