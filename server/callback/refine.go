package callback

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// paths are the ends of the paths that the vendor posts to, and what comes
// there.
var paths = []struct {
	end    string
	kind   kind
	change sluicev1.RoomMembersChanged_Change
}{
	{end: "/sentResult", kind: kindSendResult},
	{end: "/friend/send", kind: kindAddFriendResult},
	{end: "/friend/confirm", kind: kindFriendAdded},
	{end: "/room/left", kind: kindRoomMembersChanged, change: sluicev1.RoomMembersChanged_CHANGE_LEFT},
	{end: "/room/joined", kind: kindRoomMembersChanged, change: sluicev1.RoomMembersChanged_CHANGE_JOINED},
	{end: "/room/topic", kind: kindRoomTopicChanged},
	{end: "/notify/add/customer", kind: kindCustomerAdded},
	{end: "/notify/add/user", kind: kindStaffChanged},
	{end: "/login/user", kind: kindStaffChanged},
	{end: "/follow/timeout", kind: kindFollowUpTimeout},
}

// Refine settles what the body of e leaves open and path does not: the path
// below the source's, for example "/room/left". Content comes first. Path
// decides
//   - what a body of no known kind is, if a field of that kind is in it;
//   - that members joined or left, where the body only says that they changed,
//     or only names the room;
//   - that an add-friend task ended, where the body names nobody who was added.
//
// To read the body as another kind it needs e's raw, which it leaves alone; an
// event without raw stays what it is. Refine is deterministic; a second call
// with the same path changes nothing.
func Refine(e *sluicev1.Event, path string) {
	for _, p := range paths {
		if !strings.HasSuffix(strings.TrimSuffix(path, "/"), p.end) {
			continue
		}
		if leavesOpen(e, p.kind) {
			reread(e, p.kind)
		}
		if m := e.GetRoomMembersChanged(); m != nil && m.GetChange() == 0 {
			m.Change = p.change
		}
		break
	}
	if other := e.GetOther(); other != nil {
		other.Path = path
	}
}

// leavesOpen reports whether what e was made of can be a k as well.
func leavesOpen(e *sluicev1.Event, k kind) bool {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Other:
		return true
	case *sluicev1.Event_RoomTopicChanged:
		return k == kindRoomMembersChanged
	case *sluicev1.Event_FriendAdded:
		return k == kindAddFriendResult && b.FriendAdded.GetContact() == nil
	}
	return false
}

// reread makes e a k, from its raw, unless nothing in that says so.
func reread(e *sluicev1.Event, k kind) {
	s := newScanner()
	defer s.free()
	if s.read(e.GetRaw()) != "" {
		return
	}
	for _, anomaly := range []string{InvalidUTF8, NestedToken} { // perhaps of what is not in raw any more
		if slices.Contains(e.GetAnomalies(), anomaly) {
			s.note(anomaly)
		}
	}
	again := &sluicev1.Event{}
	s.decoder().eventAs(again, k, s.anomalies)
	change := again.GetCustomerAdded().GetChangeType()
	other := change != "" && !strings.HasPrefix(change, "add_")
	body := &sluicev1.Event{Body: again.GetBody()}
	if !other && says(body.ProtoReflect()) {
		e.Body, e.Anomalies, e.Unmapped = again.GetBody(), again.GetAnomalies(), again.GetUnmapped()
	}
}

// eventAs is event for the whole body, which is taken for a k.
func (d *decoder) eventAs(e *sluicev1.Event, k kind, anomalies []string) {
	d.begin(0, anomalies)
	c := class{kind: k}
	if d.kind(0) != '{' {
		return
	}
	if data := d.find(0, "data"); data >= 0 && d.kind(data) == '{' {
		c.envelope = data
	}
	d.eventOf(e, c)
}

// says reports whether any field is set in m, or in a message in it.
func says(m protoreflect.Message) (found bool) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		found = f.Message() == nil || f.Cardinality() == protoreflect.Repeated || says(v.Message())
		return !found
	})
	return found
}
