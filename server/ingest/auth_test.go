package ingest

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// The three hashes are the vendor-callbacks page's own.
func TestVerify(t *testing.T) {
	now := time.Unix(1625847385, 0)
	for signature, want := range map[string]reading{
		"3ca23f3c0e87c303e16faa25d923e3408769a231": concatenated,
		"a75924bf8e6bde417874c583cd422b2521f8d641": sortedCharacters,
		"032424eb110ed86f6b732beafba78ab2bae22b47": sortedStrings,
		"032424EB110ED86F6B732BEAFBA78AB2BAE22B47": sortedStrings,
		"032424eb110ed86f6b732beafba78ab2bae22b48": forged,
		"032424eb110ed86f6b732beafba78ab2bae22b":   forged,
		"not hex":                                  forged,
		"":                                         forged,
	} {
		if got := verify("abc", signature, "1625847385", "123", now); got != want {
			t.Errorf("verify(%q) = %q, want %q", signature, got, want)
		}
	}
	const signature = "3ca23f3c0e87c303e16faa25d923e3408769a231"
	for _, tt := range []struct {
		name, token, timestamp, nonce string
		now                           time.Time
		want                          reading
	}{
		{"other token", "abd", "1625847385", "123", now, forged},
		{"other nonce", "abc", "1625847385", "124", now, forged},
		{"other time", "abc", "1625847386", "123", now, forged},
		{"no time", "abc", "", "123", now, forged},
		{"time is no number", "abc", "1625847385x", "123", now, forged},
		{"time beyond all", "abc", "9223372036854775807", "123", now, forged},
		{"5 min old", "abc", "1625847385", "123", now.Add(5 * time.Minute), concatenated},
		{"5 min early", "abc", "1625847385", "123", now.Add(-5 * time.Minute), concatenated},
		{"older", "abc", "1625847385", "123", now.Add(5*time.Minute + 1), outOfDate},
		{"earlier", "abc", "1625847385", "123", now.Add(-5*time.Minute - 1), outOfDate},
	} {
		if got := verify(tt.token, signature, tt.timestamp, tt.nonce, tt.now); got != tt.want {
			t.Errorf("%s: verify() = %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := verify("abc", sign("abc", "1", "soon"), "soon", "1", now); got != outOfDate {
		t.Errorf("verify(a time that is no number) = %q", got)
	}
	long := strings.Repeat("1", maxSigned+1)
	if got := verify("abc", sign("abc", long, "1625847385"), "1625847385", long, now); got != forged {
		t.Errorf("verify(a nonce of %d bytes) = %q, want none", len(long), got)
	}
}

// sign signs as concatenated has it.
func sign(token, nonce, timestamp string) string {
	sum := sha1.Sum([]byte(token + nonce + timestamp))
	return hex.EncodeToString(sum[:])
}

// Who may post, row by row.
func TestAdmit(t *testing.T) {
	const (
		first  = "1111111111111111111111aa"
		second = "2222222222222222222222bb"
		others = "3333333333333333333333cc"
		signer = "4444444444444444444444dd"
	)
	now := time.Unix(1625847385, 0)
	both := []Secret{secret(t, first), secret(t, second)}
	openGate := []Source{DefaultSource()}
	tokens := []Source{{Name: "a", Tokens: both}, {Name: "b", Path: "/b-5e1", Tokens: []Secret{secret(t, others)}}}
	hidden := []Source{{Name: "a", Path: "/a-7f3"}}
	hiddenTokens := []Source{{Name: "a", Path: "/a-7f3", Tokens: both}}
	signed := []Source{{Name: "a", SignatureToken: secret(t, signer)}}
	signedTokens := []Source{{Name: "a", Tokens: both, SignatureToken: secret(t, signer)}}

	none := `{"n":%d}`
	body := func(tokens ...string) string {
		b := `{"n":%d`
		for _, token := range tokens {
			b += fmt.Sprintf(`,"token":%q`, token)
		}
		return b + `}`
	}
	signature := func(token string, at time.Time) string {
		stamp := fmt.Sprint(at.Unix())
		return "?" + url.Values{"msg_signature": {sign(token, "n", stamp)}, "nonce": {"n"}, "timestamp": {stamp}}.Encode()
	}
	valid, old, wrong := signature(signer, now), signature(signer, now.Add(-time.Hour)), signature(first, now)

	tests := []struct {
		name    string
		sources []Source
		path    string
		body    string
		reason  rejection // accepted is ""
	}{
		{"open, nothing", openGate, "/", none, accepted},
		{"open, a token", openGate, "/message", body(others), accepted},
		{"open, a signature", openGate, "/" + wrong, none, accepted},

		{"tokens, nothing", tokens, "/", none, rejectedMissing},
		{"tokens, empty one", tokens, "/", body(""), rejectedMissing},
		{"tokens, first", tokens, "/", body(first), accepted},
		{"tokens, second", tokens, "/message", body(second), accepted},
		{"tokens, both", tokens, "/", body(first, second), accepted},
		{"tokens, right then wrong", tokens, "/", body(first, "x"), rejectedToken},
		{"tokens, wrong then right", tokens, "/", body("x", first), rejectedToken},
		{"tokens, wrong", tokens, "/", body("x"), rejectedToken},
		{"tokens, nearly", tokens, "/", body(first[1:]), rejectedToken},
		{"tokens, another source's", tokens, "/", body(others), rejectedToken},
		{"tokens, on the other source's path", tokens, "/b-5e1", body(first), rejectedToken},
		{"tokens, other source", tokens, "/b-5e1/message", body(others), accepted},
		{"tokens, in the URL", tokens, "/?token=" + first, none, accepted},
		{"tokens, wrong in the URL", tokens, "/?token=x", none, rejectedToken},
		{"tokens, right in the URL, wrong in the body", tokens, "/?token=" + first, body("x"), rejectedToken},
		{"tokens, wrong in the URL, right in the body", tokens, "/?token=x", body(first), rejectedToken},
		{"tokens, a signature", tokens, "/" + valid, none, rejectedMissing},

		{"hidden, nothing", hidden, "/a-7f3", none, accepted},
		{"hidden, below", hidden, "/a-7f3/room/left", none, accepted},
		{"hidden, a token", hidden, "/a-7f3", body("x"), accepted},
		{"hidden, elsewhere", hidden, "/", none, rejectedPath},
		{"hidden, longer", hidden, "/a-7f3b", none, rejectedPath},
		{"hidden, shorter", hidden, "/a-7f", none, rejectedPath},
		{"hidden, as a parameter", hidden, "/?path=/a-7f3", none, rejectedPath},

		{"hidden with tokens, nothing", hiddenTokens, "/a-7f3", none, accepted},
		{"hidden with tokens, right", hiddenTokens, "/a-7f3", body(first), accepted},
		{"hidden with tokens, wrong", hiddenTokens, "/a-7f3", body("x"), rejectedToken},
		{"hidden with tokens, elsewhere", hiddenTokens, "/", body(first), rejectedPath},

		{"signed, nothing", signed, "/", none, rejectedMissing},
		{"signed, valid", signed, "/message" + valid, none, accepted},
		{"signed, valid, a token", signed, "/" + valid, body("x"), accepted},
		{"signed, old", signed, "/" + old, none, rejectedSigned},
		{"signed, forged", signed, "/" + wrong, none, rejectedSigned},
		{"signed, not signed but a token", signed, "/", body(signer), rejectedMissing},

		{"signed with tokens, valid", signedTokens, "/" + valid, none, accepted},
		{"signed with tokens, valid, right", signedTokens, "/" + valid, body(first), accepted},
		{"signed with tokens, valid, wrong", signedTokens, "/" + valid, body("x"), rejectedToken},
		{"signed with tokens, old, right", signedTokens, "/" + old, body(first), accepted},
		{"signed with tokens, forged, right", signedTokens, "/" + wrong, body(first), accepted},
		{"signed with tokens, forged", signedTokens, "/" + wrong, none, rejectedSigned},
	}
	g := start(t, t.TempDir(), Config{Clock: func() time.Time { return now }})
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := g.service.SetSources(tt.sources); err != nil {
				t.Fatal(err)
			}
			before := g.events.Durable()
			status, answer := g.post(tt.path, fmt.Sprintf(tt.body, i))
			want, held := http.StatusOK, before+1
			if tt.reason != accepted {
				want, held = http.StatusUnauthorized, before
			}
			if status != want {
				t.Errorf("POST = %d %s, want %d", status, answer, want)
			}
			g.wantStored(held, 0)
			if tt.reason != accepted && g.service.Rejected()[0].Reason != string(tt.reason) {
				t.Errorf("rejected because of %q, want %q", g.service.Rejected()[0].Reason, tt.reason)
			}
		})
	}
	if got := g.metric(g.service.metrics.signatures, "concatenated"); got != 5 {
		t.Errorf("concatenated signatures = %v, want 5", got)
	}
}

// A configuration that is wrong changes nothing.
func TestSetSources(t *testing.T) {
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "a", Path: "/a-7f3"}}})
	if err := g.service.SetSources([]Source{{Name: "a", Path: "/b-5e1"}, {Name: "a", Path: "c"}}); err == nil {
		t.Error("SetSources accepts two sources of one name")
	}
	g.mustPost("/a-7f3", `{"n":1}`)
	if err := g.service.SetSources([]Source{{Name: "a", Path: "/b-5e1"}}); err != nil {
		t.Fatal(err)
	}
	if status, _ := g.post("/a-7f3", `{"n":2}`); status != http.StatusUnauthorized {
		t.Errorf("POST to the path of before = %d, want 401", status)
	}
	g.mustPost("/b-5e1", `{"n":3}`)
	g.wantStored(2, 0)
	if err := g.service.SetSources([]Source{{Name: "b", Path: "/b-5e1"}}); err != nil {
		t.Fatal(err)
	}
	if got := testutil.CollectAndCount(g.service.metrics.lastCallback); got != 0 {
		t.Errorf("%d sources that are gone still have a last callback", got)
	}
}

func TestRejected(t *testing.T) {
	now := time.Unix(1625847385, 0).UTC()
	g := start(t, t.TempDir(), Config{
		Sources: []Source{{Name: "acme", Path: "/hook-7f3a", Tokens: []Secret{secret(t, token)}}},
		Clock:   func() time.Time { return now },
	})
	wrong := "9999999999999999999999ee"
	g.post("/hook-7f3a", `{"token":"`+wrong+`","messageId":"m1","`+wrong+`":1,"payload":{"text":"hello","size":1},"to":["a",{"b":null}]}`)
	g.post("/"+wrong, `{"a":`)
	want := []Rejection{
		{Time: now, Source: "-", Reason: "path"}, // its body is not read
		{
			Time: now, Source: "acme", Reason: "token", BodyBytes: g.service.Rejected()[1].BodyBytes,
			Shape: `{"token":string,"messageId":string,"~":number,"payload":{"text":string,"size":number},"to":[string,{"b":null}]}`,
		},
	}
	got := g.service.Rejected()
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("Rejected() = %+v, want %+v", got, want)
	}
	for range 2 * len(g.service.rejections.last) {
		g.post("/hook-7f3a", `{"token":"`+wrong+`","a":`+strings.Repeat(`[{"name":1},`, 1000))
	}
	got = g.service.Rejected()
	if len(got) != len(g.service.rejections.last) {
		t.Errorf("Rejected() holds %d, want %d", len(got), len(g.service.rejections.last))
	}
	if n := len(got[0].Shape); n < maxShape || n > 2*maxShape {
		t.Errorf("a sketch has %d bytes, want about %d", n, maxShape)
	}
}

func FuzzShape(f *testing.F) {
	for _, body := range []string{
		``, `{`, `[]`, `"x"`, `{"a":[1,{"b":null}],"c":true}`, `{"a":1,"a":2}`, `{"tok\u0065n":"x"}`, "{\"\xff\":1}", strings.Repeat("[", 100),
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := shape(body, nil)
		if len(got) > maxShape+6*maxName+16 { // the last name may be escaped
			t.Fatalf("shape(%q) has %d bytes", body, len(got))
		}
		// What stands in quotes is a name, and short; nothing else is quoted.
		for rest := got; ; {
			_, after, ok := strings.Cut(rest, `"`)
			if !ok {
				break
			}
			end := jsontext.NewDecoder(strings.NewReader(`"` + after))
			name, err := end.ReadToken()
			if err != nil || len(name.String()) > maxName {
				t.Fatalf("shape(%q) = %s, holds a name that is too long", body, got)
			}
			rest = after[end.InputOffset()-1:]
			if !strings.HasPrefix(rest, ":") {
				t.Fatalf("shape(%q) = %s, holds a value", body, got)
			}
		}
	})
}
