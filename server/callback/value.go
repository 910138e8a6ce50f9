package callback

import (
	"errors"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A decoder makes events from a tape. One decoder serves all events of a body,
// one after the other.
//
// Its methods that take a destination set it to the value v, or leave it alone
// where v is unset: null or "". A value that they cannot use they put into
// unmapped, with an anomaly; so they do with another value than the destination
// has already, from another name of the field or from another place.
type decoder struct {
	*tape
	anomalies []string         // of the event being made; reused
	unmapped  *structpb.Struct // of the event being made
	root      int              // its value
	budget    int              // how many bytes may still be used for Structs
	path      []byte           // where paths are put together; reused
}

func (d *decoder) note(anomaly string) {
	if !slices.Contains(d.anomalies, anomaly) {
		d.anomalies = append(d.anomalies, anomaly)
	}
}

// members walks the members of the object v that no later one shadows, with
// their names.
func (d *decoder) members(v int) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for m := d.first(v); m < d.past(v); m = d.next(m) {
			name, spaced := d.name(m)
			if spaced {
				d.note(TabInName)
			}
			if d.nodes[m].flags&shadowed == 0 && !yield(name, m) {
				return
			}
		}
	}
}

// find returns the member of the object v with the given name; -1 when there
// is none.
func (d *decoder) find(v int, name string) int {
	for n, m := range d.members(v) {
		if n == name {
			return m
		}
	}
	return -1
}

// nest returns the name of a field written flat as "nest.field", for any of
// nests; "" for other names.
func (d *decoder) nest(name string, nests ...string) string {
	nest, field, found := strings.Cut(name, ".")
	if !found || !slices.Contains(nests, nest) {
		return ""
	}
	d.note(DottedName)
	return field
}

// unset reports whether v says nothing: it is null or "", or -1 for a member
// that is not there.
func (d *decoder) unset(v int) bool {
	if v < 0 {
		return true
	}
	n := &d.nodes[v]
	return n.kind == 'n' || n.kind == '"' && n.end-n.start == 2
}

// empty reports whether v is unset, {} or [].
func (d *decoder) empty(v int) bool {
	return d.unset(v) || (d.kind(v) == '{' || d.kind(v) == '[') && d.size(v) == 1 && d.nodes[v].flags&opaque == 0
}

// object reports whether v is an object with members that can be read.
func (d *decoder) object(v int) bool {
	switch {
	case d.unset(v):
		return false
	case d.kind(v) != '{':
		d.reject(v, WrongType)
		return false
	case d.nodes[v].flags&opaque != 0:
		d.keep(v)
	}
	return d.size(v) > 1
}

// items walks the items of the list v. A value that is no list is a list of
// one.
func (d *decoder) items(v int) iter.Seq[int] {
	return func(yield func(int) bool) {
		switch {
		case d.unset(v):
		case d.kind(v) != '[':
			d.note(ItemForList)
			yield(v)
		case d.nodes[v].flags&opaque != 0:
			d.keep(v)
		default:
			for i := d.first(v); i < d.past(v) && yield(i); i = d.next(i) {
			}
		}
	}
}

// text sets dst to a string that people read.
func (d *decoder) text(dst *string, v int) {
	var s string
	switch d.kind(v) {
	case '"':
		s = d.str(v)
	case '0':
		d.note(NumberForString)
		s = d.source(v)
	case 'n':
	default:
		d.reject(v, WrongType)
	}
	switch {
	case *dst == "":
		*dst = s
	case s != "" && s != *dst:
		d.reject(v, DuplicateName)
	}
}

// set sets dst, which tells zero from unset, to x, which v says.
func set[T comparable](d *decoder, dst **T, v int, x T) {
	switch {
	case *dst == nil:
		*dst = &x
	case **dst != x:
		d.reject(v, DuplicateName)
	}
}

// documented returns the member beside v that has its field's documented name,
// or v when there is none. To let that one win, whatever the order, a field
// under a name that nobody documents is set from it first.
func (d *decoder) documented(v int, name string) int {
	if m := d.find(int(d.nodes[v].parent), name); m >= 0 {
		return m
	}
	return v
}

// id sets dst to a string that programs compare.
func (d *decoder) id(dst *string, v int) {
	s := *dst
	d.text(&s, v)
	if d.escapes && strings.IndexByte(s, 0) >= 0 { // without escapes there are none
		d.reject(v, NULInID)
		return
	}
	*dst = s
}

// ids sets dst to a list of identifiers.
func (d *decoder) ids(dst *[]string, v int) { d.list(dst, v, (*decoder).id) }

// texts sets dst to a list of strings that people read.
func (d *decoder) texts(dst *[]string, v int) { d.list(dst, v, (*decoder).text) }

func (d *decoder) list(dst *[]string, v int, set func(d *decoder, dst *string, v int)) {
	var list []string
	if d.kind(v) == '[' {
		list = make([]string, 0, d.count(v))
	}
	for i := range d.items(v) {
		var s string
		if set(d, &s, i); s != "" {
			list = append(list, s)
		}
	}
	switch {
	case len(*dst) == 0:
		*dst = list
	case len(list) > 0 && !slices.Equal(list, *dst):
		d.reject(v, DuplicateName)
	}
}

func (d *decoder) boolean(dst **bool, v int) {
	var b, ok bool
	switch d.kind(v) {
	case 't', 'f':
		b, ok = d.kind(v) == 't', true
	case '0':
		if b, ok = parseBool(d.source(v)); ok {
			d.note(NumberForBool)
		}
	case '"':
		if b, ok = parseBool(d.short(v)); ok {
			d.note(StringForBool)
		}
	}
	switch {
	case ok:
		set(d, dst, v, b)
	case !d.unset(v):
		d.reject(v, WrongType)
	}
}

func parseBool(s string) (b, ok bool) {
	switch s = strings.TrimSpace(s); {
	case s == "1", strings.EqualFold(s, "true"):
		return true, true
	case s == "0", strings.EqualFold(s, "false"):
		return false, true
	}
	return false, false
}

// digits returns v as a decimal number, which may be in quotes. Nothing is
// known of what is in them.
func (d *decoder) digits(v int) string {
	switch d.kind(v) {
	case '0':
		return d.source(v)
	case '"':
		return strings.TrimSpace(d.short(v))
	}
	return ""
}

// short returns the string v, or some of it when it is too long for a number or
// a word.
func (d *decoder) short(v int) string {
	n := &d.nodes[v]
	if n.end-n.start > 2*maxDigits {
		return d.tape.text[n.start : n.start+1]
	}
	return d.str(v)
}

// notANumber is for a value that could not be read as the number its field
// holds.
func (d *decoder) notANumber(v int) {
	switch {
	case d.unset(v):
	case d.kind(v) == '0', numeric(d.digits(v)):
		d.reject(v, NumberOutOfRange)
	default:
		d.reject(v, WrongType)
	}
}

// maxDigits is the longest text that can be a number for us. No field holds
// more digits than 20, but fractions can be written at length.
const maxDigits = 400

// numeric reports whether s is a decimal number.
func numeric(s string) bool {
	if s == "" || len(s) > maxDigits || strings.Trim(s, "0123456789+-.eE") != "" {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil || errors.Is(err, strconv.ErrRange)
}

// integer returns v as a whole number that fits into bits.
func (d *decoder) integer(v, bits int) (n int64, ok bool) {
	if n, ok = parseInt(d.digits(v), bits); !ok {
		d.notANumber(v)
	}
	return n, ok
}

// parseInt returns the value of a decimal number that is whole, however it is
// written, and fits into bits.
func parseInt(digits string, bits int) (n int64, ok bool) {
	n, err := strconv.ParseInt(digits, 10, bits)
	if err == nil {
		return n, true
	}
	if !numeric(digits) {
		return 0, false
	}
	const exact = 1 << 53 // up to here floats hold every whole number
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > exact {
		return 0, false
	}
	n = int64(f)
	return n, bits == 64 || math.MinInt32 <= n && n <= math.MaxInt32
}

func (d *decoder) int64(dst **int64, v int) {
	if n, ok := d.integer(v, 64); ok {
		d.inQuotes(v)
		set(d, dst, v, n)
	}
}

func (d *decoder) int32(dst **int32, v int) {
	if n, ok := d.integer32(v); ok {
		set(d, dst, v, n)
	}
}

func (d *decoder) integer32(v int) (n int32, ok bool) {
	whole, ok := d.integer(v, 32)
	if ok {
		d.inQuotes(v)
	}
	return int32(whole), ok //nolint:gosec // integer saw to it
}

func (d *decoder) double(dst **float64, v int) {
	digits := d.digits(v)
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || !numeric(digits) {
		d.notANumber(v)
		return
	}
	d.inQuotes(v)
	set(d, dst, v, f)
}

// inQuotes notes a number that is written as a string.
func (d *decoder) inQuotes(v int) {
	if d.kind(v) == '"' {
		d.note(StringForNumber)
	}
}

// enum sets dst to one of the vendor's numbers, in names or not. Zero is unset.
func enum[E ~int32](d *decoder, dst *E, v int, names map[int32]string) {
	switch n, ok := enumerated[E](d, v, names); {
	case !ok:
	case *dst == 0:
		*dst = n
	case n != *dst:
		d.reject(v, DuplicateName)
	}
}

// optionalEnum is enum for a field that tells zero from unset.
func optionalEnum[E ~int32](d *decoder, dst **E, v int, names map[int32]string) {
	if n, ok := enumerated[E](d, v, names); ok {
		set(d, dst, v, n)
	}
}

// enumerated returns v as one of the vendor's numbers.
func enumerated[E ~int32](d *decoder, v int, names map[int32]string) (n E, ok bool) {
	whole, ok := d.integer32(v)
	if _, known := names[whole]; ok && !known {
		d.note(UnknownEnum)
	}
	return E(whole), ok
}

// The range of google.protobuf.Timestamp in milliseconds.
const (
	minMillis = -62135596800_000
	maxMillis = 253402300799_999
)

// time sets dst to a time in milliseconds. The vendor documents it as a string
// in one place and as a number in another: both are fine.
func (d *decoder) time(dst **timestamppb.Timestamp, v int) {
	ms, ok := d.integer(v, 64)
	if !ok {
		return
	}
	if ms < minMillis || ms > maxMillis {
		d.reject(v, NumberOutOfRange)
		return
	}
	seconds, rest := ms/1000, ms%1000
	if rest < 0 {
		seconds, rest = seconds-1, rest+1000
	}
	nanos := int32(rest) * 1e6
	switch t := *dst; {
	case t == nil:
		*dst = &timestamppb.Timestamp{Seconds: seconds, Nanos: nanos}
	case t.GetSeconds() != seconds || t.GetNanos() != nanos:
		d.reject(v, DuplicateName)
	}
}
