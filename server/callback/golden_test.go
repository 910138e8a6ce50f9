package callback

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var update = flag.Bool("update", false, "write the golden files; review the difference")

// TestGolden compares what the corpus becomes with testdata/golden, which was
// reviewed by hand. The bytes of raw are TestRaw's.
func TestGolden(t *testing.T) {
	for name, body := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			got := printed(t, Decode(body))
			path := filepath.Join("testdata", "golden", name)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("Decode(%s) differs from %s:\n%s", name, path, got)
			}
		})
	}
}

// corpus returns the bodies of testdata/corpus by file name.
func corpus(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "corpus", "*.json"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no corpus: %v", err)
	}
	bodies := make(map[string][]byte, len(files))
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		bodies[filepath.Base(f)] = body
	}
	return bodies
}

// printed returns cb without raw as JSON that is the same for the same cb.
func printed(tb testing.TB, cb *sluicev1.Callback) []byte {
	tb.Helper()
	cb = proto.CloneOf(cb)
	cb.Raw = nil
	for _, e := range cb.GetEvents() {
		e.Raw = nil
	}
	text, err := protojson.Marshal(cb)
	if err != nil {
		tb.Fatalf("the callback is no valid message: %v", err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		tb.Fatal(err)
	}
	return []byte(strings.TrimSpace(b.String()) + "\n")
}

// reversed returns body with the members of each object in reverse order, and
// without white space.
func reversed(tb testing.TB, body []byte) []byte {
	tb.Helper()
	s := newScanner()
	defer s.free()
	if reason := s.read(body); reason != "" {
		tb.Fatalf("reversed: %s", reason)
	}
	var write func(b []byte, v int) []byte
	write = func(b []byte, v int) []byte {
		if s.kind(v) != '{' && s.kind(v) != '[' {
			return append(b, s.source(v)...)
		}
		var parts []string
		for c := s.first(v); c < s.past(v); c = s.next(c) {
			part := string(write(nil, c))
			if s.kind(v) == '{' {
				start, end := s.quotedName(c)
				part = s.text[start-1:end+1] + ":" + part
			}
			parts = append(parts, part)
		}
		if s.kind(v) == '{' {
			slices.Reverse(parts)
		}
		return append(append(append(b, s.kind(v)), strings.Join(parts, ",")...), s.kind(v)+2)
	}
	return write(nil, 0)
}
