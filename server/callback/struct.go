package callback

import (
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// maxStructDepth is how deep a Struct nests; what is deeper is text.
	maxStructDepth = 16

	// For a body of n bytes, at most minStructBytes + n*structBytesPerByte are
	// spent on Structs.
	minStructBytes     = 16 << 10
	structBytesPerByte = 4

	// What a Struct is made of, in bytes, roughly.
	valueBytes  = 136 // a value in its list or map
	objectBytes = 320 // an object, besides
	listBytes   = 80  // a list, besides
	entryBytes  = 200 // an entry of unmapped, besides; longer names come on top
)

// afford takes bytes from the budget, and reports whether they were there.
func (d *decoder) afford(bytes int) bool {
	if bytes > d.budget {
		return false
	}
	d.budget -= bytes
	return true
}

// cost returns what v costs as a Value.
func (d *decoder) cost(v int) (bytes int) {
	for i := v; i < d.next(v); i++ {
		bytes += valueBytes
		switch d.kind(i) {
		case '{':
			bytes += objectBytes
		case '[':
			bytes += listBytes
		}
	}
	return bytes
}

// reject puts a value that its field cannot hold into unmapped.
func (d *decoder) reject(v int, anomaly string) {
	d.note(anomaly)
	d.keep(v)
}

// unknown puts the value of a field that no mapping knows into unmapped.
func (d *decoder) unknown(v int) {
	if !d.unset(v) {
		d.reject(v, UnknownField)
	}
}

// keep puts a value into unmapped, under its path.
func (d *decoder) keep(v int) {
	if d.unset(v) {
		return
	}
	name := 0
	if n := &d.nodes[v]; !d.item(v) {
		name = 4 * int(n.nameEnd-n.name) // it is copied, unescaped and joined
		if d.lenient {
			name *= 3
		}
	}
	if !d.afford(entryBytes + name) {
		d.note(UnmappedTruncated)
		return
	}
	if d.unmapped == nil {
		d.unmapped = &structpb.Struct{Fields: map[string]*structpb.Value{}}
	}
	d.path = d.appendPath(d.path[:0], v, d.root)
	d.unmapped.Fields[string(d.path)] = d.value(v, 1)
}

// structOf returns the object v as it came; nil when it is unset or cannot be
// a Struct.
func (d *decoder) structOf(v int) *structpb.Struct {
	switch {
	case d.unset(v):
		return nil
	case d.kind(v) != '{':
		d.reject(v, WrongType)
		return nil
	case d.nodes[v].flags&opaque != 0, !d.afford(d.cost(v)):
		d.keep(v)
		return nil
	}
	return d.convertObject(v, 1)
}

// setStruct sets dst to the object v as it came.
func (d *decoder) setStruct(dst **structpb.Struct, v int) {
	switch s := d.structOf(v); {
	case *dst == nil:
		*dst = s
	case s != nil && !proto.Equal(s, *dst):
		d.reject(v, DuplicateName)
	}
}

// value returns v as it came, but for numbers of which a double loses something
// and for containers that are too deep or too wide: they become strings. depth is
// v's own in its Struct, from 1.
func (d *decoder) value(v, depth int) *structpb.Value {
	if (d.kind(v) == '{' || d.kind(v) == '[') && !d.afford(d.cost(v)) {
		return d.asText(v)
	}
	return d.convert(v, depth)
}

// convert is value for what was paid for.
func (d *decoder) convert(v, depth int) *structpb.Value {
	switch d.kind(v) {
	case 'n':
		return structpb.NewNullValue()
	case 't', 'f':
		return structpb.NewBoolValue(d.kind(v) == 't')
	case '"':
		return stringValue(d.str(v))
	case '0':
		if f, ok := exact(d.source(v)); ok {
			return numberValue(f)
		}
		return stringValue(d.source(v))
	}
	switch {
	case d.nodes[v].flags&opaque != 0, depth > maxStructDepth:
		return d.asText(v)
	case d.kind(v) == '{':
		return structpb.NewStructValue(d.convertObject(v, depth))
	}
	list := &structpb.ListValue{Values: make([]*structpb.Value, 0, d.count(v))}
	for i := d.first(v); i < d.past(v); i = d.next(i) {
		list.Values = append(list.Values, d.convert(i, depth+1))
	}
	return structpb.NewListValue(list)
}

// stringValue returns s as a Value, for which it allocates once.
func stringValue(s string) *structpb.Value {
	var one struct {
		value structpb.Value
		kind  structpb.Value_StringValue
	}
	one.kind.StringValue = s
	one.value.Kind = &one.kind
	return &one.value
}

// numberValue is stringValue for a number.
func numberValue(f float64) *structpb.Value {
	var one struct {
		value structpb.Value
		kind  structpb.Value_NumberValue
	}
	one.kind.NumberValue = f
	one.value.Kind = &one.kind
	return &one.value
}

func (d *decoder) convertObject(v, depth int) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, d.count(v))}
	for m := d.first(v); m < d.past(v); m = d.next(m) {
		if d.nodes[m].flags&shadowed == 0 {
			s.Fields[d.key(m)] = d.convert(m, depth+1)
		}
	}
	return s
}

// asText returns the container v as a string of its JSON text.
func (d *decoder) asText(v int) *structpb.Value {
	d.note(ValueAsText)
	return stringValue(valid(d.source(v)))
}

// exact returns a number as a double, and whether nothing is lost: that prints
// as the same number again and, if it is whole, is that number.
func exact(digits string) (f float64, ok bool) {
	const longest = 40 // a double needs 24 at most; zeros can make it longer
	if len(digits) > longest {
		return 0, false
	}
	const safe = 15 // so many digits every double can hold
	if n, err := strconv.ParseUint(digits, 10, 64); err == nil && len(digits) <= safe {
		return float64(n), true
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, false
	}
	same := func(format byte, precision int) bool {
		var buf [32]byte
		m1, e1 := decimal(digits)
		m2, e2 := decimal(string(strconv.AppendFloat(buf[:0], f, format, precision, 64)))
		return m1 == m2 && e1 == e2
	}
	return f, same('e', -1) && (f != math.Trunc(f) || same('f', 0))
}

// decimal splits a JSON number into the digits that matter and the power of
// ten to multiply them with as if they were 0.digits. Zero is "" and 0.
func decimal(s string) (digits string, exponent int) {
	s = strings.TrimPrefix(s, "-")
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		exponent, _ = strconv.Atoi(s[i+1:])
		s = s[:i]
	}
	whole, fraction, _ := strings.Cut(s, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "", 0
	}
	exponent += len(whole) - (len(whole) + len(fraction) - len(digits))
	return strings.TrimRight(digits, "0"), exponent
}
