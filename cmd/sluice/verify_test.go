package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/servertest"
	"github.com/sluicegate/sluice/server/servertest/damage"
)

// verifyOffline runs the command on a stopped directory.
func verifyOffline(t *testing.T, dir string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), append([]string{"verify", "--data-dir", dir}, args...), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

func writeLedger(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestVerify(t *testing.T) {
	srv := servertest.Start(t)
	for n := 1; n <= 50; n++ {
		srv.MustPost("/", message(n, "hello"))
	}
	srv.MustPost("/", "not JSON")
	const clean = `(?s)LOG .*\nEVENTS +1 +50 +50 +\d+ +0 +0 +0 +0\n.*QUARANTINE +1 +1 +1 .*all records can be read\n`
	command(t, srv, "verify").want(t, 0, clean, ``)

	whole := writeLedger(t, "# acknowledged", "", "m-1", `{"message_id":"m-2"}`, `{"key":"default/b-1/m-3","status":200}`)
	missing := writeLedger(t, "m-1", "m-777", `{"message_id":"m-778"}`)
	command(t, srv, "verify", "--ledger", whole).want(t, 0, clean+`ledger: 3 ids, 0 missing\n`, ``)
	const two = `ledger: 3 ids, 2 missing\n  missing: \S*777\n  missing: \S*778\n`
	command(t, srv, "verify", "--ledger", missing).want(t, 3, clean+two, "sluice: 2 of the ledger's ids are missing\n")
	command(t, srv, "verify", "--ledger", missing, "--json").want(t, 3,
		`(?s)\{"name":"EVENTS",.*\{"ok":false,"problems":\[\],"ledger":\{"ids":3,"missing":2,"first_missing":\["\S*777","\S*778"\]\}\}\n`, `.*`)
	command(t, srv, "verify", "--ledger", writeLedger(t, "{")).want(t, 1, ``, `sluice: \S+, line 1: not a JSON object.*\n`)
	command(t, srv, "verify", "--data-dir", "x").want(t, 2, ``, `(?s)sluice: --data-dir is for a gateway that is stopped.*`)

	dir := srv.Config.DataDir
	verifyOffline(t, dir).want(t, 1, ``, `sluice: .*another process uses it.*\n`)
	srv.Stop()
	before := listing(t, dir)
	verifyOffline(t, dir, "--ledger", whole).want(t, 0, clean+`ledger: 3 ids, 0 missing\n`, ``)
	verifyOffline(t, dir, "--ledger", missing).want(t, 3, clean+two, "sluice: 2 of the ledger's ids are missing\n")
	if after := listing(t, dir); after != before {
		t.Errorf("verify has changed the directory:\n%s\nwas:\n%s", after, before)
	}
	verifyOffline(t, filepath.Join(dir, "nowhere")).want(t, 1, ``, `sluice: .*nowhere.*\n`)
	srv.Restart()
}

// listing returns the names and contents of the files below dir, in short.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %d %x\n", path, len(data), sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestVerifyDamage has a table with a flipped bit, records that are no events,
// and an event without a chat.
func TestVerifyDamage(t *testing.T) {
	srv := servertest.Start(t)
	for n := 1; n <= 60; n++ {
		noise := make([]byte, 2<<10)
		_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(noise)
		srv.MustPost("/", message(n, fmt.Sprintf("%x", noise)))
	}
	srv.Stop()
	dir := srv.Config.DataDir
	appendRaw(t, dir, []byte{0xff}, nil)
	damage.Table(t, dir)
	const found = `(?s).*EVENTS +1 +62 +\d+ +\d+ +0 +[1-9]\d* +1 +3\n.*` +
		`EVENTS: records? \d+ (to \d+ are|is) damaged: .*checksum.*EVENTS: record 61 cannot be decoded: .*\n` +
		`EVENTS: event 62 has no key\nEVENTS: event 62 has no chat_key\n.*`
	verifyOffline(t, dir).want(t, 3, found, "sluice: the logs are damaged\n")
	srv.Restart()
	command(t, srv, "verify").want(t, 3, found, "sluice: the logs are damaged\n")
	command(t, srv, "verify", "--json").want(t, 3,
		`(?s).*"damaged":\[\{"firstSequence":"\d+","lastSequence":"\d+","cause":".*\{"ok":false,"problems":\[\]\}\n`, `.*`)

	// The other commands say it, too.
	command(t, srv, "events", "get", "61").want(t, 1, ``,
		"sluice: record 61 of the log EVENTS is stored, but cannot be read: read on behind it with --from 62, .*`sluice verify` .*\n")
	tail := []string{"tail", "--from", "1", "--to", "latest"}
	command(t, srv, tail...).want(t, 1, `(?s).*`, "sluice: records? \\d+.* of the log EVENTS (is|are) stored, but cannot be read: .*\n")
	command(t, srv, append(tail, "--skip-gaps")...).want(t, 0, `(?s).*`,
		"(?s)sluice: events? \\d+.* passed over: stored, but damaged; .*sluice: event 61 was passed over: stored, but damaged; `sluice verify` shows all that is\n")
}

// appendRaw appends records to the events of a stopped gateway, and has all of
// them in tables.
func appendRaw(t *testing.T, dir string, records ...[]byte) {
	t.Helper()
	for range 2 {
		e, err := local.Open(t.Context(), local.Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range records {
			if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s", Data: data}); err != nil {
				t.Fatal(err)
			}
		}
		records = nil
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}
