package callback

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// unescaped returns what the inside of a JSON string means. Where lenient is
// set, the text may hold bytes that are not UTF-8 and halves of surrogate pairs:
// U+FFFD stands for each.
func unescaped(text []byte, lenient bool) string {
	var b strings.Builder
	switch {
	case lenient:
		b.Grow(len(text) * len(string(utf8.RuneError)))
		for len(text) > 0 {
			r, n := character(text)
			if r == utf8.RuneError {
				b.WriteString("\ufffd") // what WriteRune does, sooner
			} else {
				b.WriteRune(r)
			}
			text = text[n:]
		}
		return b.String()
	case bytes.IndexByte(text, '\\') < 0:
		return string(text)
	}
	b.Grow(len(text))
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			b.Write(text)
			return b.String()
		}
		b.Write(text[:i])
		r, n := character(text[i:])
		b.WriteRune(r)
		text = text[i+n:]
	}
}

// valid returns text with U+FFFD for each byte that is not UTF-8.
func valid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) * len(string(utf8.RuneError)))
	for _, r := range text {
		b.WriteRune(r)
	}
	return b.String()
}

// means reports whether text, as the inside of a JSON string, means word, with
// white space around it or not. fold makes ASCII letters match in both cases.
func means(text []byte, word string, fold bool) (ok, spaced bool) {
	start := blank(text)
	n := spells(text[start:], word, fold)
	end := start + n
	rest := blank(text[end:])
	return n > 0 && end+rest == len(text), start+rest > 0
}

// blank returns how many bytes of text are white space, escaped or not.
func blank(text []byte) (n int) {
	for {
		r, size := character(text[n:])
		if size == 0 || !unicode.IsSpace(r) {
			return n
		}
		n += size
	}
}

// spells returns how many bytes of text, as the inside of a JSON string, spell
// word; 0 when it begins otherwise. fold makes ASCII letters match in both
// cases.
func spells(text []byte, word string, fold bool) (n int) {
	for _, want := range word {
		r, size := character(text[n:])
		if fold && 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		if size == 0 || r != want {
			return 0
		}
		n += size
	}
	return n
}

// character returns the first character of text, unescaped as in a JSON
// string, and how many bytes it takes; 0 at the end.
func character(text []byte) (r rune, size int) {
	switch {
	case len(text) == 0:
		return 0, 0
	case text[0] < utf8.RuneSelf && (text[0] != '\\' || len(text) == 1):
		return rune(text[0]), 1
	case text[0] != '\\':
		return utf8.DecodeRune(text)
	}
	switch text[1] {
	case '"', '\\', '/':
		return rune(text[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(text[2:])
		if !ok {
			break
		}
		if utf16.IsSurrogate(r) && len(text) >= 12 && text[6] == '\\' && text[7] == 'u' {
			if low, ok := hex4(text[8:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
				return utf16.DecodeRune(r, low), 12
			}
		}
		return r, 6
	}
	return '\\', 1
}

func hex4(text []byte) (r rune, ok bool) {
	if len(text) < 4 {
		return 0, false
	}
	for _, c := range text[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
