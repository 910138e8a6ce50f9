package ingest

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
)

const retypedBody = `{"data":{"messageId":"m","chatId":"c","type":7,"payload":{"text":"hello"}}}`

// TestDecoderVersion holds that it is there for what Sluice has decoded, on
// whatever way it came, and only for that.
func TestDecoderVersion(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	g.mustPost("/", retypedBody)
	typed := callback.Decode([]byte(strings.Replace(retypedBody, `"m"`, `"typed"`, 1))).GetEvents()
	typed[0].DecoderVersion = 99 // not for a client to say
	for _, cb := range []*sluicev1.Callback{
		{Body: []byte(strings.Replace(retypedBody, `"m"`, `"n"`, 1))},
		{Events: typed},
	} {
		if _, err := g.service.ReceiveCallback(t.Context(), &sluicev1.ReceiveCallbackRequest{Callback: cb}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.service.Restore(t.Context(), &sluicev1.QuarantineEntry{Raw: []byte(strings.Replace(retypedBody, `"m"`, `"o"`, 1))}, false); err != nil {
		t.Fatal(err)
	}
	var got []uint32
	for _, e := range g.stored() {
		got = append(got, e.GetDecoderVersion())
	}
	if want := []uint32{callback.Version, callback.Version, 0, callback.Version}; !slices.Equal(got, want) {
		t.Errorf("versions %v, want %v", got, want)
	}
}

// old is an event of source, which a decoder that knew nothing has typed.
func old(source, raw string) *sluicev1.Event {
	return &sluicev1.Event{
		Sequence: 3, Source: source, Path: "/", Key: "k", Raw: []byte(raw),
		Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{Path: "/"}},
	}
}

func TestAppendRetypedIsIdempotent(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	was := old("default", retypedBody)
	for _, again := range []string{"first", "second"} {
		now, err := g.service.Retype(was)
		if err != nil {
			t.Fatal(err)
		}
		if at, err := g.service.AppendRetyped(t.Context(), was, now); err != nil || at != 1 {
			t.Errorf("%s: at %d, %v, want 1", again, at, err)
		}
	}
	was.Sequence++ // another event of the same key is another one
	now, err := g.service.Retype(was)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := g.service.AppendRetyped(t.Context(), was, now); err != nil || at != 2 {
		t.Errorf("another event: at %d, %v, want 2", at, err)
	}
	g.wantStored(2, 0)
}

// TestRetypeOfWhatHoldsACredential has a token that an earlier decoder kept,
// one in a place that only shows when it is decoded.
func TestRetypeOfWhatHoldsACredential(t *testing.T) {
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "acme", Path: "/acme", Tokens: []Secret{secret(t, token)}}}})
	escaped := `\u00` + "30" + token[1:] // its first character is a 0
	now, err := g.service.Retype(old("acme", strings.Replace(retypedBody, "hello", escaped+" hello", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if text := now.GetMessage().GetText().GetText(); text != " hello" || strings.Contains(string(now.GetRaw()), token[1:]) {
		t.Errorf("retyped = %v, want it without the token", now)
	}
}

func TestRetypeSeesWhereATokenWas(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	for _, payload := range []string{`{"text":"a","token":""}`, `{"text":"a, with one cut out"}`} {
		was := old("default", `{"data":{"messageId":"m","type":7,"payload":`+payload+`,"mood":1}}`)
		was.Anomalies = []string{callback.BOM, callback.NestedToken}
		now, err := g.service.Retype(was)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{callback.NestedToken, callback.UnknownField}; !slices.Equal(now.GetAnomalies(), want) {
			t.Errorf("anomalies = %v, want %v", now.GetAnomalies(), want)
		}
		if now.GetChatKey() != "k" {
			t.Errorf("chat key = %q, want the event's own key where it names no chat", now.GetChatKey())
		}
	}
}

func TestRetypeOfNoBody(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	list := `[{"_id":"1","assignedTimestamp":1},{"_id":"2","assignedTimestamp":1}]`
	for _, raw := range []string{"", "not JSON", list} {
		was := old("default", raw)
		before := proto.CloneOf(was)
		if now, err := g.service.Retype(was); now != nil || err != nil {
			t.Errorf("Retype of %q = %v, %v, want none", raw, now, err)
		}
		if !proto.Equal(was, before) {
			t.Errorf("Retype of %q changed it to %v", raw, was)
		}
	}
}
