package callback

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// BenchmarkDecode is the decoder on each body of the corpus. Beside it stand
// what it is measured against: scan, a bare pass over the tokens, as strict
// about names and UTF-8 as the decoder; alloc, making empty copies of the
// decoded messages, their strings and bytes; protojson, unmarshalling the same
// JSON without understanding it.
//
// The aim is decode <= 1.5 x scan + alloc.
func BenchmarkDecode(b *testing.B) {
	bodies := corpus(b)
	for _, name := range slices.Sorted(maps.Keys(bodies)) {
		body := bodies[name]
		run := func(what string, f func() error) {
			b.Run("body="+strings.TrimSuffix(name, ".json")+"/op="+what, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("decode", func() error { Decode(body); return nil })
		run("scan", scanTokens(body))
		run("alloc", allocator(b, body))
		if protojson.Unmarshal(body, &structpb.Value{}) == nil { // it refuses names that stand twice
			run("protojson", func() error { return protojson.Unmarshal(body, &structpb.Value{}) })
		}
	}
}

// scanTokens returns a function that reads the tokens of body and does nothing
// with them.
func scanTokens(body []byte) func() error {
	var dec jsontext.Decoder
	doubled := jsontext.AllowDuplicateNames(!jsontext.Value(body).IsValid())
	return func() error {
		dec.Reset(bytes.NewBuffer(body), doubled)
		for {
			if _, err := dec.ReadToken(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

// allocator returns a function that allocates what Decode(body) returns, as
// messages, strings and bytes that hold nothing.
func allocator(tb testing.TB, body []byte) func() error {
	var types []protoreflect.MessageType
	var texts []string
	var blobs [][]byte
	cb := Decode(body)
	err := protorange.Range(cb.ProtoReflect(), func(p protopath.Values) error {
		switch v := p.Index(-1).Value.Interface().(type) {
		case protoreflect.Message:
			types = append(types, v.Type())
		case string:
			texts = append(texts, v)
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	blobs = append(blobs, cb.GetRaw())
	return func() error {
		for _, t := range types {
			message = t.New()
		}
		for _, s := range texts {
			text = strings.Clone(s)
		}
		for _, x := range blobs {
			blob = bytes.Clone(x)
		}
		return nil
	}
}

// Where allocations escape to.
var (
	message protoreflect.Message
	text    string
	blob    []byte
)

func BenchmarkCanonical(b *testing.B) {
	body := corpus(b)["d07-ent-type7-text.json"]
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		Canonical(body)
	}
}
