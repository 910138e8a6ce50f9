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
// about names and UTF-8 as the decoder; alloc, allocating all that the decoded
// messages are made of, with nothing in it; protojson, unmarshalling the same
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

// allocator returns a function that allocates what Decode(body) returns: its
// messages, lists, maps, oneofs, optional scalars, strings and bytes, each by
// itself and holding nothing, but for the names in maps, without which they
// would have no room.
func allocator(tb testing.TB, body []byte) func() error {
	var steps []func()
	cb := Decode(body)
	err := protorange.Range(cb.ProtoReflect(), func(p protopath.Values) error {
		switch v := p.Index(-1).Value.Interface().(type) {
		case protoreflect.Message:
			steps = append(steps, func() { message = v.Type().New() })
		case protoreflect.List:
			n := v.Len()
			if _, ok := v.NewElement().Interface().(string); ok {
				steps = append(steps, func() { texts = make([]string, n) })
			} else {
				steps = append(steps, func() { pointers = make([]*byte, n) })
			}
		case protoreflect.Map: // the schema has one: google.protobuf.Struct.fields
			var names []string
			v.Range(func(name protoreflect.MapKey, _ protoreflect.Value) bool {
				names = append(names, name.String())
				return true
			})
			steps = append(steps, func() {
				fields = make(map[string]*structpb.Value, len(names))
				for _, name := range names {
					fields[name] = nil
				}
			})
		case string:
			steps = append(steps, func() { text = strings.Clone(v) })
		}
		if f := p.Index(-1).Step; f.Kind() == protopath.FieldAccessStep && f.FieldDescriptor().HasPresence() {
			if step := presence(f.FieldDescriptor()); step != nil {
				steps = append(steps, step)
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	steps = append(steps, func() { blob = bytes.Clone(cb.GetRaw()) })
	return func() error {
		for _, step := range steps {
			step()
		}
		return nil
	}
}

// presence returns what is allocated to say that a field is set: the wrapper of
// a case of a oneof, or an optional scalar. A message needs nothing.
func presence(f protoreflect.FieldDescriptor) func() {
	oneof := f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic()
	switch f.Kind() {
	case protoreflect.MessageKind:
		if !oneof {
			return nil
		}
		return func() { anything = new(*byte) }
	case protoreflect.StringKind:
		return func() { anything = new(string) }
	case protoreflect.BoolKind:
		return func() { anything = new(bool) }
	case protoreflect.Int32Kind, protoreflect.EnumKind:
		return func() { anything = new(int32) }
	default:
		return func() { anything = new(int64) }
	}
}

// Where allocations escape to.
var (
	message  protoreflect.Message
	texts    []string
	pointers []*byte
	fields   map[string]*structpb.Value
	text     string
	blob     []byte
	anything any
)

func BenchmarkCanonical(b *testing.B) {
	body := corpus(b)["d07-ent-type7-text.json"]
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		Canonical(body)
	}
}
