package ingest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const busy = `{"errcode":50301,"errmsg":"cannot be stored now, try again"}`

// bound has g served by a handler that takes that many requests at a time and
// has room for that many bytes of large bodies.
func (g *gate) bound(requests, room int64) *handler {
	g.t.Helper()
	h, err := newHandler(g.service, requests, room)
	if err != nil {
		g.t.Fatal(err)
	}
	server := httptest.NewServer(h)
	g.t.Cleanup(server.Close)
	g.url = server.URL
	return h
}

// A sender posts over a connection of its own, in parts.
type sender struct {
	t    *testing.T
	conn *net.TCPConn
	r    *bufio.Reader
}

func (g *gate) sender(text string) *sender {
	g.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(g.t.Context(), "tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		g.t.Fatal(err)
	}
	tcp, isTCP := conn.(*net.TCPConn)
	if !isTCP {
		g.t.Fatalf("conn is %T", conn)
	}
	s := &sender{g.t, tcp, bufio.NewReader(conn)}
	s.send(text)
	return s
}

func (s *sender) send(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.conn, text); err != nil {
		s.t.Fatal(err)
	}
}

// answer returns the next answer.
func (s *sender) answer() (status int, body string, closes bool) {
	s.t.Helper()
	res, err := http.ReadResponse(s.r, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if retry := res.Header.Get("Retry-After"); (res.StatusCode == http.StatusServiceUnavailable) != (retry != "") {
		s.t.Errorf("Retry-After = %q with status %d", retry, res.StatusCode)
	}
	return res.StatusCode, string(b), res.Close
}

func (s *sender) wantOK() {
	s.t.Helper()
	if status, body, _ := s.answer(); status != http.StatusOK || body != ok {
		s.t.Errorf("answer = %d %s, want 200 %s", status, body, ok)
	}
}

// head returns the head of a POST to path of a body of length bytes.
func head(path string, length int) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: sluice\r\nContent-Length: %d\r\n\r\n", path, length)
}

// eventually waits until what holds, until the test's own time is over.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestRequestsAreBounded(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	h := g.bound(2, maxRoom)
	first, second := g.sender(head("/", 7)+`{"a"`), g.sender(head("/", 7))
	eventually(t, "two requests under way", func() bool { return h.requests.Load() == 2 })
	third := g.sender(head("/", 7) + `{"a":3}`)
	if status, body, _ := third.answer(); status != http.StatusServiceUnavailable || body != busy {
		t.Errorf("answer to a third request = %d %s, want 503 %s", status, body, busy)
	}
	if got := g.metric(g.service.metrics.rejected, "busy"); got != 1 {
		t.Errorf("requests rejected as busy = %v, want 1", got)
	}
	first.send(`:1}`)
	first.wantOK()
	second.send(`{"a":2}`)
	second.wantOK()
	eventually(t, "no request under way", func() bool { return h.requests.Load() == 0 })
	third.send(head("/", 7) + `{"a":3}`)
	third.wantOK()
	g.wantStored(3, 0)
}

// Large bodies share a room. Who comes when it is taken waits for it, and small
// ones need none.
func TestRoomForLargeBodies(t *testing.T) {
	const size = 100 << 10
	large := func(n int) string { return fmt.Sprintf(`{"n":%d,"x":%q}`, n, strings.Repeat("x", size-14)) }
	g := start(t, t.TempDir(), Config{MaxBody: size})
	h := g.bound(maxRequests, size)
	first := g.sender(head("/", len(large(1))) + large(1)[:2*smallBody])
	eventually(t, "the room is taken", func() bool {
		if !h.bodies.room.TryAcquire(1) {
			return true
		}
		h.bodies.room.Release(1)
		return false
	})
	g.mustPost("/", `{"small":1}`)
	second := g.sender(head("/", len(large(2))) + large(2))

	hasty := newBodies(size, size, time.Millisecond)
	hasty.room = h.bodies.room
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(large(3)))
	w := httptest.NewRecorder()
	(&handler{service: h.service, receive: h.receive, bodies: hasty, most: 1}).ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Body.String() != busy || w.Header().Get("Retry-After") == "" {
		t.Errorf("answer without room = %d %s %v, want 503 %s", w.Code, w.Body, w.Header(), busy)
	}
	if got := g.metric(g.service.metrics.rejected, "busy"); got != 1 {
		t.Errorf("requests rejected as busy = %v, want 1", got)
	}
	g.wantStored(1, 0) // the second waits

	first.send(large(1)[2*smallBody:])
	first.wantOK()
	second.wantOK()
	if status, _, _ := g.do(g.request("/", io.MultiReader(strings.NewReader(large(4))))); status != http.StatusOK { // of no length
		t.Errorf("POST of chunks = %d, want 200", status)
	}
	cut := g.sender(head("/", len(large(5))) + large(5)[:2*smallBody])
	_ = cut.conn.CloseWrite()
	if status, _, _ := cut.answer(); status != http.StatusBadRequest {
		t.Errorf("a large body that breaks off = %d, want 400", status)
	}
	eventually(t, "the room is free", func() bool { return h.bodies.room.TryAcquire(size) })
	g.wantStored(4, 0)
	for i, e := range g.stored()[1:] {
		if got, want := string(e.GetRaw()), large([]int{1, 2, 4}[i]); got != want {
			t.Errorf("stored body %d has %d bytes, want the %d that were sent", i, len(got), len(want))
		}
	}
}

// A panic gives back what the request had.
func TestPanicFreesTheRoom(t *testing.T) {
	const size = 100 << 10
	g := start(t, t.TempDir(), Config{MaxBody: size, Clock: func() time.Time { panic("a defect") }})
	h := g.bound(1, size)
	for range 3 {
		body := `"` + strings.Repeat("x", size-2) + `"`
		if status, answer := g.post("/", body); status != http.StatusInternalServerError {
			t.Errorf("POST = %d %s, want 500", status, answer)
		}
	}
	eventually(t, "nothing is held", func() bool { return h.requests.Load() == 0 && h.bodies.room.TryAcquire(size) })
}

// allocated returns how many bytes the process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// A body that nobody's path is asked to take is not read.
func TestPathComesBeforeTheBody(t *testing.T) {
	const posts, size = 100, 1 << 20
	g := start(t, t.TempDir(), Config{Sources: []Source{{Name: "hook", Path: "/hook-7f3a"}}})
	before := allocated()
	for range posts {
		s := g.sender(head("/elsewhere", size)) // and nothing more
		if status, _, closes := s.answer(); status != http.StatusUnauthorized || !closes {
			t.Fatalf("answer = %d, close %v, want 401 and an end", status, closes)
		}
		_ = s.conn.Close()
	}
	if got := allocated() - before; got > posts*size/4 {
		t.Errorf("%d bodies of 1 MiB that do not come took %d bytes", posts, got)
	}
	if got := testutil.ToFloat64(g.service.metrics.rejected.WithLabelValues("path")); got != posts {
		t.Errorf("requests rejected for their path = %v, want %d", got, posts)
	}
	g.wantStored(0, 0)
}

// What a request announces is no reason to allocate it.
func TestMemoryFollowsWhatArrives(t *testing.T) {
	const posts, size = 100, 16 << 20
	g := start(t, t.TempDir(), Config{MaxBody: size, MaxRecord: MaxRecord(size)})
	before := allocated()
	senders := make([]*sender, posts)
	for i := range senders {
		senders[i] = g.sender(head("/", size) + "{")
	}
	for _, s := range senders {
		_ = s.conn.CloseWrite()
		if status, _, _ := s.answer(); status != http.StatusBadRequest {
			t.Errorf("a body that breaks off = %d, want 400", status)
		}
	}
	if got := allocated() - before; got > posts*size/32 {
		t.Errorf("%d bodies of 16 MiB that do not come took %d bytes", posts, got)
	}
}
