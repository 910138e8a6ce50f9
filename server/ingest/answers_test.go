package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// Every row of DESIGN.md's table "Answering the vendor".
func TestAnswers(t *testing.T) {
	acme := Source{Name: "acme", Path: "/hook-7f3a", Tokens: []Secret{secret(t, token)}}
	plain := strings.ReplaceAll(text("m1", "hello"), token, "")
	tests := map[string]struct {
		method, path, body string
		header             http.Header
		status             int
		answer             string
		events, isolated   uint64
	}{
		"message":          {path: "/hook-7f3a", body: text("m1", "hello"), status: 200, answer: ok, events: 1},
		"message below":    {path: "/hook-7f3a/message", body: text("m1", "hello"), status: 200, answer: ok, events: 1},
		"other JSON":       {path: "/hook-7f3a/new/thing", body: `{"a":1}`, status: 200, answer: ok, events: 1},
		"scalar":           {path: "/hook-7f3a", body: `17`, status: 200, answer: ok, events: 1},
		"not JSON":         {path: "/hook-7f3a", body: `{"a":`, status: 200, answer: ok, isolated: 1},
		"empty":            {path: "/hook-7f3a", body: ``, status: 200, answer: ok, isolated: 1},
		"trailing data":    {path: "/hook-7f3a", body: `{} x`, status: 200, answer: ok, isolated: 1},
		"not JSON, untold": {path: "/hook-7f3a", header: http.Header{"Content-Type": nil}, body: `<xml/>`, status: 200, answer: ok, isolated: 1},
		"not JSON, told": {
			path: "/hook-7f3a", header: http.Header{"Content-Type": {"text/xml"}}, body: `<xml/>`,
			status: 415, answer: `{"errcode":41501,"errmsg":"body is not plain JSON"}`,
		},
		"JSON called a form": {
			path: "/hook-7f3a", header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, body: plain,
			status: 200, answer: ok, events: 1,
		},
		"JSON, charset": {
			path: "/hook-7f3a", header: http.Header{"Content-Type": {"Application/JSON; charset=utf-8"}}, body: `{"a":`,
			status: 200, answer: ok, isolated: 1,
		},
		"Content-Type is no media type": {
			path: "/hook-7f3a", header: http.Header{"Content-Type": {"application/json; charset"}}, body: plain,
			status: 200, answer: ok, events: 1,
		},
		"wrong token": {
			path: "/hook-7f3a", body: strings.ReplaceAll(text("m1", "hello"), token, "wrong-token"),
			status: 401, answer: `{"errcode":40101,"errmsg":"callback not accepted"}`,
		},
		"wrong path": {
			path: "/hook-7f3b", body: text("m1", "hello"),
			status: 401, answer: `{"errcode":40101,"errmsg":"callback not accepted"}`,
		},
		"wrong path, wrong type": {
			path: "/", header: http.Header{"Content-Type": {"text/xml"}}, body: `<xml/>`,
			status: 401, answer: `{"errcode":40101,"errmsg":"callback not accepted"}`,
		},
		"too large": {
			path: "/hook-7f3a", body: `"` + strings.Repeat("x", 1<<20-1) + `"`,
			status: 413, answer: `{"errcode":41301,"errmsg":"body too large"}`,
		},
		"as large as may be": {path: "/hook-7f3a", body: `"` + strings.Repeat("x", 1<<20-2) + `"`, status: 200, answer: ok, events: 1},
		"1 MiB of brackets":  {path: "/hook-7f3a", body: strings.Repeat("[", 1<<20), status: 200, answer: ok, isolated: 1},
		"1 MiB of numbers":   {path: "/hook-7f3a", body: `{"a":[` + strings.Repeat("1,", 1<<19-8) + `1]}`, status: 200, answer: ok, events: 1},
		"GET": {
			method: http.MethodGet, path: "/hook-7f3a",
			status: 405, answer: `{"errcode":40501,"errmsg":"method not allowed, use POST"}`,
		},
		"PUT": {
			method: http.MethodPut, path: "/hook-7f3a", body: text("m1", "hello"),
			status: 405, answer: `{"errcode":40501,"errmsg":"method not allowed, use POST"}`,
		},
		"method override": {
			path: "/hook-7f3a", body: plain, status: 200, answer: ok, events: 1,
			header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "X-Http-Method-Override": {"GET"}},
		},
		"compressed": {
			path: "/hook-7f3a", header: http.Header{"Content-Encoding": {"gzip"}}, body: "\x1f\x8b",
			status: 415, answer: `{"errcode":41501,"errmsg":"body is not plain JSON"}`,
		},
		"not compressed": {
			path: "/hook-7f3a", header: http.Header{"Content-Encoding": {"Identity"}}, body: plain,
			status: 200, answer: ok, events: 1,
		},
		"headers for the gateway": {
			path: "/hook-7f3a", body: plain, status: 200, answer: ok, events: 1,
			header: http.Header{"Grpc-Timeout": {"nonsense"}, "Grpc-Metadata-X-Bin": {"?"}, "Accept": {"text/html"}, "Te": {"trailers"}},
		},
		"parameters for nobody": {
			path: "/hook-7f3a?path=/x&callback.malformed=x&callback=x&a=1&a=2&timestamp=1&timestamp=2&%zz", body: plain,
			status: 200, answer: ok, events: 1,
		},
		"two tokens in the URL": {
			path: "/hook-7f3a?token=" + token + "&token=wrong", body: plain,
			status: 400, answer: `{"errcode":40001,"errmsg":"bad request"}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := start(t, t.TempDir(), Config{Sources: []Source{acme}})
			r := g.request(tt.path, strings.NewReader(tt.body))
			if tt.method != "" {
				r.Method = tt.method
			}
			for k, v := range tt.header {
				r.Header[k] = v
			}
			status, answer, header := g.do(r)
			if status != tt.status || answer != tt.answer {
				t.Errorf("%s %s = %d %s, want %d %s", r.Method, tt.path, status, answer, tt.status, tt.answer)
			}
			if got := header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type = %q, want application/json", got)
			}
			if got := header.Get("Allow"); (status == 405) != (got == "POST") {
				t.Errorf("Allow = %q with status %d", got, status)
			}
			g.wantStored(tt.events, tt.isolated)
		})
	}
}

// The mux that translates the POST must not have its own idea of a path.
func TestPaths(t *testing.T) {
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "hook", Path: "/hook-7f3a"}, DefaultSource()}})
	tests := []struct{ path, source, want string }{
		{"", "default", "/"},
		{"/", "default", "/"},
		{"//", "default", "/"},
		{"/message", "default", "/message"},
		{"/message/", "default", "/message"},
		{"/hook-7f3a", "hook", "/"},
		{"/hook-7f3a/", "hook", "/"},
		{"//hook-7f3a//", "hook", "/"},
		{"/hook-7f3a/message", "hook", "/message"},
		{"/hook-7f3a/room/left", "hook", "/room/left"},
		{"/hook-7f3a//room//left/", "hook", "/room/left"},
		{"/hook-7f3ab", "default", "/hook-7f3ab"},
		{"/hook-7f3/a", "default", "/hook-7f3/a"},
		{"/hook-7f3a/v1/events:subscribe", "hook", "/v1/events:subscribe"},
		{"/hook-7f3a/:x", "hook", "/:x"},
		{"/hook-7f3a/a%20b%2Fc", "hook", "/a b/c"},
		{"/hook-7f3a/%E6%B6%88%E6%81%AF", "hook", "/消息"},
		{"/hook-7f3a/%252F", "hook", "/%2F"},
		{"/hook-7f3a/%ff", "hook", "/\uFFFD"},
		{"/hook%2D7f3a/x", "hook", "/x"},
		{"/hook-7f3a/../x", "hook", "/../x"},
		{"/hook-7f3a/{path=**}", "hook", "/{path=**}"},
		{"/" + strings.Repeat("a/", 500), "default", "/" + strings.TrimSuffix(strings.Repeat("a/", 500), "/")},
	}
	for i, tt := range tests {
		g.mustPost(tt.path, fmt.Sprintf(`{"n":%d}`, i))
	}
	for i, e := range g.stored() {
		if got := e.GetOther().GetPath(); got != tests[i].want {
			t.Errorf("POST %s: other.path = %q, want %q", tests[i].path, got, tests[i].want)
		}
		if tt := tests[i]; e.GetSource() != tt.source || e.GetPath() != tt.want {
			t.Errorf("POST %s: source %s, path %q, want %s, %q", tt.path, e.GetSource(), e.GetPath(), tt.source, tt.want)
		}
	}
	if status, _ := g.post("/"+strings.Repeat("a", maxPath), `{}`); status != http.StatusUnauthorized {
		t.Errorf("POST to a path of %d bytes = %d, want 401", maxPath+1, status)
	}
}

// A request target without a leading slash is still answered as the vendor
// expects.
func TestOddTargets(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	h, err := NewHandler(g.service)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "*", "message"} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(fmt.Sprintf(`{"at":%q}`, path)))
		r.URL.Path = path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK || w.Body.String() != ok {
			t.Errorf("POST %q = %d %s, want 200", path, w.Code, w.Body)
		}
	}
}

// A body that turns out to be too large is not read to its end, and the
// connection is closed.
func TestTooLargeClosesTheConnection(t *testing.T) {
	tests := map[string]string{
		"announced": "Content-Length: 1001\r\n\r\n",
		"chunked":   "Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + strings.Repeat("x", 1001) + "\r\n",
	}
	for name, rest := range tests {
		t.Run(name, func(t *testing.T) {
			g := start(t, t.TempDir(), Config{MaxBody: 1000})
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: sluice\r\n"+rest); err != nil {
				t.Fatal(err)
			}
			br := bufio.NewReader(conn)
			res, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if want := `{"errcode":41301,"errmsg":"body too large"}`; res.StatusCode != 413 || string(answer) != want {
				t.Errorf("answer = %d %s, want 413 %s", res.StatusCode, answer, want)
			}
			if !res.Close {
				t.Error("the connection stays open")
			}
			if _, err := br.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("ReadByte() = %v, want that the connection ends", err)
			}
			g.wantStored(0, 0)
		})
	}
}

// A body that breaks off is not a callback.
func TestBodyCutOff(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: sluice\r\nContent-Length: 9\r\n\r\n{\"a\":"); err != nil {
		t.Fatal(err)
	}
	tcp, isTCP := conn.(*net.TCPConn)
	if !isTCP {
		t.Fatalf("conn is %T", conn)
	}
	if err := tcp.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	_ = conn.Close()
	if res.StatusCode != http.StatusBadRequest || !res.Close {
		t.Errorf("status = %d, close %v, want 400 and an end", res.StatusCode, res.Close)
	}
	g.wantStored(0, 0)
}

func TestLogFull(t *testing.T) {
	small := eventlog.LogConfig{Name: "EVENTS", DedupeWindow: time.Minute, MaxBytes: 4 << 10}
	g := start(t, t.TempDir(), Config{}, small)
	g.mustPost("/", text("m1", "fits"))
	r := g.request("/", strings.NewReader(text("m2", strings.Repeat("x", 4<<10))))
	status, answer, header := g.do(r)
	if want := `{"errcode":50301,"errmsg":"cannot be stored now, try again"}`; status != 503 || answer != want {
		t.Errorf("POST to a full log = %d %s, want 503 %s", status, answer, want)
	}
	if header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if got := g.metric(g.service.metrics.callbacks, "default", "message", "failed"); got != 1 {
		t.Errorf("failed callbacks = %v, want 1", got)
	}
	g.mustPost("/", text("m1", "fits")) // still a duplicate
}

// An outcome that is not known is never success.
func TestCommitTimeout(t *testing.T) {
	g := start(t, t.TempDir(), Config{CommitTimeout: time.Nanosecond})
	for _, body := range []string{text("m1", "hello"), `{"a":1}`, `[{"a":1},{"a":2}]`, `{"a":`} {
		if status, answer := g.post("/", body); status != http.StatusServiceUnavailable {
			t.Errorf("POST %s = %d %s, want 503", body, status, answer)
		}
	}
	_, err := g.dial().ReceiveCallback(t.Context(), &sluicev1.ReceiveCallbackRequest{Callback: &sluicev1.Callback{Body: []byte(`{"a":2}`)}})
	if status.Code(err) != codes.Unavailable || reason(err) != "LOG_UNAVAILABLE" {
		t.Errorf("ReceiveCallback() = %v, want UNAVAILABLE, LOG_UNAVAILABLE", err)
	}
	if n := strings.Count(g.log.String(), "callbacks cannot be stored"); n != 1 {
		t.Errorf("the operator is warned %d times, want once", n)
	}
}

func TestStopped(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	g.stop()
	if status, answer := g.post("/", text("m1", "hello")); status != http.StatusServiceUnavailable {
		t.Errorf("POST = %d %s, want 503", status, answer)
	}
}

// The vendor may close the connection as soon as it has sent the body.
func TestCallerLeaves(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	h, err := NewHandler(g.service)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(text("m1", "hello"))))
	if w.Code != http.StatusOK {
		t.Errorf("POST = %d %s, want 200", w.Code, w.Body)
	}
	g.wantStored(1, 0)
}

func TestPanic(t *testing.T) {
	type surprise struct{ what string }
	g := start(t, t.TempDir(), Config{Clock: func() time.Time { panic(surprise{"secret words"}) }})
	status, answer := g.post("/", text("m1", "secret words"))
	if want := `{"errcode":50001,"errmsg":"internal error"}`; status != 500 || answer != want {
		t.Errorf("POST = %d %s, want 500 %s", status, answer, want)
	}
	log := g.log.String()
	if !strings.Contains(log, "ingest.surprise") || !strings.Contains(log, "TestPanic") {
		t.Errorf("log = %s, want the panic's type and place", log)
	}
	if strings.Contains(log, "secret words") {
		t.Errorf("log = %s, holds the panic's value", log)
	}
}

// What somebody on the outside chooses never becomes a label.
func TestLabelsAreClosed(t *testing.T) {
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "acme", Path: "/hook-7f3a"}}})
	for i := range 5 {
		g.post(fmt.Sprintf("/unknown/%d", i), text("m", "x"))
		g.post(fmt.Sprintf("/hook-7f3a/p%d", i), fmt.Sprintf(`{"type":"t%d"}`, i))
		g.post(fmt.Sprintf("/hook-7f3a/p%d", i), strings.Repeat("{", i+1))
	}
	if got := testutil.CollectAndCount(g.service.metrics.rejected); got != 1 {
		t.Errorf("sluice_ingest_rejected_total has %d series, want 1", got)
	}
	if got := testutil.CollectAndCount(g.service.metrics.callbacks); got != 2 {
		t.Errorf("sluice_ingest_callbacks_total has %d series, want 2: other and none", got)
	}
	if got := testutil.CollectAndCount(g.service.metrics.lastCallback); got != 1 {
		t.Errorf("sluice_ingest_last_callback_timestamp_seconds has %d series, want 1", got)
	}
}
