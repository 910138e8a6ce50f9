package server_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

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

// TestCallbackConnections holds that connections are bounded, and that who waits
// for one is served when another ends.
func TestCallbackConnections(t *testing.T) {
	srv := servertest.Start(t, servertest.With(func(c *server.Config) { c.SetCallbackConns(2) }))
	post := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(callback), callback)
	var served [2]net.Conn
	for i := range served {
		served[i] = dial(t, srv.Config.CallbackAddr)
		write(t, served[i], post)
		if answer, err := bufio.NewReader(served[i]).ReadString('\n'); err != nil || !strings.Contains(answer, " 200 ") {
			t.Fatalf("answer = %q, %v, want 200", answer, err)
		}
	}
	third := dial(t, srv.Config.CallbackAddr)
	write(t, third, post)
	answered := make(chan string, 1)
	go func() {
		answer, _ := bufio.NewReader(third).ReadString('\n')
		answered <- answer
	}()
	write(t, served[0], post) // served although the third has asked before
	if answer, err := bufio.NewReader(served[0]).ReadString('}'); err != nil || !strings.Contains(answer, " 200 ") {
		t.Fatalf("answer = %q, %v, want 200", answer, err)
	}
	select {
	case answer := <-answered:
		t.Errorf("a third connection has got %q", answer)
	default:
	}
	_ = served[1].Close()
	if answer := <-answered; !strings.Contains(answer, " 200 ") {
		t.Errorf("answer to the third connection = %q, want 200", answer)
	}
}

// TestBodiesForNobody holds that bodies that are posted to no source's path take
// no memory.
func TestBodiesForNobody(t *testing.T) {
	const posts, size = 800, 1 << 20
	srv := servertest.Start(t, servertest.With(func(c *server.Config) {
		c.Sources = []server.Source{{Name: "hook", Path: "/hook-7f3a"}}
	}))
	body := bytes.Repeat([]byte{'['}, size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var g errgroup.Group
	for range posts {
		conn := dial(t, srv.Config.CallbackAddr)
		g.Go(func() error {
			_, _ = fmt.Fprintf(conn, "POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
			answer, err := bufio.NewReaderSize(conn, 16).ReadString('\n') // before the body is sent
			if err != nil || !strings.Contains(answer, " 401 ") {
				return fmt.Errorf("answer = %q, %w, want 401", answer, err)
			}
			_, _ = conn.Write(body) // as far as anybody reads it
			return conn.Close()
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > posts*size/8 {
		t.Errorf("%d bodies of 1 MiB to no source's path took %d bytes", posts, got)
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
