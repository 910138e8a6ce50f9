package callback

import (
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
	name, nameEnd uint32 // the member's name without its quotes and the space around it; of an item: its index, and 0
	start, end    uint32 // the value, with its quotes or brackets
	next          uint32 // the first node that is not inside this one
	parent        uint32 // the object or array around it; its own index at the top
	kind          byte   // as kind returns it
	flags         nodeFlags
}

type nodeFlags uint8

const (
	oddName     nodeFlags = 1 << iota // the name has escapes, or may not be UTF-8
	spacedName                        // the name has white space around it
	suspectName                       // an earlier member may have the same name
	shadowed                          // a later member has the same name
	opaque                            // a container that was too wide: nothing inside it is on the tape
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

// quotedName returns where all that is between the quotes of the name of the
// member v stands in the text.
func (t *tape) quotedName(v int) (start, end uint32) {
	n := &t.nodes[v]
	if n.flags&spacedName == 0 {
		return n.name, n.nameEnd
	}
	before, after := t.text[:n.name], t.text[n.nameEnd:]
	return offset(strings.LastIndexByte(before, '"') + 1), n.nameEnd + offset(strings.IndexByte(after, '"'))
}

// key returns the name of the member v as it is, but unescaped, and with U+FFFD
// for what is not UTF-8.
func (t *tape) key(v int) string {
	start, end := t.quotedName(v)
	if t.nodes[v].flags&(oddName|spacedName) == 0 {
		return t.text[start:end]
	}
	return unescaped(t.raw[start:end], t.lenient)
}

// name returns the name of the member v as it is compared with others:
// unescaped and without white space around it. spaced says that there was some.
func (t *tape) name(v int) (name string, spaced bool) {
	n := &t.nodes[v]
	name = t.text[n.name:n.nameEnd]
	if n.flags&oddName == 0 {
		return name, n.flags&spacedName != 0
	}
	if len(name) > longestName || t.lenient && !utf8.ValidString(name) {
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
