package callback

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxDepth = 64      // levels of objects and arrays in a body
	maxBody  = 1 << 30 // bytes; spans are 32 bits wide

	// A body of n bytes has at most minNodes + n/bytesPerNode values on its
	// tape, so that the tape is at most twice as large as the body. Bodies of
	// the vendor's have a value for 15 bytes or more.
	minNodes     = 128
	bytesPerNode = 14
)

var byteOrderMark = []byte("\xef\xbb\xbf")

// A scanner makes a tape of a body in one pass, and cuts the tokens out of it
// on the way.
type scanner struct {
	tape
	tokens    []string // the credentials, in the order found
	anomalies []string // of the text, not of one value

	dec   jsontext.Decoder
	src   bytes.Buffer // what dec reads: body, after a byte order mark
	body  []byte
	limit int // of len(nodes)

	copied int // body[:copied] is in raw, without the tokens
	cut    int // how much shorter raw is than body so far; can be negative

	stack [maxDepth + 1]frame // the open containers; the first stands for the body, a list of one value
	depth int                 // how many are open but that
	top   *frame              // the innermost, &stack[depth]
	muted int                 // depth from which on nothing is put on the tape; 0 = none

	// The name of the member whose value comes next: body[name:nameEnd].
	name, nameEnd int
	nameOdd       bool

	suspects []int // objects on the tape in which two names may be the same
}

// A frame is an object or array that the scan is in.
type frame struct {
	node     int  // its place on the tape, unless muted
	items    int  // how many values were seen in it
	array    bool // or else an object
	wantName bool // whether the next string is a name
	envelope bool // whether a token in it is the credential
	token    bool // whether it is the value of a token, or inside one
	secret   bool // whether the next value in it is
	tokens   int  // how many of its members are named token
	suspect  bool // whether two of its names may be the same
	seen     [16]uint64
	suspects int // how many suspects there were when it began
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// newScanner returns a scanner for one body. It must be given back by free,
// after which nothing of the scanner may be used but tokens, text and raw.
func newScanner() *scanner {
	s, _ := scanners.Get().(*scanner)
	return s
}

func (s *scanner) free() {
	const keep = 8 << 10 // tapes of the usual length
	if cap(s.nodes) > keep {
		return
	}
	s.body, s.text, s.raw, s.tokens, s.anomalies = nil, "", nil, nil, nil
	s.src = bytes.Buffer{}
	s.dec.Reset(&s.src)
	scanners.Put(s)
}

// begin prepares the scan of body.
func (s *scanner) begin(body []byte, lenient bool) {
	s.body, s.src = body, *bytes.NewBuffer(bytes.TrimPrefix(body, byteOrderMark))
	s.dec.Reset(&s.src, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(lenient))
	s.limit = minNodes + len(body)/bytesPerNode
	s.text, s.raw, s.nodes = "", nil, s.nodes[:0]
	s.lenient, s.escapes = lenient, bytes.IndexByte(body, '\\') >= 0
	s.plain = !s.lenient && !s.escapes
	s.tokens, s.anomalies, s.suspects = nil, nil, s.suspects[:0]
	s.copied, s.cut, s.depth, s.muted = 0, 0, 0, 0
	s.top = &s.stack[0]
	*s.top = frame{array: true}
}

// read scans body, which it does not keep. It returns "" or why body is not
// JSON, in which case the scanner is of no further use.
func (s *scanner) read(body []byte) (malformed string) {
	if len(body) > maxBody {
		return TooLarge
	}
	malformed = s.scan(body, false)
	if malformed == Syntax {
		// It may be fine but for its UTF-8. Only what is rare is read twice.
		malformed = s.scan(body, true)
		s.note(InvalidUTF8)
	}
	if malformed != "" {
		return malformed
	}
	s.raw = append(s.raw, body[s.copied:]...)
	s.text = string(s.raw)
	for _, v := range s.suspects {
		if s.shadow(v) {
			s.note(DuplicateName)
		}
	}
	return ""
}

func (s *scanner) note(anomaly string) {
	if !slices.Contains(s.anomalies, anomaly) {
		s.anomalies = append(s.anomalies, anomaly)
	}
}

func (s *scanner) scan(body []byte, lenient bool) (malformed string) {
	s.begin(body, lenient)
	base := len(body) - s.src.Len()
	if base > 0 {
		s.note(BOM)
	}
	for pos := base; ; {
		if _, err := s.dec.ReadToken(); err != nil {
			return s.ended(err)
		}
		if s.depth == 0 && s.stack[0].items > 0 {
			return TrailingData
		}
		end := base + int(s.dec.InputOffset())
		for isBetween(body[pos]) {
			pos++
		}
		switch kind := body[pos]; kind {
		case '{', '[':
			if s.depth == maxDepth {
				return TooDeep
			}
			s.open(kind, pos)
		case '}', ']':
			s.close(end)
		case '"':
			if s.top.wantName {
				s.setName(pos+1, end-1)
			} else {
				s.scalar('"', pos, end)
			}
		case 'n', 't', 'f':
			s.scalar(kind, pos, end)
		default:
			s.scalar('0', pos, end)
		}
		pos = end
	}
}

// ended returns "" when err is the regular end of a body, or else why the body
// is not JSON.
func (s *scanner) ended(err error) (malformed string) {
	switch eof, done := errors.Is(err, io.EOF), s.depth == 0 && s.stack[0].items > 0; {
	case eof && done:
		return ""
	case eof:
		return Empty
	case done:
		return TrailingData
	}
	return Syntax
}

// isBetween reports whether c can stand between two tokens.
func isBetween(c byte) bool {
	const set = 1<<' ' | 1<<'\t' | 1<<'\n' | 1<<'\r' | 1<<',' | 1<<':'
	return c < 64 && set>>c&1 != 0
}

// setName takes in the name of a member, body[start:end].
func (s *scanner) setName(start, end int) {
	f := s.top
	f.wantName = false
	name := s.body[start:end]
	s.name, s.nameEnd = start, end
	s.nameOdd = s.lenient || isOdd(name) || s.escapes && bytes.IndexByte(name, '\\') >= 0
	if !s.nameOdd && len(name) != len("token") || !s.isToken() {
		f.secret = f.token
		f.meet(name, s.nameOdd)
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

// isOdd reports whether there may be white space around a name.
func isOdd(name []byte) bool {
	const lowest, highest = '!', '~'
	if len(name) == 0 {
		return false
	}
	first, last := name[0], name[len(name)-1]
	return first < lowest || first > highest || last < lowest || last > highest
}

// nameIs reports whether the current member has this name.
func (s *scanner) nameIs(name string) bool {
	if !s.nameOdd {
		return string(s.body[s.name:s.nameEnd]) == name
	}
	ok, _ := means(s.body[s.name:s.nameEnd], name, false)
	return ok
}

// isToken reports whether the current member's name is token, however it is
// written.
func (s *scanner) isToken() bool {
	ok, spaced := means(s.body[s.name:s.nameEnd], "token", true)
	if ok && spaced {
		s.note(TabInName)
	}
	return ok
}

// meet takes in a name of an object, to find out whether two may be the same.
// It may suspect wrongly, rarely, but it misses none.
func (f *frame) meet(name []byte, odd bool) {
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
	if odd || f.seen[a>>6]&bitA != 0 && f.seen[b>>6]&bitB != 0 {
		f.suspect = true
	}
	f.seen[a>>6] |= bitA
	f.seen[b>>6] |= bitB
}

// scalar takes in a string, number, boolean or null.
func (s *scanner) scalar(kind byte, start, end int) {
	f := s.top
	if f.secret {
		s.redact(kind, start, end)
	} else if v := s.record(f, kind, start); v >= 0 {
		s.nodes[v].end = offset(end - s.cut)
	}
	f.valueDone()
}

// open takes in the beginning of an object or array.
func (s *scanner) open(kind byte, start int) {
	around, node := s.top, -1
	if !around.secret {
		node = s.record(around, kind, start)
	}
	s.depth++
	if around.secret && s.muted == 0 {
		s.muted = s.depth
	}
	if around.secret {
		s.note(NestedToken)
	}
	f := &s.stack[s.depth]
	s.top = f
	f.node, f.items, f.tokens = node, 0, 0
	f.array, f.wantName = kind == '[', kind == '{'
	f.token, f.secret = around.secret, around.secret
	f.envelope = s.depth == 1 || s.depth == 2 && (around.array || s.nameIs("data") || s.nameIs("message"))
	f.suspect, f.suspects = false, len(s.suspects)
	if !f.array {
		f.seen = [16]uint64{}
	}
}

// close takes in the end of the innermost object or array.
func (s *scanner) close(end int) {
	f := s.top
	if s.muted == s.depth {
		s.muted = 0
		f.suspect = false
	}
	if s.muted == 0 && f.node >= 0 {
		s.nodes[f.node].end = offset(end - s.cut)
		s.nodes[f.node].next = offset(len(s.nodes))
		if f.suspect {
			s.suspects = append(s.suspects, f.node)
		}
	}
	s.depth--
	s.top = &s.stack[s.depth]
	s.top.valueDone()
}

// valueDone ends a value in f.
func (f *frame) valueDone() {
	f.items++
	f.wantName = !f.array
}

// record puts a value in f on the tape and returns its index; -1 when it does
// not belong there.
func (s *scanner) record(f *frame, kind byte, start int) int {
	if s.muted > 0 {
		return -1
	}
	v := len(s.nodes)
	if v == s.limit {
		// Too wide: the container stays, what is in it goes.
		s.nodes, s.suspects = s.nodes[:f.node+1], s.suspects[:f.suspects]
		s.nodes[f.node].flags |= opaque
		s.muted = s.depth
		return -1
	}
	if v == cap(s.nodes) {
		s.grow()
	}
	s.nodes = s.nodes[:v+1]
	n := &s.nodes[v]
	*n = node{start: offset(start - s.cut), next: offset(v + 1), parent: offset(f.node), kind: kind}
	if f.array {
		n.name = offset(f.items)
		return v
	}
	n.name, n.nameEnd = offset(s.name-s.cut), offset(s.nameEnd-s.cut)
	if s.nameOdd {
		n.flags = oddName
	}
	return v
}

// offset returns i, which counts something in a body, as nodes have it.
func offset(i int) uint32 { return uint32(i) } //nolint:gosec // bodies are shorter: maxBody

// grow makes room on the tape: for what bodies usually need, then for all they
// can have.
func (s *scanner) grow() {
	want := s.limit
	if len(s.nodes) < minNodes {
		want = minNodes
	}
	s.nodes = append(make([]node, 0, want), s.nodes...)
}

// redact cuts the value of a token out. The text stays JSON.
func (s *scanner) redact(kind byte, start, end int) {
	var token, blank string
	switch kind {
	case '"':
		start, end = start+1, end-1
		token = unescaped(s.body[start:end], s.lenient)
	case '0':
		token, blank = string(s.body[start:end]), `""`
	}
	if token == "" {
		return
	}
	if s.raw == nil {
		s.raw = make([]byte, 0, len(s.body)+len(blank))
	}
	s.raw = append(append(s.raw, s.body[s.copied:start]...), blank...)
	s.copied = end
	s.cut += end - start - len(blank)

	if f := s.top; f.envelope && !f.token {
		s.tokens = addToken(s.tokens, token)
	}
}
