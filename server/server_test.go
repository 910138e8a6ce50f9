package server_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/sluicegate/sluice"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should happen at once; a test that waits so long has
// failed.
const patience = 10 * time.Second

// callback is one that Sluice types.
const callback = `{"data":{"messageId":"1","chatId":"c","type":7,"payload":{"text":"hello"},"timestamp":"1700000000000","mentionSelf":false}}`

// An answer is what HTTP says.
type answer struct {
	code        int
	media, body string
}

// get returns the answer to a GET.
func get(t *testing.T, url string) answer {
	t.Helper()
	return ask(t, http.MethodGet, url, "")
}

// tidy takes out the spaces that protojson varies.
func tidy(json string) string { return strings.NewReplacer(": ", ":", ", ", ",").Replace(json) }

// post returns the answer to a POST of JSON.
func post(t *testing.T, url, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return do(t, req)
}

// ask returns the answer to a request with the given Accept header.
func ask(t *testing.T, method, url, accept string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	return do(t, req)
}

// do returns the answer to req.
func do(t *testing.T, req *http.Request) answer {
	t.Helper()
	req.Close = true // a connection that stays would outlive the test
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return answer{res.StatusCode, res.Header.Get("Content-Type"), string(body)}
}

func TestEndpoints(t *testing.T) {
	srv := servertest.Start(t, servertest.With(func(c *server.Config) { c.PProf = true }))
	srv.MustPost("/message", callback)
	tests := map[string]struct {
		path  string
		code  int
		media string
		want  string // part of the body
	}{
		"health":   {"/healthz", 200, "text/plain; charset=utf-8", "ok"},
		"ready":    {"/readyz", 200, "text/plain; charset=utf-8", "ready"},
		"index":    {"/", 200, "text/html; charset=utf-8", `href="openapi.json"`},
		"API":      {"/openapi.json", 200, "application/json", `"/v1/events:subscribe"`},
		"metrics":  {"/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", `sluice_server_log_last_sequence{log="events"} 1`},
		"profiles": {"/debug/pprof/", 200, "text/html; charset=utf-8", "goroutine"},
		"list":     {"/v1/events", 200, "application/json", `"sequence":"1"`},
		"get":      {"/v1/events/1", 200, "application/json", `"event":{"sequence":"1"`},
		"drift":    {"/v1/drift", 200, "application/json", `{`},
		"verify":   {"/v1/log:verify", 200, "application/x-ndjson", `{"result":{"report":{"ok":true,"logs":[{"name":"EVENTS",`},
		"nothing":  {"/v1/events?filter.chat_ids=none&filter.isSelf=true&pageSize=1", 200, "application/json", `{}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := get(t, srv.HTTPURL()+tt.path)
			if got.code != tt.code || got.media != tt.media || !strings.Contains(tidy(got.body), tt.want) {
				t.Errorf("GET %s = %d %s %s\nwant %d %s and in it %s", tt.path, got.code, got.media, got.body, tt.code, tt.media, tt.want)
			}
		})
	}
	if !json.Valid(sluice.OpenAPI) {
		t.Error("the embedded OpenAPI document is not JSON")
	}
}

// TestRetypeOverHTTP has nothing to do: today's decoder has typed everything.
func TestRetypeOverHTTP(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/message", callback)
	got := post(t, srv.HTTPURL()+"/v1/events:retype", `{"start":{"anchor":"ANCHOR_EARLIEST"},"dryRun":true}`)
	want := `{"result":{"summary":{"read":"1","current":"1"}}}` + "\n"
	if got.code != http.StatusOK || got.media != "application/x-ndjson" || tidy(got.body) != want {
		t.Errorf("retype = %d %s %s, want 200 %s", got.code, got.media, got.body, want)
	}
	if got = post(t, srv.HTTPURL()+"/v1/events:retype", `{}`); got.code != http.StatusBadRequest {
		t.Errorf("retype without a start = %d %s, want 400", got.code, got.body)
	}
}

// TestErrorsOverHTTP holds that whatever is wrong is a google.rpc.Status, for a
// stream that is refused, too, and that a parameter with a typo is wrong.
func TestErrorsOverHTTP(t *testing.T) {
	srv := servertest.Start(t)
	tests := map[string]struct {
		method, path, accept string
		code                 int
		want                 string // start of the body
		detail               string // part of it
	}{
		"no event":         {"GET", "/v1/events/2", "", 404, `{"code":5,`, `"reason":"EVENT_NOT_FOUND"`},
		"no number":        {"GET", "/v1/events/x", "", 400, `{"code":3,`, ""},
		"no such call":     {"GET", "/v1/nothing", "", 404, `{"code":5,`, ""},
		"no such method":   {"DELETE", "/v1/events", "", 405, `{"code":12,`, ""},
		"typo":             {"GET", "/v1/events?page_sice=1", "", 400, `{"code":3,`, `"metadata":{"field":"page_sice"}`},
		"typo in a filter": {"GET", "/v1/events?filter.chat_id=c", "", 400, `{"code":3,`, `"reason":"INVALID_REQUEST"`},
		"field of a field": {"GET", "/v1/events?page_size.x=1", "", 400, `{"code":3,`, ""},
		"stream, typo":     {"GET", "/v1/events:subscribe?filter.chat_id=c", "", 400, `{"code":3,`, `"field":"filter.chat_id"`},
		"stream, cursor":   {"GET", "/v1/events:subscribe?start.cursor=x", "", 400, `{"code":3,`, `"reason":"INVALID_CURSOR"`},
		"events, cursor":   {"GET", "/v1/events:subscribe?start.cursor=x", "text/event-stream", 400, `{"code":3,`, `"reason":"INVALID_CURSOR"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := ask(t, tt.method, srv.HTTPURL()+tt.path, tt.accept)
			body := tidy(got.body)
			if got.code != tt.code || got.media != "application/json" || !strings.HasPrefix(body, tt.want) || !strings.Contains(body, tt.detail) {
				t.Errorf("%s %s = %d %s %s\nwant %d application/json %s…%s", tt.method, tt.path, got.code, got.media, body, tt.code, tt.want, tt.detail)
			}
		})
	}
}

// TestUnreadableRequestsHaveAReason holds the errors of the gateway itself,
// which come from before any service, to the form of all others.
func TestUnreadableRequestsHaveAReason(t *testing.T) {
	srv := servertest.Start(t)
	for name, tt := range map[string]struct {
		path, body string
		code       int
		want       string
	}{
		"negative":      {"/v1/consumerGroups/g:pull", `{"maxEvents":-1}`, 400, `"code":3`},
		"no duration":   {"/v1/consumerGroups/g:pull", `{"wait":"soon"}`, 400, `"code":3`},
		"unknown field": {"/v1/consumerGroups/g:pull", `{"max":1}`, 400, `"code":3`},
		"two verdicts":  {"/v1/consumerGroups/g:settle", `{"items":[{"lease":"x","ack":{},"nack":{}}]}`, 400, `"code":3`},
		"no JSON":       {"/v1/consumerGroups", `{`, 400, `"code":3`},
		"no call":       {"/v1/nothing", `{}`, 404, `"code":5`},
		"no such verb":  {"/v1/drift", `{}`, 405, `"code":12`},
	} {
		got := post(t, srv.HTTPURL()+tt.path, tt.body)
		body := tidy(got.body)
		if got.code != tt.code || !strings.Contains(body, tt.want) || !strings.Contains(body, `"reason":"INVALID_REQUEST"`) ||
			strings.Contains(body, "proto:") || strings.Contains(body, "\u00a0") {
			t.Errorf("%s: POST %s %s = %d %s", name, tt.path, tt.body, got.code, body)
		}
	}
	if got := get(t, srv.HTTPURL()+"/v1/events?page_size=abc"); !strings.Contains(tidy(got.body), `"reason":"INVALID_REQUEST"`) {
		t.Errorf("a parameter that is no number: %s", got.body)
	}
}

// TestMetrics holds that what an operator watches is there, with its type and a
// help text.
func TestMetrics(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/", callback)
	get(t, srv.HTTPURL()+"/v1/events")
	body := get(t, srv.HTTPURL()+"/metrics").body
	for _, want := range []string{
		"sluice_server_ready 1",
		`sluice_server_log_first_sequence{log="events"} 1`,
		`sluice_server_log_records{log="events"} 1`,
		`sluice_server_log_bytes{log="events"} `,
		`sluice_server_log_age_seconds{log="events"} `,
		`sluice_server_log_records{log="quarantine"} 0`,
		`sluice_server_requests_total{code="OK",method="/sluice.v1.EventService/ListEvents"} 1`,
		`sluice_server_request_duration_seconds_count{method="/sluice.v1.EventService/ListEvents"} 1`,
		"go_goroutines ", "process_resident_memory_bytes ", "go_build_info{",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

// TestStart shows what a start costs. The figures are only printed: they are
// the machine's, too.
func TestStart(t *testing.T) {
	began := time.Now()
	srv := servertest.Start(t)
	if got := get(t, srv.HTTPURL()+"/readyz"); got.code != http.StatusOK {
		t.Fatalf("/readyz = %d %s, want 200", got.code, got.body)
	}
	took := time.Since(began)
	metrics := get(t, srv.HTTPURL()+"/metrics").body
	_, rss, _ := strings.Cut(metrics, "\nprocess_resident_memory_bytes ")
	rss, _, _ = strings.Cut(rss, "\n")
	t.Logf("ready after %v, resident memory of the test's process %s bytes", took, rss)
}

func TestRequestIDOverHTTP(t *testing.T) {
	srv := servertest.Start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.HTTPURL()+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("X-Request-Id", "mine")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("X-Request-Id"); got != "mine" {
		t.Errorf("X-Request-Id = %q, want the one that was sent", got)
	}
}

// TestNotReady holds that a gateway that cannot take callbacks says so at every
// door.
func TestNotReady(t *testing.T) {
	srv := servertest.Start(t, servertest.With(func(c *server.Config) {
		c.MinFree = 1 << 60
		c.CommitTimeout = 50 * time.Millisecond
	}))
	if got := get(t, srv.HTTPURL()+"/readyz"); got.code != http.StatusServiceUnavailable || !strings.Contains(got.body, "full") {
		t.Errorf("/readyz = %d %s, want 503 and the reason", got.code, got.body)
	}
	if got := get(t, srv.HTTPURL()+"/healthz"); got.code != http.StatusOK {
		t.Errorf("/healthz = %d, want 200: the process lives", got.code)
	}
	if got := get(t, srv.HTTPURL()+"/metrics"); !strings.Contains(got.body, "\nsluice_server_ready 0") {
		t.Error("/metrics has no sluice_server_ready 0")
	}
	if code, answer := srv.Post("/message", callback); code != http.StatusServiceUnavailable || !strings.Contains(answer, `"errcode":50301`) {
		t.Errorf("POST = %d %s, want 503 and errcode 50301", code, answer)
	}
	watchHealth(t, srv, "sluice.v1.CallbackService").until(healthv1.HealthCheckResponse_NOT_SERVING)
}

// A healthWatch follows the gRPC health service.
type healthWatch struct {
	t      *testing.T
	stream healthv1.Health_WatchClient
}

func watchHealth(t *testing.T, srv *servertest.Server, service string) healthWatch {
	t.Helper()
	stream, err := healthv1.NewHealthClient(srv.Conn()).Watch(t.Context(), &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return healthWatch{t, stream}
}

// until waits for a status.
func (w healthWatch) until(want healthv1.HealthCheckResponse_ServingStatus) {
	w.t.Helper()
	for {
		res, err := w.stream.Recv()
		if err != nil {
			w.t.Fatalf("Watch() = %v, want %v", err, want)
		}
		if res.GetStatus() == want {
			return
		}
	}
}

func TestHealth(t *testing.T) {
	srv := servertest.Start(t)
	for _, service := range []string{"", "sluice.v1.CallbackService", "sluice.v1.EventService", "sluice.v1.QuarantineService", "sluice.v1.DriftService"} {
		watchHealth(t, srv, service).until(healthv1.HealthCheckResponse_SERVING)
	}
}

func TestReflection(t *testing.T) {
	for _, on := range []bool{true, false} {
		srv := servertest.Start(t, servertest.With(func(c *server.Config) { c.Reflection = on }))
		stream, err := reflectionv1.NewServerReflectionClient(srv.Conn()).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
		}); err != nil && !errors.Is(err, io.EOF) { // refused already: Recv says why
			t.Fatal(err)
		}
		res, err := stream.Recv()
		want := codes.Unimplemented
		if on {
			want = codes.OK
		}
		if status.Code(err) != want {
			t.Errorf("reflection %v: ServerReflectionInfo() = %v, want %v", on, err, want)
		}
		if on && !strings.Contains(res.String(), "sluice.v1.EventService") {
			t.Errorf("ServerReflectionInfo() = %v, want it to list EventService", res)
		}
	}
}

// TestCallbackOverGRPC holds that a gRPC client can post, too.
func TestCallbackOverGRPC(t *testing.T) {
	srv := servertest.Start(t)
	res, err := sluicev1.NewCallbackServiceClient(srv.Conn()).ReceiveCallback(t.Context(), &sluicev1.ReceiveCallbackRequest{
		Path: "/message", Callback: &sluicev1.Callback{Body: []byte(callback)},
	})
	if err != nil || len(res.GetSequences()) != 1 {
		t.Errorf("ReceiveCallback() = %v, %v, want one sequence", res, err)
	}
}
