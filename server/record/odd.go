package record

import (
	"iter"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Odd reports whether e holds something that is not as the vendor documents it
// or that the schema has no name for: whether it can say anything of how the
// two drift apart.
func Odd(e *sluicev1.Event) bool {
	if len(e.GetAnomalies()) > 0 || len(e.GetUnmapped().GetFields()) > 0 || e.GetOther() != nil || !KnownPath(e.GetPath()) {
		return true
	}
	if e.GetDecoderVersion() > 0 {
		return false // a number without a name is an anomaly, which the decoder has noted
	}
	for range UnnamedValues(e) {
		return true
	}
	return false
}

// knownPaths are the ends of the sub-paths that callbacks we know of are posted
// to. The vendor puts some of them below a path of its own.
var knownPaths = []string{
	"/message", "/sentResult", "/friend/send", "/friend/confirm", "/add/customer", "/add/user", "/login/user",
	"/room/joined", "/room/left", "/room/topic", "/follow/timeout", "/chat", "/broadcast/result",
}

// KnownPath reports whether path, as it stands in Event.path, is one that a
// callback we know of is posted to. "" is "/".
func KnownPath(path string) bool {
	return path == "" || path == "/" ||
		slices.ContainsFunc(knownPaths, func(known string) bool { return strings.HasSuffix(path, known) })
}

// UnnamedValues yields the numbers in e's body that their enumerations have no
// name for, each with the path of its field, for example
// "room_members_changed.members[].type".
func UnnamedValues(e *sluicev1.Event) iter.Seq2[string, protoreflect.EnumNumber] {
	return func(yield func(string, protoreflect.EnumNumber) bool) {
		unnamed(e.ProtoReflect(), enums, yield)
	}
}

// A lead is a field that is an enumeration, or has one somewhere below.
type lead struct {
	field protoreflect.FieldDescriptor
	path  string // in an event
	below []lead // nil for an enumeration
}

// enums are the leads of an event. They are found once: this way a message is
// looked at in the few places where it has enumerations.
var enums = leads((*sluicev1.Event)(nil).ProtoReflect().Descriptor(), "")

// leads returns the leads of a message. No message of the schema holds itself.
func leads(m protoreflect.MessageDescriptor, prefix string) []lead {
	var found []lead
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		path := prefix + string(f.Name())
		if f.IsList() {
			path += "[]"
		}
		switch {
		case f.Enum() != nil:
			found = append(found, lead{field: f, path: path})
		case f.Message() != nil && f.Message().ParentFile().Package() == m.ParentFile().Package():
			if below := leads(f.Message(), path+"."); below != nil {
				found = append(found, lead{field: f, path: path, below: below})
			}
		}
	}
	return found
}

// unnamed returns false when yield has.
func unnamed(m protoreflect.Message, leads []lead, yield func(string, protoreflect.EnumNumber) bool) bool {
	for _, l := range leads {
		if !m.Has(l.field) {
			continue
		}
		if !l.field.IsList() {
			if !l.check(m.Get(l.field), yield) {
				return false
			}
			continue
		}
		list := m.Get(l.field).List()
		for i := range list.Len() {
			if !l.check(list.Get(i), yield) {
				return false
			}
		}
	}
	return true
}

func (l lead) check(v protoreflect.Value, yield func(string, protoreflect.EnumNumber) bool) bool {
	if l.below != nil {
		return unnamed(v.Message(), l.below, yield)
	}
	return l.field.Enum().Values().ByNumber(v.Enum()) != nil || yield(l.path, v.Enum())
}
