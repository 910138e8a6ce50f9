package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluicegate/sluice"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
)

const (
	canary   = "canary5f0c1e9a7b3d2f4e6a"   // a token of the source
	stranger = "canarystranger0b1d9c3e5f7a" // a token, but nobody's
	nested   = "canarynested4c6d0b1f3a8e2a" // called a token where none belongs
	signer   = "canarysigner8e2a4c6d0b1f3a" // the source's signature token
	control  = "this-may-be-seen"
)

// escaped is the canary as a JSON string may spell it.
var escaped = func() string {
	var b strings.Builder
	for _, r := range canary {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}()

// canaryBodies are callbacks with the token in every place and spelling. Some
// are refused: those that hold a stranger's.
func canaryBodies() []string {
	message := func(id, fields string) string {
		return fmt.Sprintf(`{"data":{"messageId":%q,"chatId":"c","botId":"b","type":7,"payload":{"text":"%s"},%s}}`, id, control, fields)
	}
	return []string{
		message("m1", `"token":"`+canary+`"`),
		message("m2", `"tok\u0065n":"`+canary+`"`),
		message("m3", `"token\t":"`+canary+`"`),
		message("m4", `"token":"`+escaped+`"`),
		message("m5", `"token":"`+canary+`","token":"`+canary+`"`),
		message("m6", `"extra":{"deep":[{"token":"`+canary+`"}]}`),
		message("m7", `"contactName":"my token is `+canary+`"`),
		message("m8", `"externalUserId":"`+escaped+`"`),
		message("m9", `"`+canary+`":"a name"`),
		message(canary, `"token":"`+canary+`"`),
		message("m11", `"token":"`+stranger+`"`),
		message("m12", `"token":"`+canary+`","token":"`+stranger+`"`),
		message("m13", `"token":"`+canary+`","x":{"token":"`+nested+`"}`),
		message("m14", `"note":"`+signer+`"`),
		`{"token":"` + canary + `","other":"` + control + `"}`,
		`[{"token":"` + canary + `"}]`,
		`"` + canary + `"`,
		`{"token":"` + canary + `","` + control + `":`, // not JSON from here on
		`{"tok\u0065n" : "` + escaped + `"`,
		`{"token":"` + canary,
		`token=` + canary + `&x=` + control,
		canary[:12] + canary + canary[12:],
		`{"token":"` + stranger,
	}
}

// TestCanary sends a known token along every way in, over HTTP and gRPC, and
// looks for it in every way out: the answers, every call of the API, metrics,
// the log at its most talkative, and each byte of the data directory.
func TestCanary(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []server.Source{{Name: "acme", Path: "/hook-7f3a", Tokens: []string{canary}, SignatureToken: signer}}
	cfg.PProf = true
	storeOld(t, cfg.DataDir)
	log := new(buffer)
	srv := runLogged(t, cfg, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	out := map[string]*bytes.Buffer{} // by where it came out
	add := func(where string, what ...any) {
		if out[where] == nil {
			out[where] = new(bytes.Buffer)
		}
		fmt.Fprintln(out[where], what...)
	}

	conn, err := grpc.NewClient(srv.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	callbacks := sluicev1.NewCallbackServiceClient(conn)
	typed := &sluicev1.Event{Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
		MessageId: "m15", Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: "say " + canary}},
	}}}
	for _, body := range canaryBodies() {
		for _, path := range []string{
			"/hook-7f3a", "/hook-7f3a/message?token=" + canary, "/hook-7f3a/p/" + canary + "?msg_signature=" + signer + "&nonce=" + canary,
			"/hook-7f3a?token=" + stranger, "/nowhere/" + canary,
		} {
			got := post(t, "http://"+srv.CallbackAddr()+path, body)
			add("answers", got)
			refused := strings.Contains(path+body, stranger) || strings.HasPrefix(path, "/nowhere")
			if want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusOK}[refused]; got.code != want {
				t.Errorf("POST %s to %s = %d %s, want %d", body, path, got.code, got.body, want)
			}
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-token", canary, "x-request-id", "request "+canary)
		for _, req := range []*sluicev1.ReceiveCallbackRequest{
			{Path: "/hook-7f3a", Token: canary, Callback: &sluicev1.Callback{Body: []byte("  " + body)}},
			{Path: "/" + canary, Token: stranger, Callback: &sluicev1.Callback{Body: []byte(body)}},
			{Path: "/hook-7f3a", Callback: &sluicev1.Callback{Events: []*sluicev1.Event{typed}}},
		} {
			res, err := callbacks.ReceiveCallback(ctx, req)
			add("gRPC answers", res, err, status.Convert(err).Proto())
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}

	api := "http://" + srv.HTTPAddr()
	add("POST /v1/consumerGroups", post(t, api+"/v1/consumerGroups",
		`{"consumerGroupId":"w","consumerGroup":{"start":{"anchor":"ANCHOR_EARLIEST"},"retry":{"maxAttempts":1}}}`))
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if strings.Contains(ask(t, http.MethodGet, api+"/v1/drift", "").body, `"data.extra"`) {
			break // the report, which follows the log, has come so far
		}
	}
	for _, path := range readable(t) {
		add("GET "+strings.SplitN(path, "?", 2)[0], ask(t, http.MethodGet, api+path, ""))
	}
	add("server-sent events", ask(t, http.MethodGet, api+"/v1/events:subscribe?"+everything, "text/event-stream"))
	for _, path := range []string{"/v1/events?token=" + canary, "/v1/quarantine/x?t=" + canary, "/v1/events/999999"} {
		add("errors", ask(t, http.MethodGet, api+path, ""))
	}
	for path, body := range calls(t) {
		got := post(t, api+path, body)
		if got.code != http.StatusOK && !strings.HasSuffix(path, ":settle") { // no lease is left to settle
			t.Errorf("POST %s = %d %s, want 200", path, got.code, got.body)
		}
		add("POST "+path, got)
	}
	add("retyping", post(t, api+"/v1/events:retype", `{"start":{"anchor":"ANCHOR_EARLIEST"}}`))
	add("GET /v1/events", ask(t, http.MethodGet, api+"/v1/events?page_size=1000&include_raw=true", ""))
	srv.stop(nil)
	add("the log", log)
	err = filepath.WalkDir(cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		add("the store", path, string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	for _, where := range []string{
		"the store", "GET /v1/events", "GET /v1/events/1", "GET /v1/events:subscribe", "GET /v1/quarantine/1", "server-sent events",
	} {
		if text, ok := out[where]; !ok || !strings.Contains(unpacked(text.String()), control) {
			t.Errorf("%s does not hold what may be seen: to look for the token there proves nothing", where)
		}
	}
	for where, parts := range map[string][]string{
		"GET /metrics":       {"sluice_quarantine_entries", "sluice_ingest_rejected_total", "sluice_drift_findings{"},
		"GET /v1/rejections": {`"shape"`},
		"GET /v1/drift":      {`"data.extra"`},
		"the log":            {"callback stored", `msg="quarantine entries discarded" reason=seen sequences=`},

		"POST /v1/quarantine:reparse": {`"SYNTAX"`},
		"POST /v1/events:retype":      {`"message.text.text"`, "say  again"},
		"retyping":                    {`"message.text.text"`, "say  again", `"revisionSequence"`},
	} {
		for _, part := range parts {
			if text, ok := out[where]; !ok || !strings.Contains(text.String(), part) {
				t.Errorf("%s does not hold %s: to look for the token there proves nothing", where, part)
			}
		}
	}
	for where, text := range out {
		said := unpacked(text.String())
		for _, secret := range []string{canary, stranger, nested, signer, escaped, "hook-7f3a"} {
			if i := strings.Index(said, secret); i >= 0 {
				t.Errorf("%s holds %s: %q", where, secret, said[max(0, i-100):min(len(said), i+100)])
			}
		}
	}
}

// storeOld begins the log in dir with an event of a decoder that knew no
// messages, and kept the canary because it looked for it without its escape.
func storeOld(t *testing.T, dir string) {
	t.Helper()
	text := fmt.Sprintf(`say \u%04x%s again: %s`, canary[0], canary[1:], control)
	e := &sluicev1.Event{
		Source: "acme", Key: "acme/old", ChatKey: "acme/old", ReceiveTime: timestamppb.Now(),
		Raw:  []byte(`{"data":{"messageId":"m0","chatId":"c","botId":"b","type":7,"payload":{"text":"` + text + `"}}}`),
		Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{}},
	}
	data, err := record.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := local.Open(t.Context(), local.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	l, err := engine.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: record.Subject(e), Data: data}); err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// everything asks a stream for all that there is, and no more.
const everything = "start.anchor=ANCHOR_EARLIEST&stop.anchor=ANCHOR_LATEST&include_raw=true"

// An operation is a call as the API's own description has it. The tests take it
// from there so that a call to come is among them.
type operation struct {
	Parameters []struct{ Name string }
}

// operations returns the calls by path and method.
func operations(t *testing.T) map[string]map[string]operation {
	t.Helper()
	var api struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(sluice.OpenAPI, &api); err != nil {
		t.Fatal(err)
	}
	return api.Paths
}

// calls returns the paths of all calls that are a POST, but for the callback
// itself, with a body for each.
func calls(t *testing.T) map[string]string {
	t.Helper()
	bodies := map[string]string{
		"/v1/events:subscribe":                                     `{"start":{"anchor":"ANCHOR_EARLIEST"},"stop":{"anchor":"ANCHOR_LATEST"},"includeRaw":true}`,
		"/v1/events:retype":                                        `{"start":{"anchor":"ANCHOR_EARLIEST"},"dryRun":true}`,
		"/v1/quarantine:reparse":                                   `{"all":true,"pageSize":1000}`,
		"/v1/quarantine:discard":                                   `{"sequences":["1","2"],"reason":"seen"}`,
		"/v1/consumerGroups":                                       `{"consumerGroupId":"w2","consumerGroup":{}}`,
		"/v1/consumerGroups/{consumerGroupId}:pull":                `{"member":"m","maxEvents":100,"includeRaw":true}`,
		"/v1/consumerGroups/{consumerGroupId}:settle":              `{"items":[{"lease":"none","ack":{}}]}`,
		"/v1/consumerGroups/{consumerGroupId}:seek":                `{"to":{"anchor":"ANCHOR_EARLIEST"},"dryRun":true}`,
		"/v1/consumerGroups/{consumerGroupId}/deadLetters:redrive": `{"selection":{"all":true},"dryRun":true}`,
		"/v1/consumerGroups/{consumerGroupId}/deadLetters:discard": `{"selection":{"all":true},"reason":"seen","dryRun":true}`,
	}
	for path, methods := range operations(t) {
		_, isCall := methods["post"]
		if _, known := bodies[path]; isCall && !known && path != "/{path}" {
			t.Errorf("%s: this test does not know what to send", path)
		}
	}
	for path, body := range maps.Clone(bodies) {
		delete(bodies, path)
		bodies[strings.Replace(path, "{consumerGroupId}", "w", 1)] = body
	}
	return bodies
}

// readable returns the paths of all that can be read over HTTP, as much as each
// can show.
func readable(t *testing.T) []string {
	t.Helper()
	paths := []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"}
	for path, methods := range operations(t) {
		get, ok := methods["get"]
		if !ok {
			continue
		}
		path = strings.Replace(path, "{consumerGroupId}", "w", 1)
		query := ""
		for _, p := range get.Parameters {
			switch p.Name {
			case "includeRaw":
				query += "&include_raw=true"
			case "pageSize":
				query += "&page_size=1000"
			}
		}
		switch {
		case strings.HasSuffix(path, ":subscribe"):
			paths = append(paths, path+"?"+everything)
		case strings.Contains(path, "{sequence}"):
			for n := range 60 {
				paths = append(paths, strings.Replace(path, "{sequence}", fmt.Sprint(n), 1)+"?"+strings.TrimPrefix(query, "&"))
			}
		case strings.Contains(path, "{"):
			t.Errorf("%s: this test does not know what to ask for", path)
		default:
			paths = append(paths, path+"?"+strings.TrimPrefix(query, "&"))
		}
	}
	return paths
}

var packed = regexp.MustCompile(`"[A-Za-z0-9+/]{16,}={0,2}"`)

// unpacked returns text, and behind it what in it is bytes as protojson has
// them.
func unpacked(text string) string {
	var b strings.Builder
	b.WriteString(text)
	for _, quoted := range packed.FindAllString(text, -1) {
		if raw, err := base64.StdEncoding.DecodeString(strings.Trim(quoted, `"`)); err == nil {
			b.Write(raw)
			b.WriteByte('\n')
		}
	}
	return b.String()
}
