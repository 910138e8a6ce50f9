package quarantine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/ingest"
	"github.com/sluicegate/sluice/server/servertest"
)

const token = "quarantine-token-5f0c1e9a"

// A gate is a gateway with one source, acme at /acme, and clients of it.
type gate struct {
	*servertest.Server
	t          *testing.T
	quarantine sluicev1.QuarantineServiceClient
	events     sluicev1.EventServiceClient
}

func start(t *testing.T) gate {
	t.Helper()
	srv := servertest.Start(t, servertest.With(func(c *server.Config) {
		c.Sources = []server.Source{{Name: "acme", Path: "/acme", Tokens: []string{token}}}
	}))
	return gate{
		srv, t,
		sluicev1.NewQuarantineServiceClient(srv.Conn()), sluicev1.NewEventServiceClient(srv.Conn()),
	}
}

// isolate restarts the gateway with entries in quarantine that no decoder of
// today would put there.
func (g gate) isolate(entries ...*sluicev1.QuarantineEntry) {
	g.t.Helper()
	g.Stop()
	ctx := context.Background()
	engine, err := local.Open(ctx, local.Config{
		Dir: g.Config.DataDir, MaxRecord: ingest.MaxRecord(int(g.Config.MaxBody)),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	isolated, err := engine.Log(ctx, eventlog.LogConfig{
		Name: "QUARANTINE", DedupeWindow: g.Config.DedupeWindow, MaxAge: g.Config.QuarantineMaxAge,
		MaxBytes: int64(g.Config.QuarantineMaxBytes), DropOldest: true,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, q := range entries {
		data, err := proto.Marshal(q)
		if err != nil {
			g.t.Fatal(err)
		}
		if _, err := isolated.Append(ctx, eventlog.Record{Subject: "acme", Data: data}); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := engine.Close(ctx); err != nil {
		g.t.Fatal(err)
	}
	g.Restart()
}

// received is when entry has it that the vendor posted.
var received = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// entry returns a body that went into quarantine as SYNTAX.
func entry(raw string) *sluicev1.QuarantineEntry {
	return &sluicev1.QuarantineEntry{
		Source: "acme", Path: "/message", Reason: "SYNTAX", ReceiveTime: timestamppb.New(received), Raw: []byte(raw),
	}
}

// message returns a callback that today's decoder types.
func message(id, words string) string {
	return fmt.Sprintf(`{"data":{"messageId":%q,"chatId":"c","botId":"b","type":7,"payload":{"text":%q}}}`, id, words)
}

// listed returns the sequences in quarantine.
func (g gate) listed() []uint64 {
	g.t.Helper()
	res, err := g.quarantine.ListQuarantineEntries(g.t.Context(), &sluicev1.ListQuarantineEntriesRequest{})
	if err != nil {
		g.t.Fatalf("ListQuarantineEntries() = %v", err)
	}
	sequences := []uint64{}
	for _, q := range res.GetEntries() {
		sequences = append(sequences, q.GetSequence())
	}
	return sequences
}

// texts returns what the messages in the log of events say.
func (g gate) texts() []string {
	g.t.Helper()
	res, err := g.events.ListEvents(g.t.Context(), &sluicev1.ListEventsRequest{})
	if err != nil {
		g.t.Fatalf("ListEvents() = %v", err)
	}
	texts := []string{}
	for _, e := range res.GetEvents() {
		texts = append(texts, e.GetMessage().GetText().GetText())
	}
	return texts
}

func (g gate) reparse(req *sluicev1.ReparseQuarantineRequest, want ...*sluicev1.ReparsedEntry) {
	g.t.Helper()
	res, err := g.quarantine.ReparseQuarantine(g.t.Context(), req)
	if err != nil {
		g.t.Fatalf("ReparseQuarantine(%v) = %v", req, err)
	}
	if diff := cmp.Diff(want, res.GetEntries(), protocmp.Transform()); diff != "" {
		g.t.Errorf("ReparseQuarantine(%v) differs (-want +got):\n%s", req, diff)
	}
}

// metric returns the line of /metrics that begins with name.
func (g gate) metric(name string) string {
	g.t.Helper()
	_, text := g.http(http.MethodGet, "/metrics", "")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "none"
}

// http returns the status and the body of an answer of the HTTP API.
func (g gate) http(method, path, body string) (int, string) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.HTTPURL()+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func want[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}

// TestLifeOfAnEntry follows a body that is not JSON from the post to its end.
func TestLifeOfAnEntry(t *testing.T) {
	g := start(t)
	g.MustPost("/acme/message", `{"token":"`+token+`","text":"broken`)
	g.MustPost("/acme", "")
	want(t, "the list", g.listed(), []uint64{1, 2})

	res, err := g.quarantine.GetQuarantineEntry(t.Context(), &sluicev1.GetQuarantineEntryRequest{Sequence: 1})
	if err != nil {
		t.Fatalf("GetQuarantineEntry(1) = %v", err)
	}
	if age := time.Since(res.GetEntry().GetReceiveTime().AsTime()); age < 0 || age > time.Minute {
		t.Errorf("receive_time is %v ago, want it to be now", age)
	}
	raw := `{"token":"","text":"broken`
	res.Entry.ReceiveTime = nil
	want(t, "the entry", res.GetEntry(), &sluicev1.QuarantineEntry{
		Sequence: 1, Source: "acme", Path: "/message", Reason: "SYNTAX", Raw: []byte(raw), RawBytes: uint32(len(raw)),
	})

	g.Restart()
	g.reparse(&sluicev1.ReparseQuarantineRequest{All: true},
		&sluicev1.ReparsedEntry{Sequence: 1, Reason: "SYNTAX"}, &sluicev1.ReparsedEntry{Sequence: 2, Reason: "EMPTY"})
	want(t, "the list after a restart", g.listed(), []uint64{1, 2})
	want(t, "entries", g.metric("sluice_quarantine_entries"), "2")
	want(t, "kept", g.metric(`sluice_quarantine_reparsed_total{outcome="kept"}`), "2")

	gone, err := g.quarantine.DiscardQuarantineEntries(t.Context(), &sluicev1.DiscardQuarantineEntriesRequest{
		Sequences: []uint64{1, 9, 1}, Reason: "a test",
	})
	if err != nil {
		t.Fatalf("DiscardQuarantineEntries() = %v", err)
	}
	want(t, "what was discarded", gone.GetDiscarded(), []uint64{1})
	want(t, "the list after that", g.listed(), []uint64{2})
	want(t, "discarded", g.metric("sluice_quarantine_discarded_total"), "1")
	_, err = g.quarantine.GetQuarantineEntry(t.Context(), &sluicev1.GetQuarantineEntryRequest{Sequence: 1})
	if status.Code(err) != codes.NotFound {
		t.Errorf("GetQuarantineEntry(1) = %v, want NOT_FOUND", err)
	}
	g.Restart()
	want(t, "the list after another restart", g.listed(), []uint64{2})
}

// TestReparse holds that what can be read by now becomes events, in order of
// receipt, with the source, path and time that it came with.
func TestReparse(t *testing.T) {
	g := start(t)
	g.MustPost("/acme/message", message("m0", "before"))
	g.isolate(
		entry(message("m1", "one")),
		entry(`{"broken`),
		entry(message("m2", "two")),
		entry(message("m3", "three")),
		entry(message("m0", "before")), // stored long since
	)
	g.reparse(&sluicev1.ReparseQuarantineRequest{All: true, DryRun: true},
		&sluicev1.ReparsedEntry{Sequence: 1, Kinds: []string{"message"}},
		&sluicev1.ReparsedEntry{Sequence: 2, Reason: "SYNTAX"},
		&sluicev1.ReparsedEntry{Sequence: 3, Kinds: []string{"message"}},
		&sluicev1.ReparsedEntry{Sequence: 4, Kinds: []string{"message"}},
		&sluicev1.ReparsedEntry{Sequence: 5, Kinds: []string{"message"}},
	)
	want(t, "the list after a dry run", g.listed(), []uint64{1, 2, 3, 4, 5})
	want(t, "the log after a dry run", g.texts(), []string{"before"})

	g.reparse(&sluicev1.ReparseQuarantineRequest{Sequences: []uint64{4, 1, 99}},
		&sluicev1.ReparsedEntry{Sequence: 1, Kinds: []string{"message"}, EventSequences: []uint64{2}},
		&sluicev1.ReparsedEntry{Sequence: 4, Kinds: []string{"message"}, EventSequences: []uint64{3}},
	)
	g.reparse(&sluicev1.ReparseQuarantineRequest{All: true},
		&sluicev1.ReparsedEntry{Sequence: 2, Reason: "SYNTAX"},
		&sluicev1.ReparsedEntry{Sequence: 3, Kinds: []string{"message"}, EventSequences: []uint64{4}},
		&sluicev1.ReparsedEntry{Sequence: 5, Kinds: []string{"message"}, EventSequences: []uint64{1}, Duplicate: true},
	)
	g.Restart()
	want(t, "the list", g.listed(), []uint64{2})
	want(t, "the log", g.texts(), []string{"before", "one", "three", "two"})

	res, err := g.events.GetEvent(t.Context(), &sluicev1.GetEventRequest{Sequence: 2, IncludeRaw: true})
	if err != nil {
		t.Fatalf("GetEvent(2) = %v", err)
	}
	e := res.GetEvent()
	if e.GetSource() != "acme" || e.GetPath() != "/message" || !e.GetReceiveTime().AsTime().Equal(received) ||
		e.GetKey() != "acme/b/m1" || string(e.GetRaw()) != message("m1", "one") {
		t.Errorf("event = %v, want source, path, receive_time and body of the entry", e)
	}
}

// TestReparseAfterACrash holds that an entry whose events are stored, but which
// is still there, is not stored again.
func TestReparseAfterACrash(t *testing.T) {
	g := start(t)
	for n, duplicate := range []bool{false, true, true} {
		g.isolate(entry(message("m1", "hello")), entry(`{"no":"id"}`))
		one, two := uint64(2*n+1), uint64(2*n+2)
		g.reparse(&sluicev1.ReparseQuarantineRequest{All: true},
			&sluicev1.ReparsedEntry{Sequence: one, Kinds: []string{"message"}, EventSequences: []uint64{1}, Duplicate: duplicate},
			&sluicev1.ReparsedEntry{Sequence: two, Kinds: []string{"other"}, EventSequences: []uint64{2}, Duplicate: duplicate},
		)
	}
	want(t, "the log", g.texts(), []string{"hello", ""})
	want(t, "the list", g.listed(), []uint64{})
}

// TestReparseRedacts holds that an entry gets no credential into the log that
// its source has by now, or that today's decoder finds.
func TestReparseRedacts(t *testing.T) {
	g := start(t)
	g.isolate(
		entry(message("m1", "say "+token+"!")),
		entry(strings.Replace(message("m2", "say found-by-name!"), `{`, `{"tok\u0065n":"found-by-name",`, 1)),
		entry(`{"messageId":"m3","`+token+`":1}`),
	)
	res, err := g.quarantine.ReparseQuarantine(t.Context(), &sluicev1.ReparseQuarantineRequest{All: true})
	if err != nil || len(res.GetEntries()) != 3 {
		t.Fatalf("ReparseQuarantine() = %v, %v, want three entries", res, err)
	}
	list, err := g.events.ListEvents(t.Context(), &sluicev1.ListEventsRequest{IncludeRaw: true})
	if err != nil || len(list.GetEvents()) != 3 {
		t.Fatalf("ListEvents() = %v, %v, want three events", list, err)
	}
	for _, e := range list.GetEvents() {
		b, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(token)) || bytes.Contains(b, []byte("found-by-name")) {
			t.Errorf("event holds a credential: %v", e)
		}
	}
	want(t, "what they say", g.texts()[:2], []string{"say !", "say !"})
}

// TestPages holds that pages follow each other over what was removed, and that
// filters select.
func TestPages(t *testing.T) {
	g := start(t)
	g.isolate(entry("1"), entry("[2"), entry("3"), entry("[4"), entry("[5"))
	other := entry("[6")
	other.Source, other.Reason = "gone", "TRAILING_DATA"
	g.isolate(other)
	g.reparse(&sluicev1.ReparseQuarantineRequest{Sequences: []uint64{1}},
		&sluicev1.ReparsedEntry{Sequence: 1, Kinds: []string{"other"}, EventSequences: []uint64{1}})

	pages := func(req *sluicev1.ListQuarantineEntriesRequest) (pages [][]uint64) {
		t.Helper()
		for {
			res, err := g.quarantine.ListQuarantineEntries(t.Context(), req)
			if err != nil {
				t.Fatalf("ListQuarantineEntries(%v) = %v", req, err)
			}
			var page []uint64
			for _, q := range res.GetEntries() {
				if len(q.GetRaw()) > 0 || q.GetRawBytes() == 0 {
					t.Errorf("entry %v, want the length of the body without the body", q)
				}
				page = append(page, q.GetSequence())
			}
			pages = append(pages, page)
			if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
				return pages
			}
		}
	}
	want(t, "pages of two", pages(&sluicev1.ListQuarantineEntriesRequest{PageSize: 2}), [][]uint64{{2, 3}, {4, 5}, {6}})
	want(t, "by source", pages(&sluicev1.ListQuarantineEntriesRequest{Sources: []string{"gone"}}), [][]uint64{{6}})
	want(t, "by reason", pages(&sluicev1.ListQuarantineEntriesRequest{Reasons: []string{"SYNTAX", "x"}}), [][]uint64{{2, 3, 4, 5}})

	req := &sluicev1.ReparseQuarantineRequest{All: true, PageSize: 3}
	res, err := g.quarantine.ReparseQuarantine(t.Context(), req)
	if err != nil || len(res.GetEntries()) != 3 || res.GetNextPageToken() == "" {
		t.Fatalf("ReparseQuarantine(%v) = %v, %v, want three entries and a token", req, res, err)
	}
	req.PageToken = res.GetNextPageToken()
	g.reparse(req, &sluicev1.ReparsedEntry{Sequence: 5, Reason: "SYNTAX"}, &sluicev1.ReparsedEntry{Sequence: 6, Reason: "SYNTAX"})
	want(t, "the list", g.listed(), []uint64{2, 4, 5, 6})
}

// TestOverHTTP holds the paths, and what is wrong with a request.
func TestOverHTTP(t *testing.T) {
	g := start(t)
	g.MustPost("/acme", "[1")
	if code, answer := g.Post("/acme", `{"token":"wrong","text":"secret words"}`); code != http.StatusUnauthorized {
		t.Fatalf("POST = %d %s, want 401", code, answer)
	}
	tests := map[string]struct {
		method, path, body string
		code               int
		want               string // part of the answer, without spaces
	}{
		"list":               {"GET", "/v1/quarantine?sources=acme&page_size=1", "", 200, `"reason":"SYNTAX"`},
		"list, typo":         {"GET", "/v1/quarantine?source=acme", "", 400, `"field":"source"`},
		"list, page size":    {"GET", "/v1/quarantine?page_size=1001", "", 400, `"field":"page_size"`},
		"list, page token":   {"GET", "/v1/quarantine?page_token=x", "", 400, `"reason":"INVALID_PAGE_TOKEN"`},
		"get":                {"GET", "/v1/quarantine/1", "", 200, `"raw":"WzE="`},
		"get, none":          {"GET", "/v1/quarantine/7", "", 404, `"reason":"QUARANTINE_ENTRY_NOT_FOUND"`},
		"get, zero":          {"GET", "/v1/quarantine/0", "", 400, `"field":"sequence"`},
		"reparse":            {"POST", "/v1/quarantine:reparse", `{"all":true,"dryRun":true}`, 200, `{"sequence":"1","reason":"SYNTAX"`},
		"reparse, nothing":   {"POST", "/v1/quarantine:reparse", `{}`, 400, `"field":"sequences"`},
		"reparse, both":      {"POST", "/v1/quarantine:reparse", `{"all":true,"sequences":["1"]}`, 400, `"field":"sequences"`},
		"reparse, zero":      {"POST", "/v1/quarantine:reparse", `{"sequences":["0"]}`, 400, `"field":"sequences"`},
		"discard, none":      {"POST", "/v1/quarantine:discard", `{"sequences":["7"],"reason":"r"}`, 200, `{}`},
		"discard, nothing":   {"POST", "/v1/quarantine:discard", `{"reason":"r"}`, 400, `"field":"sequences"`},
		"discard, unsaid":    {"POST", "/v1/quarantine:discard", `{"sequences":["1"]}`, 400, `"field":"reason"`},
		"discard, two lines": {"POST", "/v1/quarantine:discard", `{"sequences":["1"],"reason":"a\nb"}`, 400, `"field":"reason"`},
		"rejections":         {"GET", "/v1/rejections", "", 200, `"source":"acme","reason":"token","bodyBytes":34,"shape":"{\"token\":string,\"text\":string}"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, body := g.http(tt.method, tt.path, tt.body)
			body = strings.NewReplacer(": ", ":", ", ", ",").Replace(body)
			if code != tt.code || !strings.Contains(body, tt.want) || strings.Contains(body, "secret words") {
				t.Errorf("%s %s = %d %s, want %d and in it %s", tt.method, tt.path, code, body, tt.code, tt.want)
			}
		})
	}
	want(t, "the list", g.listed(), []uint64{1})
}
