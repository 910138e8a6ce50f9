// Package callback turns the vendor's JSON into sluice.v1: it finds out what a
// body says, in which dialect, maps it to typed events and cuts the
// credentials out of it. It is pure: no I/O, no clock, no log. What a body is
// for (which source, whether accepted, whether seen before) it does not know.
package callback

import (
	"slices"

	"google.golang.org/protobuf/types/known/structpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Version is the decoder's. It grows whenever some body would become another
// event than before.
const Version = 2

// Decode returns what body says. It is total: every byte sequence becomes a
// Callback, with events when it is JSON and with the reason in malformed when
// not. In both cases raw is body without its tokens, byte for byte.
//
// Events have body, dialect, anomalies, unmapped and raw; the rest of the
// envelope is the caller's. The raw of an event is the callback's own, or, of
// an item of an array, its part of it. They share memory, also with the strings
// of the events: raw must not be changed.
//
// Decode keeps no reference to body. It is deterministic and safe for
// concurrent use.
func Decode(body []byte) *sluicev1.Callback {
	s := newScanner()
	defer s.free()
	if reason := s.read(body); reason != "" {
		raw, tokens := redactText(body)
		return &sluicev1.Callback{Raw: raw, Tokens: tokens, Malformed: reason}
	}
	d := s.decoder()
	if n := d.followUps(len(s.raw)); n > 0 {
		cb := &sluicev1.Callback{Raw: s.raw, Tokens: append([]string(nil), s.tokens...), Events: make([]*sluicev1.Event, 0, n)}
		for i := d.first(0); i < d.past(0); i = d.next(i) {
			e := &sluicev1.Event{}
			d.event(e, i, s.anomalies)
			e.Raw = s.raw[s.nodes[i].start:s.nodes[i].end:s.nodes[i].end]
			cb.Events = append(cb.Events, e)
		}
		return cb
	}
	// One event is what nearly all have. It lives as long as its callback.
	var one struct {
		cb     sluicev1.Callback
		event  sluicev1.Event
		events [1]*sluicev1.Event
		tokens [1]string
	}
	d.event(&one.event, 0, s.anomalies)
	one.event.Raw = s.raw
	one.events[0] = &one.event
	one.cb.Raw, one.cb.Events = s.raw, one.events[:]
	if len(s.tokens) > 0 {
		one.cb.Tokens = append(one.tokens[:0], s.tokens...)
	}
	return &one.cb
}

// followUps returns the number of items when the body is an array of follow-up
// timeouts, the only callback that comes as an array; 0 for any other body,
// also where there are more items than a body of the vendor's can have.
func (d *decoder) followUps(rawBytes int) int {
	const minItems, bytesPerItem = 16, 128
	n := 0
	if d.kind(0) == '[' {
		n = d.count(0)
	}
	if n > minItems+rawBytes/bytesPerItem {
		return 0
	}
	for i := d.first(0); n > 0 && i < d.past(0); i = d.next(i) {
		if c := d.classify(i); c.kind != kindFollowUpTimeout || c.envelope != i {
			return 0
		}
	}
	return n
}

// event fills e from the value at root. anomalies are those of the text.
func (d *decoder) event(e *sluicev1.Event, root int, anomalies []string) {
	d.begin(root, anomalies)
	d.eventOf(e, d.classify(root))
}

// begin prepares the decoder for the event at root.
func (d *decoder) begin(root int, anomalies []string) {
	d.root, d.anomalies, d.unmapped = root, append(d.anomalies[:0], anomalies...), nil
}

// eventOf is event for what was found out about the value, the decoder's root.
func (d *decoder) eventOf(e *sluicev1.Event, c class) {
	at := c.envelope
	switch c.kind {
	case kindMessage:
		e.Dialect = d.dialect(at, c.has)
		e.Body = &sluicev1.Event_Message{Message: d.message(at)}
	case kindSendResult:
		e.Body = &sluicev1.Event_SendResult{SendResult: d.sendResult(at)}
	case kindFriendRequest:
		e.Body = &sluicev1.Event_FriendRequest{FriendRequest: d.friendRequest(at)}
	case kindFriendAdded:
		e.Body = &sluicev1.Event_FriendAdded{FriendAdded: d.friendAdded(at)}
	case kindAddFriendResult:
		e.Body = &sluicev1.Event_AddFriendResult{AddFriendResult: d.addFriendResult(at)}
	case kindCustomerAdded:
		e.Body = &sluicev1.Event_CustomerAdded{CustomerAdded: d.customerAdded(at)}
	case kindRoomMembersChanged:
		e.Body = &sluicev1.Event_RoomMembersChanged{RoomMembersChanged: d.roomMembersChanged(at)}
	case kindRoomTopicChanged:
		e.Body = &sluicev1.Event_RoomTopicChanged{RoomTopicChanged: d.roomTopicChanged(at)}
	case kindStaffChanged:
		e.Body = &sluicev1.Event_StaffChanged{StaffChanged: d.staffChanged(at)}
	case kindFollowUpTimeout:
		e.Body = &sluicev1.Event_FollowUpTimeout{FollowUpTimeout: d.followUpTimeout(at)}
	default:
		e.Body = &sluicev1.Event_Other{Other: d.other(d.root)}
	}
	slices.Sort(d.anomalies)
	e.Anomalies, e.Unmapped = append([]string(nil), d.anomalies...), d.unmapped
}

// other keeps any JSON whole. Of an object that is too wide as a whole, the
// members that fit stay what they are.
func (d *decoder) other(v int) *sluicev1.OtherCallback {
	if d.kind(v) != '{' || d.nodes[v].flags&opaque != 0 || !d.afford(objectBytes+d.count(v)*valueBytes) {
		return &sluicev1.OtherCallback{Value: d.value(v, 1)}
	}
	fields := make(map[string]*structpb.Value, d.count(v))
	for m := d.first(v); m < d.past(v); m = d.next(m) {
		if d.nodes[m].flags&shadowed == 0 {
			fields[d.key(m)] = d.value(m, 2)
		}
	}
	return &sluicev1.OtherCallback{Fields: &structpb.Struct{Fields: fields}}
}
