package callback

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
)

// seeds adds the corpus, and what is not in it, to f.
func seeds(f *testing.F, add func(body []byte)) {
	f.Helper()
	for _, body := range corpus(f) {
		add(body)
	}
	for _, body := range hostile(300) {
		add([]byte(body))
	}
	for _, s := range []string{"", "{", "[[", "{}x", "\xef\xbb\xbf{}", "\"\xff\"", `"\ud800"`, `{"a":1,"a":2}`, `{"tok\u0065n\t":"x"}`, `{"token":1.5e3}`} {
		add([]byte(s))
	}
}

// FuzzDecode: Decode is total and deterministic, its messages are valid, raw
// loses nothing but tokens, and decoding raw gives the same events again.
func FuzzDecode(f *testing.F) {
	seeds(f, func(body []byte) { f.Add(body) })
	f.Fuzz(func(t *testing.T, body []byte) {
		given := bytes.Clone(body)
		cb := Decode(body)
		if !bytes.Equal(given, body) {
			t.Fatal("Decode changed the body")
		}
		if again := Decode(body); !proto.Equal(cb, again) {
			t.Fatalf("Decode is not deterministic:\n%v\n%v", cb, again)
		}
		if _, err := proto.Marshal(cb); err != nil {
			t.Fatalf("the callback is not valid: %v", err)
		}
		printed(t, cb)
		if (cb.GetMalformed() == "") != (len(cb.GetEvents()) > 0) {
			t.Fatalf("malformed %q with %d events", cb.GetMalformed(), len(cb.GetEvents()))
		}
		if cb.GetMalformed() != "" && !slices.Contains(MalformedReasons(), cb.GetMalformed()) {
			t.Fatalf("unlisted reason %q", cb.GetMalformed())
		}
		for _, e := range cb.GetEvents() {
			if e.GetBody() == nil {
				t.Fatal("an event without a body")
			}
			if !slices.IsSorted(e.GetAnomalies()) || len(slices.Compact(slices.Clone(e.GetAnomalies()))) != len(e.GetAnomalies()) {
				t.Fatalf("anomalies %v are not a sorted set", e.GetAnomalies())
			}
			for _, a := range e.GetAnomalies() {
				if !slices.Contains(Anomalies(), a) {
					t.Fatalf("unlisted anomaly %s", a)
				}
			}
			if !bytes.Contains(cb.GetRaw(), e.GetRaw()) {
				t.Fatal("the raw of an event is not part of the callback's")
			}
		}

		// What is JSON, and what only but for its UTF-8, jsontext decides.
		text := jsontext.Value(bytes.TrimPrefix(body, byteOrderMark))
		if lenient := onlyLenient(body); cb.GetMalformed() == "" && lenient == text.IsValid(jsontext.AllowDuplicateNames(true)) {
			t.Fatalf("lenient = %t", lenient)
		}
		if valid := text.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); valid != (cb.GetMalformed() == "") && cb.GetMalformed() != TooDeep {
			t.Fatalf("malformed = %q", cb.GetMalformed())
		}

		// What a JSON body lost was in it, and only values of tokens were lost:
		// without tokens, nothing is.
		if !mayHoldToken(body) && !bytes.Equal(cb.GetRaw(), body) {
			t.Fatalf("raw = %q, want the body", cb.GetRaw())
		}
		second := Decode(cb.GetRaw())
		if cb.GetMalformed() != "" {
			return // a token cut out of what is not JSON can make it JSON
		}
		if len(second.GetTokens()) > 0 || !bytes.Equal(second.GetRaw(), cb.GetRaw()) {
			t.Fatalf("raw still holds tokens: %q", second.GetTokens())
		}
		for i, e := range second.GetEvents() {
			first := cb.GetEvents()[i]
			if slices.Contains(first.GetAnomalies(), ValueAsText) {
				return // the limits are the body's, which was longer
			}
			if len(first.GetAnomalies()) != len(e.GetAnomalies()) {
				first.Anomalies = slices.DeleteFunc(first.GetAnomalies(), func(a string) bool { return a == InvalidUTF8 }) // the token's
			}
			if !proto.Equal(e, first) {
				t.Fatalf("decoding raw again:\n%v\nbut first\n%v", e, first)
			}
		}
		if Canonical(body) != Canonical(cb.GetRaw()) {
			t.Fatal("the token counts in Canonical")
		}
	})
}

// onlyLenient reports whether body is JSON only but for its UTF-8.
func onlyLenient(body []byte) bool {
	s := newScanner()
	defer s.free()
	return s.read(body) == "" && s.lenient
}

// mayHoldToken reports whether body has the letters of token, escaped or not.
func mayHoldToken(body []byte) bool {
	for i := range body {
		if spells(body[i:], "token", true) > 0 {
			return true
		}
	}
	return false
}

// FuzzClassify: what a body is taken for depends neither on the order of its
// members nor on white space, and what the body of an event is, its dialect
// agrees with.
func FuzzClassify(f *testing.F) {
	seeds(f, func(body []byte) { f.Add(body) })
	f.Fuzz(func(t *testing.T, body []byte) {
		cb := Decode(body)
		if cb.GetMalformed() != "" {
			return
		}
		for _, e := range cb.GetEvents() {
			if message := kindOf(e, "body") == "message"; message != (e.GetDialect() != 0) {
				t.Fatalf("%s has dialect %v", kindOf(e, "body"), e.GetDialect())
			}
			if m := e.GetMessage(); m != nil && m.GetPayload() == nil && m.GetType() != 0 {
				t.Fatalf("type %v without a payload", m.GetType())
			}
			if slices.Contains(e.GetAnomalies(), DuplicateName) || slices.Contains(e.GetAnomalies(), ValueAsText) {
				return // then order does matter
			}
		}
		other := Decode(reversed(t, cb.GetRaw()))
		if len(other.GetEvents()) != len(cb.GetEvents()) {
			t.Fatalf("%d events, in another order %d", len(cb.GetEvents()), len(other.GetEvents()))
		}
		for i, e := range cb.GetEvents() {
			if a, b := kindOf(e, "body"), kindOf(other.GetEvents()[i], "body"); a != b || e.GetDialect() != other.GetEvents()[i].GetDialect() {
				t.Fatalf("%s %v, in another order %s %v", a, e.GetDialect(), b, other.GetEvents()[i].GetDialect())
			}
		}
	})
}

// FuzzRedact: whatever stands around a member named token, however its name
// and value are escaped, and wherever the body is cut off, nothing that Decode
// returns but tokens holds the value. Scrub takes it out of anywhere else.
func FuzzRedact(f *testing.F) {
	seeds(f, func(body []byte) { f.Add(body, "0a0a0a0a0a0a0a0a0a0a0a01", uint16(0xffff), uint16(3)) })
	f.Add([]byte(`{"data":{"messageId":"m","type":7}}`), `quote " backslash \`, uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, body []byte, secret string, escapes, cutAt uint16) {
		if len(secret) < minSecret || !utf8.ValidString(secret) || strings.ContainsRune(secret, utf8.RuneError) {
			return
		}
		if _, n := Scrub(body, secret), len(body); n > 1<<16 || spelt(body, secret) || mayHoldToken([]byte(secret)) {
			return
		}
		member := escapedString("token", escapes) + ":" + escapedString(secret, escapes>>4)
		for _, text := range []string{
			`{` + member + `,"x":` + string(body) + `}`,
			`{"data":{` + member + `},"x":` + string(body) + `}`,
			`{"x":[{"y":{` + member + `}}],"z":` + string(body) + `}`,
			`{` + member + `,` + member + `} ` + string(body),
		} {
			if cut := int(cutAt); cut > 0 && cut < len(member) {
				text = text[:len(text)-cut]
			}
			holdsNot(t, text, secret)
		}

		everywhere := `{` + escapedString(secret, escapes) + `:[` + escapedString("a"+secret+"b", escapes>>4) + `],"x":` + string(body) + `}`
		cb := Scrub([]byte(everywhere), secret)
		if inMessage(t, cb, secret) {
			t.Fatalf("Scrub(%q) = %v", everywhere, cb)
		}
	})
}

// holdsNot fails when what Decode makes of text, other than tokens, holds the
// secret, plain or escaped.
func holdsNot(t *testing.T, text, secret string) {
	t.Helper()
	cb := Decode([]byte(text))
	cb.Tokens = nil
	if spelt(cb.GetRaw(), secret) {
		t.Fatalf("raw of %q holds the secret: %q", text, cb.GetRaw())
	}
	if inMessage(t, cb, secret) {
		t.Fatalf("Decode(%q) holds the secret", text)
	}
}

// spelt reports whether text holds the secret, escaped or not.
func spelt(text []byte, secret string) bool {
	if bytes.Contains(text, []byte(secret)) {
		return true
	}
	for i := range text {
		if spells(text[i:], secret, false) > 0 {
			return true
		}
	}
	return false
}

// inMessage reports whether a string, a name or bytes in m hold the secret. In what
// m is encoded as, the end of one and the beginning of the next can spell it.
func inMessage(t *testing.T, m proto.Message, secret string) (found bool) {
	t.Helper()
	err := protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		last := p.Index(-1)
		if last.Step.Kind() == protopath.MapIndexStep {
			found = found || strings.Contains(last.Step.MapIndex().String(), secret)
		}
		switch v := last.Value.Interface().(type) {
		case string:
			found = found || strings.Contains(v, secret)
		case []byte:
			found = found || bytes.Contains(v, []byte(secret))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// escapedString returns s as a JSON string in which the characters that bits
// select, in turn, are written as escapes.
func escapedString(s string, bits uint16) string {
	const hex = "0123456789abcdef"
	b := []byte{'"'}
	for i, r := range s {
		if r < utf8.RuneSelf && (bits>>(i%16)&1 == 1 || r < ' ' || r == '"' || r == '\\') {
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return string(append(b, '"'))
}
