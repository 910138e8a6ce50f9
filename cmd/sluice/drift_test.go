package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/servertest"
)

// lookedAt waits until the gateway has looked for drift up to an event.
func lookedAt(t *testing.T, srv *servertest.Server, sequence uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		res, err := sluicev1.NewDriftServiceClient(srv.Conn()).GetDrift(ctx, &sluicev1.GetDriftRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if res.GetSequence() >= sequence {
			return
		}
	}
}

func TestDrift(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/", message(1, "a"))
	lookedAt(t, srv, 1)
	command(t, srv, "drift").want(t, 0, ``, `sluice: nothing up to event 1\n`)

	srv.MustPost("/", strings.Replace(message(2, "b"), `"isSelf"`, `"mo\u001b[31mod":"geheim","isSelf"`, 1))
	srv.MustPost("/", strings.Replace(message(3, "c"), `"type":7`, `"type":77`, 1))
	lookedAt(t, srv, 3)
	const at = `\d\d-\d\d \d\d:\d\d:\d\d  `
	command(t, srv, "drift").want(t, 0,
		`KIND        NAME               WHERE  EXAMPLE            EVENTS  FIRST           LAST            LAST EVENT\n`+
			`enum_value  message.type       -      77                 1       `+at+at+`3\n`+
			`field       data.mo\\x1b\[31mod  -      string of 6 bytes  1       `+at+at+`2\n`, ``)

	r := command(t, srv, "drift", "--json")
	lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2:\n%s", len(lines), r.out)
	}
	f := &sluicev1.DriftFinding{}
	if err := protojson.Unmarshal([]byte(lines[1]), f); err != nil || f.GetKind() != sluicev1.DriftFinding_KIND_FIELD || f.GetCount() != 1 {
		t.Errorf("line %q: %v, %v", lines[1], f, err)
	}
}

// TestEventsRetype has an event that an earlier decoder made nothing of.
func TestEventsRetype(t *testing.T) {
	srv := servertest.Start(t)
	srv.Stop()
	engine, err := local.Open(t.Context(), local.Config{Dir: srv.Config.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	events, err := engine.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS", DedupeWindow: srv.Config.DedupeWindow})
	if err != nil {
		t.Fatal(err)
	}
	e := &sluicev1.Event{
		Source: "default", Path: "/", Key: "k", Raw: []byte(message(1, `\u001b[31m`)),
		Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{Path: "/"}},
	}
	data, err := record.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Append(t.Context(), eventlog.Record{Subject: record.Subject(e), Data: data}); err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv.Restart()
	srv.MustPost("/", message(2, "today"))

	const changes = `(  \S+: .* -> .*\n)*  message.text.text: \(unset\) -> \\x1b\[31m\n(  \S+: .* -> .*\n)*`
	retype := []string{"events", "retype", "--from", "earliest"}
	command(t, srv, "events", "retype").want(t, 2, ``, `sluice: .*--from earliest\n.*`)
	command(t, srv, append(retype, "--dry-run")...).want(t, 0,
		`1: typed by no decoder, would change\n`+changes+`1 of 2 events would change; 0 stay the same, 1 are up to date, 0 have newer revisions, 0 cannot be typed\n`, ``)
	command(t, srv, append(retype, "--dry-run", "--json", "--kind", "message")...).want(t, 0, `\{"summary":\{"read":"1","current":"1"\}\}\n`, ``)
	command(t, srv, retype...).want(t, 0,
		`1: typed by no decoder, revised as 3\n`+changes+`1 of 2 events changed; .*`, ``)
	command(t, srv, retype...).want(t, 0,
		`0 of 3 events changed; 0 stay the same, 2 are up to date, 1 have newer revisions, 0 cannot be typed\n`, ``)
}
