package retype

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// maxText is how much of a value is told, in bytes.
const maxText = 1024

// Diff returns how what the decoder made of two events differs: dialect,
// anomalies, unmapped and body, in this order. The envelope does not count.
func Diff(before, after *sluicev1.Event) []*sluicev1.FieldChange {
	var d diff
	a, b := before.ProtoReflect(), after.ProtoReflect()
	fields := a.Descriptor().Fields()
	dialect := fields.ByName("dialect")
	d.value("dialect", dialect, get(a, dialect), get(b, dialect))
	d.leaf("anomalies", strings.Join(before.GetAnomalies(), ", "), strings.Join(after.GetAnomalies(), ", "))
	d.members("unmapped", before.GetUnmapped(), after.GetUnmapped())
	body := a.Descriptor().Oneofs().ByName("body").Fields()
	for i := range body.Len() {
		f := body.Get(i)
		d.value(string(f.Name()), f, get(a, f), get(b, f))
	}
	return d.changes
}

type diff struct{ changes []*sluicev1.FieldChange }

// leaf compares two texts; "" is unset.
func (d *diff) leaf(path, before, after string) {
	if before != after {
		d.changes = append(d.changes, &sluicev1.FieldChange{Path: path, Before: cut(before), After: cut(after)})
	}
}

// value compares two values of a field, or of an item of it. A value that is
// not valid is unset.
func (d *diff) value(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	if f.Message() == nil || f.Message().ParentFile().Package() == "google.protobuf" {
		if f.Message() != nil && f.Message().Name() == "Struct" {
			d.members(path, message[*structpb.Struct](a), message[*structpb.Struct](b))
			return
		}
		d.leaf(path, text(f, a), text(f, b))
		return
	}
	told := len(d.changes)
	var ma, mb protoreflect.Message
	var there [2]string
	if a.IsValid() {
		ma, there[0] = a.Message(), "{}"
	}
	if b.IsValid() {
		mb, there[1] = b.Message(), "{}"
	}
	for i := range f.Message().Fields().Len() {
		sub := f.Message().Fields().Get(i)
		subPath := path + "." + string(sub.Name())
		va, vb := get(ma, sub), get(mb, sub)
		if !sub.IsList() {
			d.value(subPath, sub, va, vb)
			continue
		}
		for n := range max(length(va), length(vb)) {
			d.value(fmt.Sprintf("%s[%d]", subPath, n), sub, item(va, n), item(vb, n))
		}
	}
	if len(d.changes) == told { // an empty message is more than none
		d.leaf(path, there[0], there[1])
	}
}

// members compares two Structs, member by member.
func (d *diff) members(path string, a, b *structpb.Struct) {
	names := maps.Clone(a.GetFields())
	if names == nil {
		names = make(map[string]*structpb.Value)
	}
	maps.Copy(names, b.GetFields())
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d.leaf(fmt.Sprintf("%s[%q]", path, name), asJSON(a.GetFields()[name]), asJSON(b.GetFields()[name]))
	}
}

// get returns the value of a field of m, not valid where it is unset or m is
// nil.
func get(m protoreflect.Message, f protoreflect.FieldDescriptor) protoreflect.Value {
	if m == nil || !m.Has(f) {
		return protoreflect.Value{}
	}
	return m.Get(f)
}

func length(list protoreflect.Value) int {
	if !list.IsValid() {
		return 0
	}
	return list.List().Len()
}

func item(list protoreflect.Value, i int) protoreflect.Value {
	if i >= length(list) {
		return protoreflect.Value{}
	}
	return list.List().Get(i)
}

// message returns the message that v holds; the zero M where v is not valid.
func message[M protoreflect.ProtoMessage](v protoreflect.Value) M {
	var none M
	if !v.IsValid() {
		return none
	}
	m, ok := v.Message().Interface().(M)
	if !ok {
		return none
	}
	return m
}

// text returns a value that has no fields of its own; "" where it is unset.
func text(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case !v.IsValid():
		return ""
	case f.Enum() != nil:
		if named := f.Enum().Values().ByNumber(v.Enum()); named != nil {
			return string(named.Name())
		}
	case f.Message() != nil:
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return m.AsTime().Format(time.RFC3339Nano)
		case *structpb.Value:
			return asJSON(m)
		}
	}
	return v.String()
}

// asJSON returns v as JSON; "" for nil.
func asJSON(v *structpb.Value) string {
	if v == nil {
		return ""
	}
	b, err := json.Marshal(v.AsInterface())
	if err != nil {
		return v.String() // a number that JSON has no form for
	}
	return string(b)
}

// cut returns as much of s as is told.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}
