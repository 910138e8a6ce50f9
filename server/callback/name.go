package callback

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
)

// longestName is the length in bytes up to which a name is looked at closely.
// What is longer is nobody's name.
const longestName = 512

// setName takes in the name of a member, body[start:end].
func (s *scanner) setName(start, end int) {
	f := s.top
	f.wantName = false
	s.name, s.nameEnd, s.nameFlags = start, end, 0
	name := s.body[start:end]
	switch {
	case s.lenient:
		s.nameFlags = oddName
	case maySpace(name), s.escapes && bytes.IndexByte(name, '\\') >= 0:
		name = s.trimName()
	}
	if s.nameFlags&oddName == 0 && len(name) != len("token") || !s.isToken(name) {
		f.secret = f.token
		if f.meet(s.body[s.name:s.nameEnd], s.nameFlags) {
			f.suspect = true
			s.nameFlags |= suspectName
		}
		return
	}
	f.secret = true
	if f.tokens++; f.tokens > 1 {
		s.note(DuplicateName)
	}
	if !f.envelope {
		s.note(NestedToken)
	}
}

// maySpace reports whether there may be white space around a name.
func maySpace(name []byte) bool {
	const lowest, highest = '!', '~'
	if len(name) == 0 {
		return false
	}
	first, last := name[0], name[len(name)-1]
	return first < lowest || first > highest || last < lowest || last > highest
}

// trimName returns the name of the current member without the white space
// around it, escaped or not. It leaves that out of the member's name unless it
// is too long, or odd even so.
func (s *scanner) trimName() []byte {
	name := s.body[s.name:s.nameEnd]
	start := blank(name)
	end := start
	for i := start; i < len(name); {
		r, n := character(name[i:])
		if i += n; !unicode.IsSpace(r) {
			end = i
		}
	}
	switch trimmed := name[start:end]; {
	case bytes.IndexByte(trimmed, '\\') >= 0:
		s.nameFlags = oddName
		return name
	case len(trimmed) < len(name) && len(name) <= longestName:
		s.name, s.nameEnd = s.name+start, s.name+end
		s.nameFlags = spacedName
	}
	return name[start:end]
}

// nameIs reports whether the current member has this name.
func (s *scanner) nameIs(name string) bool {
	if s.nameFlags&oddName == 0 {
		return string(s.body[s.name:s.nameEnd]) == name
	}
	ok, _ := means(s.body[s.name:s.nameEnd], name, false)
	return ok
}

// isToken reports whether name, the current member's without white space
// around it, is token, however it is written.
func (s *scanner) isToken(name []byte) bool {
	ok, spaced := bytes.EqualFold(name, []byte("token")), s.nameFlags&spacedName != 0
	if s.nameFlags&oddName != 0 {
		ok, spaced = means(name, "token", true)
	}
	if ok && spaced {
		s.note(TabInName)
	}
	return ok
}

// meet takes in a name of an object. It reports whether an earlier one may be
// the same: wrongly, rarely, but it misses none. Of odd names it knows nothing.
func (f *frame) meet(name []byte, flags nodeFlags) bool {
	if flags&oddName != 0 {
		return true
	}
	var h uint64
	if len(name) < 8 {
		for _, c := range name {
			h = h<<8 | uint64(c)
		}
	} else {
		h = binary.LittleEndian.Uint64(name) ^ binary.LittleEndian.Uint64(name[len(name)-8:])<<1
	}
	h = (h + uint64(len(name))) * 0x9e3779b97f4a7c15
	a, b := h>>54, h>>44&1023 // two of the 1024 bits of f.seen
	bitA, bitB := uint64(1)<<(a&63), uint64(1)<<(b&63)
	met := f.seen[a>>6]&bitA != 0 && f.seen[b>>6]&bitB != 0
	f.seen[a>>6] |= bitA
	f.seen[b>>6] |= bitB
	return met
}

// shadow marks the members of obj that a later one of the same name, white
// space around it aside, takes the place of. It reports whether there are any.
func (t *tape) shadow(obj int) (found bool) {
	const few = 4
	suspects := 0
	for v := t.first(obj); v < t.past(obj) && suspects <= few; v = t.next(v) {
		switch flags := t.nodes[v].flags; {
		case flags&oddName != 0:
			suspects = few + 1 // its name may be any earlier or later one's
		case flags&suspectName != 0:
			suspects++
		}
	}
	if suspects > few {
		return t.shadowAll(obj)
	}
	for v := t.first(obj); suspects > 0; v = t.next(v) {
		if t.nodes[v].flags&suspectName != 0 {
			found = t.shadowBefore(obj, v) || found
			suspects--
		}
	}
	return found
}

// shadowBefore marks the member of obj that v takes the place of. It reports
// whether there is one. No name in obj is odd.
func (t *tape) shadowBefore(obj, v int) bool {
	name := t.text[t.nodes[v].name:t.nodes[v].nameEnd]
	for m := t.first(obj); m < v; m = t.next(m) {
		n := &t.nodes[m]
		if int(n.nameEnd-n.name) == len(name) && n.flags&shadowed == 0 && t.text[n.name:n.nameEnd] == name {
			n.flags |= shadowed
			return true
		}
	}
	return false
}

// shadowAll is shadow for an object in which many names may be the same.
func (t *tape) shadowAll(obj int) (found bool) {
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
