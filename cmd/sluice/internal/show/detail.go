package show

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Detail writes every field of e that is set, one a line under its name in
// the schema, and the vendor's body last. Times are shown in zone.
func Detail(out io.Writer, e *sluicev1.Event, zone *time.Location) error {
	bare := proto.CloneOf(e)
	bare.Raw = nil
	return whole(out, bare, e.GetRaw(), zone)
}

// QuarantineDetail is Detail for an entry in quarantine.
func QuarantineDetail(out io.Writer, q *sluicev1.QuarantineEntry, zone *time.Location) error {
	bare := proto.CloneOf(q)
	bare.Raw = nil
	return whole(out, bare, q.GetRaw(), zone)
}

// whole writes the fields of m and then raw.
func whole(out io.Writer, m proto.Message, raw []byte, zone *time.Location) error {
	d := detail{zone: zone}
	d.message(m.ProtoReflect(), "")
	if raw != nil {
		d.text.WriteString("raw\n")
		d.field(indentStep, "", 0, pretty(raw))
	}
	_, err := io.WriteString(out, d.text.String())
	return err
}

// A detail writes the fields of messages, nested ones with a deeper indent.
type detail struct {
	text strings.Builder
	zone *time.Location
}

const indentStep = "  "

// message writes the fields of m that are set, in the order of the schema.
func (d *detail) message(m protoreflect.Message, indent string) {
	fields := m.Descriptor().Fields()
	width := 0 // of the longest name, so that the values stand in a column
	for i := range fields.Len() {
		if f := fields.Get(i); m.Has(f) {
			width = max(width, len(f.Name()))
		}
	}
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		if !f.IsList() {
			d.value(f, m.Get(f), string(f.Name()), width, indent)
			continue
		}
		list := m.Get(f).List()
		for n := range list.Len() {
			d.value(f, list.Get(n), string(f.Name()), width, indent)
		}
	}
}

// value writes one value of f.
func (d *detail) value(f protoreflect.FieldDescriptor, v protoreflect.Value, name string, width int, indent string) {
	if f.Message() == nil {
		d.field(indent, name, width, d.scalar(f, v))
		return
	}
	switch m := v.Message().Interface().(type) {
	case *timestamppb.Timestamp:
		d.field(indent, name, width, m.AsTime().In(d.zone).Format("2006-01-02 15:04:05.000 -07:00"))
	case *durationpb.Duration:
		d.field(indent, name, width, m.AsDuration().String())
	case *structpb.Struct, *structpb.Value:
		d.field(indent, name, width, pretty([]byte(asJSON(m))))
	default:
		d.text.WriteString(indent + name + "\n")
		d.message(v.Message(), indent+indentStep)
	}
}

func (d *detail) scalar(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.EnumKind:
		number := strconv.Itoa(int(v.Enum()))
		if f.Enum().Values().ByNumber(v.Enum()) == nil {
			return number
		}
		return number + " " + valueName(f.Enum(), v.Enum())
	case protoreflect.BytesKind:
		return base64.StdEncoding.EncodeToString(v.Bytes())
	default:
		return v.String()
	}
}

// field writes a name, where there is one, and its value, of which further
// lines stand under the first.
func (d *detail) field(indent, name string, width int, value string) {
	label := indent
	if name != "" {
		label += fmt.Sprintf("%-*s  ", width, name)
	}
	for line := range strings.SplitSeq(value, "\n") {
		d.text.WriteString(strings.TrimRight(label+Visible(line), " ") + "\n")
		label = strings.Repeat(" ", len(label))
	}
}

// pretty returns JSON with a member a line, and anything else as it is.
func pretty(b []byte) string {
	var indented bytes.Buffer
	if json.Indent(&indented, b, "", indentStep) != nil {
		return string(b)
	}
	return indented.String()
}

// enumName returns the name of e without what all names of its type begin with,
// in small letters; its number when it has no name.
func enumName(e protoreflect.Enum) string {
	return valueName(e.Descriptor(), e.Number())
}

func valueName(t protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v := t.Values().ByNumber(n)
	if v == nil {
		return strconv.Itoa(int(n))
	}
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), enumPrefix(t)))
}

// enumPrefix returns what the names of t's values begin with: "MESSAGE_TYPE_"
// for MessageType.
func enumPrefix(t protoreflect.EnumDescriptor) string {
	var b strings.Builder
	for i, r := range string(t.Name()) {
		if i > 0 && 'A' <= r && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String()) + "_"
}
