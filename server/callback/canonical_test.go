package callback

import (
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	same := [][]string{
		{`{"a":1,"b":[true,null]}`, ` { "b" : [ true , null ] , "a" : 1 } `, `{"\u0061":1,"b":[true,null]}`},
		{`{"a":"é/\n"}`, `{"a":"\u00e9\/\u000A"}`},
		{`{"a":1,"token":"x"}`, `{"token":"y","a":1}`, `{"a":1,"token":""}`, `{"a":1}`, `{"a":1,"Token\t":["x"]}`},
		{`{"data":{"a":1,"token":1}}`, `{"data":{"token":"2","a":1}}`},
		{`{"a":1,"a":2}`, `{"a":2}`},
		{"\xef\xbb\xbf{}", "{}"},
		{`{"x":`, `{"x":`},
		{`{"token":"a"`, `{"token":"b"`, `{"token":""`},
	}
	for i, group := range same {
		want := Canonical([]byte(group[0]))
		for _, s := range group[1:] {
			if Canonical([]byte(s)) != want {
				t.Errorf("Canonical(%s) differs from Canonical(%s)", s, group[0])
			}
		}
		for _, other := range same[:i] {
			if Canonical([]byte(other[0])) == want {
				t.Errorf("Canonical(%s) = Canonical(%s)", other[0], group[0])
			}
		}
	}
	different := []string{
		`{}`, `[]`, `""`, `null`, `true`, `false`, `0`, `"0"`, `[0]`, `[[0]]`, `[0,0]`, `["0"]`, `[0,[]]`, `[[],0]`, `{"a":{}}`, `{"a":[]}`, `{"":{}}`,
		`{"a":1}`, `{"a":"1"}`, `{"a":1.0}`, `{"a":null}`, `{"b":1}`, `{"a":1,"b":1}`, `["a",1]`, `{"a b":1}`, `{" a":1}`, `"a"`, `"ab"`, `["a","b"]`,
		"\"\xff\"", "\"\xfe\"", `"\ufffd"`, `"\ud800"`, `"\ud801"`, `{"x"`, `{"x" `, `x`, `nullx`, ``,
	}
	seen := map[[32]byte]string{}
	for _, s := range different {
		sum := Canonical([]byte(s))
		if other, ok := seen[sum]; ok {
			t.Errorf("Canonical(%q) = Canonical(%q)", s, other)
		}
		seen[sum] = s
	}
}

// TestCanonicalCorpus checks that order, white space and the token do not
// matter, for every body, and that different bodies are different.
func TestCanonicalCorpus(t *testing.T) {
	seen := map[[32]byte]string{}
	for name, body := range corpus(t) {
		sum := Canonical(body)
		if Canonical(Decode(body).GetRaw()) != sum {
			t.Errorf("%s: the token counts", name)
		}
		if !strings.Contains(name, "duplicate") && !strings.HasPrefix(name, "a09") && Canonical(reversed(t, body)) != sum {
			t.Errorf("%s: the order counts", name)
		}
		if other, ok := seen[sum]; ok && !strings.HasPrefix(name, "e07") && !strings.HasPrefix(other, "e07") {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[sum] = name
	}
}
