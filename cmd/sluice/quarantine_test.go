package main

import (
	"encoding/json"
	"strings"
	"testing"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/servertest"
)

func TestQuarantine(t *testing.T) {
	srv := servertest.Start(t, servertest.With(func(c *server.Config) {
		c.Sources = []server.Source{{Name: "acme", Path: "/acme", Tokens: []string{"a-token-nobody-shows"}}}
	}))
	quarantine := func(args ...string) result {
		t.Helper()
		return command(t, srv, append([]string{"quarantine"}, args...)...)
	}
	quarantine("list").want(t, 0, ``, `sluice: nothing in quarantine matches\n`)
	quarantine("list", "--json").want(t, 0, ``, ``)
	quarantine("reparse", "--all").want(t, 0, ``, `sluice: nothing is in quarantine\n`)
	quarantine("rejected").want(t, 0, ``, `sluice: no callback was turned away .*\n`)

	srv.MustPost("/acme/message", `{"token":"a-token-nobody-shows",`+"\n\x1b[31m")
	srv.MustPost("/acme", ``)
	srv.MustPost("/acme", `[1`)
	quarantine("list").want(t, 0, ` +1  \d\d-\d\d \d\d:\d\d:\d\d  acme          SYNTAX +18  /message\n +2  \S+ \S+  acme +EMPTY +0  /\n +3 .*`, ``)
	quarantine("list", "--limit", "1").want(t, 0, ` +1 [^\n]*\n`, ``)
	quarantine("list", "--reason", "EMPTY", "--limit", "0", "--json").want(t, 0, `\{[^\n]*"reason":"EMPTY"[^\n]*"sequence":"2"\}\n`, ``)
	quarantine("show", "1").want(t, 0,
		`source +acme\n.*path +/message\nreason +SYNTAX\nsequence +1\nraw_bytes +18\nraw\n  \{"token":"",\n  \\x1b\[31m\n`, ``)
	quarantine("show", "1", "--raw").want(t, 0, `\{"token":"",\n\x1b\[31m`, ``)
	var shown struct{ Raw []byte }
	if err := json.Unmarshal([]byte(quarantine("show", "1", "--json").out), &shown); err != nil || !strings.HasPrefix(string(shown.Raw), `{"token":"",`) {
		t.Errorf("show --json has the body %q, %v", shown.Raw, err)
	}
	quarantine("show", "9").want(t, 1, ``, "sluice: .* entry 9: .*`sluice quarantine list`.*\n")
	quarantine("show", "one").want(t, 2, ``, `sluice: "one" is not the number .*`)

	quarantine("reparse", "--all", "--dry-run").want(t, 0, `1: stays, still no event: SYNTAX\n2: stays.* EMPTY\n3: stays.* SYNTAX\n`, ``)
	quarantine("reparse", "3", "1", "9", "--json").want(t, 1,
		`\{"sequence":"1","reason":"SYNTAX"\}\n\{"sequence":"3","reason":"SYNTAX"\}\n`, `sluice: 1 of 3 not in quarantine\n`)
	quarantine("reparse").want(t, 2, ``, `sluice: name entries, or all of them with --all\n.*`)
	quarantine("reparse", "--all", "1").want(t, 2, ``, `sluice: name entries, .*`)

	quarantine("discard", "1").want(t, 2, ``, `sluice: say why with --reason\n.*`)
	quarantine("discard", "1", "3", "1", "--reason", "of no use").want(t, 0, `2 discarded\n`, ``)
	quarantine("discard", "1", "2", "--reason", "of no use", "--json").want(t, 1, `\{"discarded":\["2"\]\}\n`, `sluice: 1 of 2 not in quarantine\n`)
	quarantine("list").want(t, 0, ``, `sluice: nothing in quarantine matches\n`)

	if status, answer := srv.Post("/acme", `{"token":"wrong","text":"words"}`); status != 401 {
		t.Fatalf("POST = %d %s, want 401", status, answer)
	}
	quarantine("rejected").want(t, 0, `\d\d-\d\d \d\d:\d\d:\d\d  acme          token +27  \{"token":string,"text":string\}\n`, ``)
	quarantine("rejected", "--json").want(t, 0, `\{[^\n]*"reason":"token"[^\n]*\}\n`, ``)
}

// TestReparsed holds what is said of entries that become events. That the
// gateway makes events of them is a test of package quarantine.
func TestReparsed(t *testing.T) {
	tests := map[string]struct {
		entry  *sluicev1.ReparsedEntry
		dryRun bool
		want   string
	}{
		"stays":     {&sluicev1.ReparsedEntry{Reason: "SYNTAX"}, false, "stays, still no event: SYNTAX"},
		"would":     {&sluicev1.ReparsedEntry{Kinds: []string{"message"}}, true, "would become message"},
		"moved":     {&sluicev1.ReparsedEntry{Kinds: []string{"a", "b"}, EventSequences: []uint64{7, 8}}, false, "a, b, stored as 7, 8"},
		"duplicate": {&sluicev1.ReparsedEntry{Kinds: []string{"a"}, EventSequences: []uint64{7}, Duplicate: true}, false, "a, duplicate of 7"},
	}
	for name, tt := range tests {
		if got := (&reparsed{dryRun: tt.dryRun}).became(tt.entry); got != tt.want {
			t.Errorf("%s: became() = %q, want %q", name, got, tt.want)
		}
	}
}
