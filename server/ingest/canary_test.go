package ingest

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
)

// A known token takes every way in, and comes out nowhere: not in the store,
// not in the log, not in a metric, an answer or a sample.
func TestTokenCanary(t *testing.T) {
	const (
		canary  = "canary5f0c1e9a7b3d2f4e6a"
		retired = "canaryretired0b1d9c3e5f7" // configured, too, but not sent as a token
		signer  = "canarysigner8e2a4c6d0b1f"
		others  = "canaryother4d6f8a0c2e1b" // of another source
		control = "this-may-be-seen"
	)
	dir := t.TempDir()
	g := start(t, dir, Config{Sources: []Source{{
		Name: "acme", Path: "/hook-7f3a",
		Tokens:         []Secret{secret(t, canary), secret(t, retired)},
		SignatureToken: secret(t, signer),
	}, {
		Name: "beta", Path: "/hook-beta-91c2", Tokens: []Secret{secret(t, others)},
	}}})
	escaped := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, `\u%04x`, s[i])
		}
		return b.String()
	}
	var out bytes.Buffer
	bodies := []string{
		`{"token":"` + canary + `","a":"` + control + `"}`,
		`{"token":"` + canary + `","token":"` + canary + `","a":2}`,
		`{"token":"` + canary + `","x":{"token":"` + canary + `"},"a":3}`,
		`{"tok\u0065n":"` + canary + `","a":4}`,
		`{"token\t":"` + canary + `","a":5}`,
		`{"token":"` + escaped(canary) + `","a":6}`,
		`{"token":"` + canary + `","note":"it is ` + canary + `, keep it","a":7}`,
		`{"token":"` + canary + `","note":"` + escaped(canary) + `","a":8}`,
		`{"token":"` + canary + `","` + canary + `":1,"a":9}`,
		`{"note":"` + retired + `","a":10}`,
		`{"note":"` + signer + `","a":11}`,
		`{"` + others + `":"` + escaped(others) + `","note":"` + others + `","a":15}`,
		`{"deep":[[{"note":["` + canary + `"]}]],"a":12}`,
		`["` + canary + `","` + canary + `"]`,
		`"` + canary + `"`,
		`{"data":{"token":"` + canary + `","messageId":"m1","botId":"b1","type":7,"payload":{"text":"hi ` + canary + `"}}}`,
		`{"token":"` + canary + `","messageId":"` + canary + `","botId":"b1","chatId":"` + canary + `","messageType":7,"payload":{"text":"hi"}}`,
		`{"token":"` + canary + `","messageId":"m2","botId":"b1","messageType":7,"payload":{"text":"` + escaped(canary) + `"}}`,
		`{"token":"` + canary + `","a":`,
		`{"token":"` + canary,
		`{"note":"` + escaped(canary) + others + `","a":16`,
		`token=` + canary,
		canary[:12] + canary + canary[12:],
		`{"token":"` + canary + `","token":"wrong","a":13}`,
	}
	for i, body := range bodies {
		for _, path := range []string{
			"/hook-7f3a", "/hook-7f3a/message?token=" + canary, "/hook-7f3a/p/" + canary, "/hook-7f3a/q?token=wrong&n=" + canary,
			"/nowhere/" + canary,
		} {
			r := g.request(path, strings.NewReader(body))
			if i%2 == 0 {
				r.Header.Set("Content-Type", "application/json; token="+canary)
			}
			r.Header.Set("X-Token", canary)
			status, answer, header := g.do(r)
			fmt.Fprintln(&out, status, answer, header)
			refused := strings.Contains(path, "wrong") || strings.Contains(path, "nowhere") || strings.Contains(body, "wrong")
			if want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusOK}[refused]; status != want {
				t.Errorf("POST %s to %s = %d %s, want %d", body, path, status, answer, want)
			}
		}
	}
	stamp := url.Values{"msg_signature": {sign(signer, "n", "1")}, "timestamp": {"1"}, "nonce": {signer}}.Encode()
	g.mustPost("/hook-7f3a?"+stamp, `{"a":14}`)

	families, err := g.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&out, "%+v\n%s", g.service.Rejected(), g.log.String())
	for _, e := range g.stored() {
		fmt.Fprintf(&out, "%v %s\n", e, e.GetRaw())
	}
	for _, e := range g.isolated() {
		fmt.Fprintf(&out, "%v %s\n", e, e.GetRaw())
	}
	g.stop()
	stored := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		stored += bytes.Count(b, []byte(control))
		out.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if stored == 0 {
		t.Fatal("the store does not hold what may be seen: the search proves nothing")
	}
	for _, c := range []string{canary, retired, signer, others, escaped(canary), escaped(others), "hook-7f3a"} {
		if i := bytes.Index(out.Bytes(), []byte(c)); i >= 0 {
			t.Errorf("%s is in %q", c, out.Bytes()[max(0, i-200):min(out.Len(), i+200)])
		}
	}
}

// A secret that comes about only when an event is put together cannot be cut
// out of it. The body is kept all the same.
func TestSecretInKey(t *testing.T) {
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "acme", Tokens: []Secret{secret(t, "bot1/message1")}}}})
	g.mustPost("/?token=bot1/message1", `{"messageId":"message1","botId":"bot1","messageType":7,"payload":{"text":"hello"}}`)
	g.wantStored(0, 1)
	e := g.isolated()[0]
	if e.GetReason() != reasonCredential || !strings.Contains(string(e.GetRaw()), "hello") {
		t.Errorf("entry = %v, want the body with the reason %s", e, reasonCredential)
	}
	if got := g.metric(g.service.metrics.quarantined, "acme", reasonCredential); got != 1 {
		t.Errorf("quarantined = %v, want 1", got)
	}
}

// A token as short as that of the vendor's own example is cut out where it is
// the token, and left alone where it is a word.
func TestShortToken(t *testing.T) {
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "acme", Tokens: []Secret{secret(t, "string")}}}})
	g.mustPost("/", `{"token":"string","messageId":"string","botId":"string","messageType":0,"payload":{"content":"string"}}`)
	e := g.stored()[0]
	if got := e.GetMessage().GetUnknown().GetContent(); got != "string" {
		t.Errorf("content = %q, want %q", got, "string")
	}
	if raw := string(e.GetRaw()); strings.Contains(raw, `"token":"string"`) {
		t.Errorf("raw = %s, holds the token", raw)
	}
}
