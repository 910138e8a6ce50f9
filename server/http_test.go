package server_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/servertest"
)

// dial opens a bare connection, which is closed with the test.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// TestSlowClients holds that who sends slowly is cut off, while others are
// served.
func TestSlowClients(t *testing.T) {
	const limit = 100 * time.Millisecond
	srv := servertest.Start(t, servertest.With(func(c *server.Config) { c.SetTimeouts(limit, limit) }))
	callbacks, api := srv.Config.CallbackAddr, srv.Config.HTTPAddr
	tests := map[string]struct{ addr, sent string }{
		"callback, nothing":   {callbacks, ""},
		"callback, header":    {callbacks, "POST / HTTP/1.1\r\nHost: x\r\nX-"},
		"callback, body":      {callbacks, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"},
		"callback, chunked":   {callbacks, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"},
		"API, nothing":        {api, ""},
		"API, header":         {api, "GET / HTTP/1.1\r\nHost: x\r\nX-"},
		"API, subscribe body": {api, "POST /v1/events:subscribe HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, tt.addr)
			write(t, conn, tt.sent)
			srv.MustPost("/message", callback)
			answer, err := io.ReadAll(conn) // until it is cut
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection is still open after %v", patience)
			}
			if strings.Contains(string(answer), " 200 ") {
				t.Errorf("got %q, want no success", answer)
			}
		})
	}
}

func TestHeaderTooLarge(t *testing.T) {
	srv := servertest.Start(t)
	for _, addr := range []string{srv.Config.CallbackAddr, srv.Config.HTTPAddr} {
		conn := dial(t, addr)
		write(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("x", 30<<10)+"\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") {
			t.Errorf("%s answers %.80q, want 431", addr, answer)
		}
	}
}

func TestAPIBodyTooLarge(t *testing.T) {
	srv := servertest.Start(t)
	body := strings.NewReader(strings.Repeat(" ", 4<<20+1))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.HTTPURL()+"/v1/events:subscribe", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("POST of 4 MiB and 1 byte = %d, want 413", res.StatusCode)
	}
}
