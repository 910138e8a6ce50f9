package callback

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Canonical returns a hash of what raw says: it does not change with the order
// of members, with white space between values, with how strings are escaped,
// nor with tokens, which count for nothing. Of two members with one name only
// the last counts. Numbers count as they are written.
//
// Text that is not JSON is hashed as it stands. So is the inside of an object
// or array that is wider than Decode looks into. Canonical is deterministic and
// safe for concurrent use.
func Canonical(raw []byte) [sha256.Size]byte {
	s := newScanner()
	defer s.free()
	if s.read(raw) != "" {
		text, _ := redactText(raw)
		return sha256.Sum256(append(text, 'x')) // no value ends in x
	}
	buf, _ := canonicalBuffers.Get().(*[]byte)
	*buf = s.canonical((*buf)[:0], 0)
	sum := sha256.Sum256(*buf)
	if cap(*buf) <= 64<<10 {
		canonicalBuffers.Put(buf)
	}
	return sum
}

var canonicalBuffers = sync.Pool{New: func() any { return new([]byte) }}

// canonical appends v in a form that each value has only one of: its kind, its
// content behind its length, or its parts behind their number.
func (t *tape) canonical(b []byte, v int) []byte {
	kind := t.kind(v)
	switch {
	case t.nodes[v].flags&opaque != 0:
		return appendSized(append(b, '?'), t.source(v))
	case kind == '"':
		return t.canonicalString(b, t.nodes[v].start+1, t.nodes[v].end-1)
	case kind == '0':
		return appendSized(append(b, kind), t.source(v))
	case kind == '[':
		b = appendSize(append(b, kind), t.count(v))
		for i := t.first(v); i < t.past(v); i = t.next(i) {
			b = t.canonical(b, i)
		}
		return b
	case kind == '{':
		members := make([]int, 0, t.count(v))
		for m := t.first(v); m < t.past(v); m = t.next(m) {
			if t.nodes[m].flags&shadowed == 0 {
				members = append(members, m)
			}
		}
		slices.SortFunc(members, func(a, b int) int { return strings.Compare(t.key(a), t.key(b)) })
		b = appendSize(append(b, kind), len(members))
		for _, m := range members {
			start, end := t.quotedName(m)
			b = t.canonical(t.canonicalString(b, start, end), m)
		}
		return b
	}
	return append(b, kind) // null, true, false
}

// canonicalString appends the string inside the quotes at text[start:end]. One
// that has U+FFFD in it is appended as it stands: that can be in place of
// anything.
func (t *tape) canonicalString(b []byte, start, end uint32) []byte {
	text := t.text[start:end]
	meant := text
	if t.lenient || t.escapes && strings.IndexByte(text, '\\') >= 0 {
		meant = unescaped(t.raw[start:end], t.lenient)
	}
	if strings.Contains(meant, string(utf8.RuneError)) {
		return appendSized(append(b, '!'), text)
	}
	return appendSized(append(b, '"'), meant)
}

func appendSized(b []byte, s string) []byte { return append(appendSize(b, len(s)), s...) }

func appendSize(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) } //nolint:gosec // never negative
