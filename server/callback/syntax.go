package callback

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// refusal returns "" when text is JSON, be it not UTF-8, or else why it is not.
func refusal(text []byte) (malformed string) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for done := false; ; done = dec.StackDepth() == 0 {
		_, err := dec.ReadToken()
		switch eof := errors.Is(err, io.EOF); {
		case eof && done:
			return ""
		case eof:
			return Empty
		case done:
			return TrailingData
		case err != nil:
			return Syntax
		case dec.StackDepth() > maxDepth:
			return TooDeep
		}
	}
}

// pastSpace returns where the white space ends that begins at text[pos].
func pastSpace(text []byte, pos int) int {
	for pos < len(text) && (text[pos] == ' ' || text[pos] == '\n' || text[pos] == '\r' || text[pos] == '\t') {
		pos++
	}
	return pos
}

// pastString returns where the string ends whose inside begins at text[pos],
// behind its quote. It is ok when it is JSON; where lenient is set, also when it
// is not UTF-8.
func pastString(text []byte, pos int, lenient bool) (end int, ok bool) {
	start, ascii := pos, true
	for {
		pos = pastPlain(text, pos)
		if pos == len(text) {
			return pos, false
		}
		switch c := text[pos]; {
		case c == '"':
			return pos + 1, ascii || lenient || utf8.Valid(text[start:pos])
		case c == '\\':
			r, n := character(text[pos:])
			if n == 1 || utf16.IsSurrogate(r) && !lenient {
				return pos, false
			}
			pos += n
		case c < ' ':
			return pos, false
		default:
			ascii = false
			for pos < len(text) && text[pos] >= utf8.RuneSelf {
				pos++
			}
		}
	}
}

// pastPlain returns where the first character from text[pos] on is that ends a
// string, or is not ASCII, or not itself in a string.
func pastPlain(text []byte, pos int) int {
	const each, high = 0x0101010101010101, 0x8080808080808080 // of eight bytes at once
	for ; pos+8 <= len(text); pos += 8 {
		x := binary.LittleEndian.Uint64(text[pos:])
		if other := (x | (x - ' '*each) | ((x ^ '"'*each) - each) | ((x ^ '\\'*each) - each)) & high; other != 0 {
			return pos + bits.TrailingZeros64(other)/8
		}
	}
	for pos < len(text) && text[pos] >= ' ' && text[pos] < utf8.RuneSelf && text[pos] != '"' && text[pos] != '\\' {
		pos++
	}
	return pos
}

// pastNumber returns where the number ends that begins at text[pos], and
// whether it is one.
func pastNumber(text []byte, pos int) (end int, ok bool) {
	if text[pos] == '-' {
		pos++
	}
	whole := pos
	pos = pastDigits(text, whole)
	if pos == whole || text[whole] == '0' && pos > whole+1 {
		return pos, false
	}
	if pos < len(text) && text[pos] == '.' {
		fraction := pos + 1
		if pos = pastDigits(text, fraction); pos == fraction {
			return pos, false
		}
	}
	if pos < len(text) && (text[pos] == 'e' || text[pos] == 'E') {
		pos++
		if pos < len(text) && (text[pos] == '+' || text[pos] == '-') {
			pos++
		}
		exponent := pos
		if pos = pastDigits(text, exponent); pos == exponent {
			return pos, false
		}
	}
	return pos, true
}

func pastDigits(text []byte, pos int) int {
	for pos < len(text) && '0' <= text[pos] && text[pos] <= '9' {
		pos++
	}
	return pos
}

// pastLiteral returns where the literal ends that begins at text[pos], and
// whether it is one.
func pastLiteral(text []byte, pos int) (end int, ok bool) {
	for _, literal := range []string{"true", "false", "null"} {
		if text[pos] == literal[0] {
			end = pos + len(literal)
			return end, end <= len(text) && string(text[pos:end]) == literal
		}
	}
	return pos, false
}
