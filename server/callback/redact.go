package callback

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// redactText is what redaction can do for text that is not JSON: it cuts out
// what follows the word token and a colon or equals sign, in quotes or not. It
// returns a copy of body without that, and what it cut, in the order found.
func redactText(body []byte) (raw []byte, tokens []string) {
	raw = make([]byte, 0, len(body))
	copied := 0
	var before rune
	for i := 0; i < len(body); {
		n := 0
		if c := body[i]; (c == 't' || c == 'T' || c == '\\') && !inWord(before) {
			n = spells(body[i:], "token", true)
		}
		if n == 0 {
			before, n = character(body[i:])
			i += n
			continue
		}
		i += n
		before = 'n'
		if next, _ := character(body[i:]); inWord(next) {
			continue
		}
		start, end := assigned(body, i)
		if start == end {
			continue
		}
		raw = append(raw, body[copied:start]...)
		tokens = addToken(tokens, unescaped(body[start:end], true))
		copied, i = end, end
	}
	return append(raw, body[copied:]...), tokens
}

// addToken adds a credential to those found in a body, unless it is there
// already, or they are too many for a body of the vendor's.
func addToken(tokens []string, token string) []string {
	const most = 16
	if len(tokens) == most || slices.Contains(tokens, token) {
		return tokens
	}
	return append(tokens, token)
}

// assigned returns where the value stands that a name ending at i is given:
// body[start:end], empty when there is none.
func assigned(body []byte, i int) (start, end int) {
	for i < len(body) { // the closing quote, and white space, escaped or not
		r, n := character(body[i:])
		if r != '"' && r != '\'' && r != '\\' && !unicode.IsSpace(r) {
			break
		}
		i += n
	}
	if i == len(body) || body[i] != ':' && body[i] != '=' {
		return i, i
	}
	for i++; i < len(body) && strings.IndexByte(" \t\r\n\\[", body[i]) >= 0; i++ {
	}
	if i == len(body) {
		return i, i
	}
	if quote := body[i]; quote == '"' || quote == '\'' {
		start = i + 1
		for end = start; end < len(body) && body[end] != quote; end++ {
			if body[end] == '\\' && end+1 < len(body) {
				if body[end+1] == quote && body[i-1] == '\\' {
					break // JSON inside a string: its quotes are escaped
				}
				end++
			}
		}
		return start, min(end, len(body))
	}
	n := bytes.IndexAny(body[i:], ",;&}])[{(<\"' \t\r\n")
	if n < 0 {
		n = len(body) - i
	}
	switch string(body[i : i+n]) {
	case "null", "true", "false":
		return i, i
	}
	return i, i + n
}

func inWord(c rune) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// minSecret is the length in bytes from which on Scrub takes a secret for one.
// Shorter ones would hit innocent text.
const minSecret = 8

// Scrub decodes raw again, as Decode does, with each of secrets cut out of the
// strings, the names and the numbers that it stands in, however it is escaped.
// A number that has a secret in it becomes "". Secrets of less than 8 bytes are
// passed over.
//
// It is for the credential that turns up where none belongs: events that had
// one have the anomaly NESTED_TOKEN. Redacting what is a token by its name is
// Decode's work already.
func Scrub(raw []byte, secrets ...string) *sluicev1.Callback {
	cb := Decode(raw)
	whole := cb
	for {
		clean := cb.GetRaw()
		for _, secret := range secrets {
			if len(secret) >= minSecret {
				clean = scrub(clean, secret, cb.GetMalformed() == "")
			}
		}
		if bytes.Equal(clean, cb.GetRaw()) {
			break
		}
		cb = Decode(clean) // and look again: what was around a secret can make another
	}
	same := len(cb.GetEvents()) == len(whole.GetEvents())
	for i, e := range cb.GetEvents() {
		if same && bytes.Equal(e.GetRaw(), whole.GetEvents()[i].GetRaw()) || slices.Contains(e.GetAnomalies(), NestedToken) {
			continue
		}
		e.Anomalies = append(e.GetAnomalies(), NestedToken)
		slices.Sort(e.GetAnomalies())
	}
	return cb
}

// scrub returns text without secret. When the text is JSON it stays JSON.
func scrub(text []byte, secret string, isJSON bool) []byte {
	var clean []byte
	copied := 0
	cut := func(start, end int, blank string) {
		clean = append(append(clean, text[copied:start]...), blank...)
		copied = end
	}
	inString := !isJSON // in text that is not JSON a secret can be anywhere
	for i := 0; i < len(text); {
		if isJSON && text[i] == '"' {
			inString = !inString
			i++
			continue
		}
		if !inString {
			n := max(1, len(text[i:])-len(bytes.TrimLeft(text[i:], "+-.0123456789eE")))
			if bytes.Contains(text[i:i+n], []byte(secret)) {
				cut(i, i+n, `""`)
			}
			i += n
			continue
		}
		if n := spells(text[i:], secret, false); n > 0 {
			cut(i, i+n, "")
			i += n
			continue
		}
		_, n := character(text[i:])
		i += n
	}
	if copied == 0 {
		return text
	}
	return append(clean, text[copied:]...)
}
