package callback

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"unsafe"
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

// A scanner makes a tape of a body in one pass, in which it also sees whether
// the body is JSON, and cuts the tokens out of it.
type scanner struct {
	tape
	tokens    []string // the credentials, in the order found
	anomalies []string // of the text, not of one value

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
	nameFlags     nodeFlags

	suspects []int // objects on the tape in which two names may be the same

	dec decoder // of what is on the tape
}

// A frame is an object or array that the scan is in.
type frame struct {
	node     int  // its place on the tape, unless muted
	items    int  // how many values were seen in it
	array    bool // or else an object
	end      byte // the bracket that ends it; a space, which the scan never looks at, for the body
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
// after which nothing of the scanner or its decoder may be used but text and
// raw.
func newScanner() *scanner {
	s, _ := scanners.Get().(*scanner)
	return s
}

func (s *scanner) free() {
	const keep = 8 << 10 // tapes of the usual length
	if cap(s.nodes) > keep {
		return
	}
	s.body, s.text, s.raw = nil, "", nil
	clear(s.tokens[:cap(s.tokens)])
	s.dec = decoder{anomalies: s.dec.anomalies, path: s.dec.path}
	scanners.Put(s)
}

// read scans body, which it does not keep. It returns "" or why body is not
// JSON, in which case the scanner is of no further use.
func (s *scanner) read(body []byte) (malformed string) {
	if len(body) > maxBody {
		return TooLarge
	}
	// It may be fine but for its UTF-8: only what is rare is read twice.
	if !s.scan(body, false) && !s.scan(body, true) {
		// What is wrong is for jsontext to say.
		return cmp.Or(refusal(bytes.TrimPrefix(body, byteOrderMark)), Syntax)
	}
	s.raw = append(s.raw, body[s.copied:]...)
	s.text = unsafe.String(unsafe.SliceData(s.raw), len(s.raw)) //nolint:gosec // raw is not changed any more, see Decode
	for _, v := range s.suspects {
		if s.shadow(v) {
			s.note(DuplicateName)
		}
	}
	return ""
}

// decoder returns the decoder of what was read.
func (s *scanner) decoder() *decoder {
	s.dec.tape, s.dec.budget = &s.tape, minStructBytes+len(s.raw)*structBytesPerByte
	return &s.dec
}

// begin prepares the scan of body.
func (s *scanner) begin(body []byte, lenient bool) {
	s.body = body
	s.limit = minNodes + len(body)/bytesPerNode
	s.text, s.raw, s.nodes = "", nil, s.nodes[:0]
	s.lenient, s.escapes = lenient, bytes.IndexByte(body, '\\') >= 0
	s.plain = !s.lenient && !s.escapes
	s.tokens, s.anomalies, s.suspects = s.tokens[:0], s.anomalies[:0], s.suspects[:0]
	s.copied, s.cut, s.depth, s.muted = 0, 0, 0, 0
	s.top = &s.stack[0]
	*s.top = frame{array: true, end: ' '}
}

func (s *scanner) note(anomaly string) {
	if !slices.Contains(s.anomalies, anomaly) {
		s.anomalies = append(s.anomalies, anomaly)
	}
}

// scan goes through body and reports whether it is JSON as we accept it. Where
// lenient is set, strings may hold what is not UTF-8.
func (s *scanner) scan(body []byte, lenient bool) bool {
	s.begin(body, lenient)
	pos := len(body) - len(bytes.TrimPrefix(body, byteOrderMark))
	if pos > 0 {
		s.note(BOM)
	}
	if lenient {
		s.note(InvalidUTF8)
	}
	for {
		// Here a value begins, or a member, or nothing comes in a container.
		pos = pastSpace(body, pos)
		if pos == len(body) {
			return false
		}
		var ok bool
		f, start, kind := s.top, pos, body[pos]
		switch {
		case kind == '"':
			if pos, ok = pastString(body, pos+1, lenient); !ok {
				return false
			}
			if f.wantName {
				s.setName(start+1, pos-1)
				if pos = pastSpace(body, pos); pos == len(body) || body[pos] != ':' {
					return false
				}
				pos++
				continue
			}
			s.scalar(kind, start, pos)
		case f.items == 0 && kind == f.end && (f.array || f.wantName):
			pos++
			s.close(pos)
		case f.wantName:
			return false
		case kind == '{', kind == '[':
			if s.depth == maxDepth {
				return false
			}
			pos++
			s.open(kind, start)
			continue
		case kind < 'a':
			if pos, ok = pastNumber(body, pos); !ok {
				return false
			}
			s.scalar('0', start, pos)
		default:
			if pos, ok = pastLiteral(body, pos); !ok {
				return false
			}
			s.scalar(kind, start, pos)
		}
		// Here a value has ended, and what it is in may end, too.
		for more := false; !more; {
			pos = pastSpace(body, pos)
			switch {
			case pos == len(body):
				return s.depth == 0
			case s.depth > 0 && body[pos] == ',':
				more = true
			case body[pos] != s.top.end:
				return false
			default:
				s.close(pos + 1)
			}
			pos++
		}
	}
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
	f.array, f.wantName, f.end = kind == '[', kind == '{', kind+('}'-'{')
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
	n.name, n.nameEnd, n.flags = offset(s.name-s.cut), offset(s.nameEnd-s.cut), s.nameFlags
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
