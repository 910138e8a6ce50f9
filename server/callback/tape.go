package callback

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A tape is a JSON text as a flat list of its values, in the order in which
// they begin. A value is named by its index; the text's own value is 0.
//
// The values of members named token are not on the tape, and not in its text:
// nothing that reads a tape can leak a credential.
type tape struct {
	text  string // what all spans are in: the body, with the tokens cut out
	raw   []byte // the same bytes
	nodes []node

	// lenient says that the text holds invalid UTF-8, so that no string can be
	// used as it stands.
	lenient bool

	// escapes says that the text holds a backslash, plain that neither it nor
	// lenient is so: every string means what it looks like.
	escapes, plain bool
}

// A node is one value.
type node struct {
	name, nameEnd uint32 // the member's name without its quotes; of an item: its index, and 0
	start, end    uint32 // the value, with its quotes or brackets
	next          uint32 // the first node that is not inside this one
	parent        uint32 // the object or array around it; its own index at the top
	kind          byte   // as kind returns it
	flags         nodeFlags
}

type nodeFlags uint8

const (
	oddName  nodeFlags = 1 << iota // the name has escapes or white space around it
	shadowed                       // a later member has the same name
	opaque                         // a container that was too wide: nothing inside it is on the tape
)

// kind returns what v is: one of the bytes n, f, t, ", 0, { and [.
func (t *tape) kind(v int) byte { return t.nodes[v].kind }

// size returns the number of values in v, itself included.
func (t *tape) size(v int) int { return int(t.nodes[v].next) - v }

// source returns v as it stands in the text.
func (t *tape) source(v int) string { return t.text[t.nodes[v].start:t.nodes[v].end] }

// item reports whether v is an item of an array rather than a member.
func (t *tape) item(v int) bool {
	p := int(t.nodes[v].parent)
	return p != v && t.nodes[p].kind == '['
}

// key returns the name of the member v as it is, but unescaped, and with U+FFFD
// for what is not UTF-8.
func (t *tape) key(v int) string {
	n := &t.nodes[v]
	if n.flags&oddName == 0 {
		return t.text[n.name:n.nameEnd]
	}
	return unescaped(t.raw[n.name:n.nameEnd], t.lenient)
}

// name returns the name of the member v as it is compared with others:
// unescaped and without white space around it. spaced says that there was some.
func (t *tape) name(v int) (name string, spaced bool) {
	n := &t.nodes[v]
	name = t.text[n.name:n.nameEnd]
	if n.flags&oddName == 0 {
		return name, false
	}
	const longest = 512 // longer ones, and those that are not UTF-8, are nobody's names
	if len(name) > longest || t.lenient && !utf8.ValidString(name) {
		return name, false
	}
	if strings.IndexByte(name, '\\') >= 0 {
		name = unescaped(t.raw[n.name:n.nameEnd], t.lenient)
	}
	trimmed := strings.TrimSpace(name)
	return trimmed, len(trimmed) < len(name)
}

// str returns the string v, unescaped, with U+FFFD for what is not UTF-8.
func (t *tape) str(v int) string {
	n := &t.nodes[v]
	s := t.text[n.start+1 : n.end-1]
	if t.plain || !t.lenient && strings.IndexByte(s, '\\') < 0 {
		return s
	}
	return unescaped(t.raw[n.start+1:n.end-1], t.lenient)
}

// first returns the first value in the container v; it is t.past(v) when
// there is none.
func (t *tape) first(v int) int { return v + 1 }

// next returns the value after v in the same container.
func (t *tape) next(v int) int { return int(t.nodes[v].next) }

// past returns the index at which a walk through the container v ends.
func (t *tape) past(v int) int { return int(t.nodes[v].next) }

// count returns how many values stand directly in the container v.
func (t *tape) count(v int) (n int) {
	for c := t.first(v); c < t.past(v); c = t.next(c) {
		n++
	}
	return n
}

// appendPath appends the path of v below root, for example
// "data.payload.subPayload.inviteeList[0].x".
func (t *tape) appendPath(b []byte, v, root int) []byte {
	if v == root {
		return b
	}
	n := &t.nodes[v]
	b = t.appendPath(b, int(n.parent), root)
	if t.item(v) {
		b = append(b, '[')
		b = strconv.AppendUint(b, uint64(n.name), 10)
		return append(b, ']')
	}
	if len(b) > 0 {
		b = append(b, '.')
	}
	name, _ := t.name(v)
	return append(b, valid(name)...)
}

// shadow marks the members of obj that a later one of the same name, white
// space around it aside, takes the place of. It reports whether there are any.
func (t *tape) shadow(obj int) (found bool) {
	type member struct {
		name string
		at   int
	}
	members := make([]member, 0, t.count(obj))
	for v := t.first(obj); v < t.past(obj); v = t.next(v) {
		name, _ := t.name(v)
		members = append(members, member{name, v})
	}
	slices.SortStableFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(members); i++ {
		if members[i-1].name == members[i].name {
			t.nodes[members[i-1].at].flags |= shadowed
			found = true
		}
	}
	return found
}
