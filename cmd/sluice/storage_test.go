package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/servertest/damage"
)

// TestStorageFails holds that a gateway whose storage has failed for good ends
// soon, whoever holds on to it, says why in one line, has answered nobody 0 in
// vain, and starts again with what was stored.
func TestStorageFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := serve(t, dir)
	// One client sends half a request, and one reads no event of its stream.
	for url, sent := range map[string]string{
		p.callbacks: "POST /message HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
		p.api:       "GET /v1/events:subscribe HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
	}
	p.post("/message", message(1, "before"))
	statuses := keepPosting(t, p.callbacks)
	began := time.Now()
	away := damage.Replace(t, dir)
	if code := p.wait().ExitCode(); code != exitStorage {
		t.Errorf("exit code %d, want %d; its log:\n%s", code, exitStorage, p.log)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v to end", took)
	}
	acknowledged := 1
	for _, status := range statuses() {
		switch status {
		case http.StatusOK:
			acknowledged++
		case http.StatusServiceUnavailable:
		default:
			t.Errorf("a callback was answered %d", status)
		}
	}
	if n := strings.Count(p.log.String(), `msg="the storage has failed: `); n != 1 {
		t.Errorf("%d lines say that the storage has failed:\n%s", n, p.log)
	}

	p = serve(t, away)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(p.tail[len(p.tail)-1], "http://"))
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	code := run(t.Context(), []string{"events", "list", "--limit", "0", "--addr", "127.0.0.1:" + port}, &out, &errOut)
	if held := strings.Count(out.String(), "\n"); code != exitOK || held < acknowledged {
		t.Errorf("%d events are held, %d were acknowledged (exit code %d: %s)", held, acknowledged, code, errOut.String())
	}
}

// keepPosting posts callbacks until the listener is gone. The function it
// returns waits for that, and returns how they were answered.
func keepPosting(t *testing.T, url string) (wait func() []int) {
	var statuses []int
	var poster sync.WaitGroup
	poster.Go(func() {
		for n := 2; ; n++ {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/message", strings.NewReader(message(n, "x")))
			if err != nil {
				t.Error(err)
				return
			}
			req.Close = true
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return
			}
			_ = res.Body.Close()
			statuses = append(statuses, res.StatusCode)
		}
	})
	return func() []int {
		poster.Wait()
		return statuses
	}
}

// TestDataLossExitCode holds that a start that is refused because of lost data
// has an exit code of its own, and says what to do.
func TestDataLossExitCode(t *testing.T) {
	dir := t.TempDir()
	p := serve(t, dir)
	p.post("/message", message(1, "x"))
	p.signal(syscall.SIGTERM)
	p.wait()
	damage.Lose(t, dir)
	out, code := serveInVain(t, dir)
	if code != exitDataLoss || !strings.Contains(out, "--accept-data-loss") || strings.Count(out, "\n") != 1 {
		t.Errorf("exit code %d, want %d and one line that names --accept-data-loss:\n%s", code, exitDataLoss, out)
	}
}

// TestOldLayoutIsRefused holds that a directory of the first storage engine is
// refused in one clear line.
func TestOldLayoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	out, code := serveInVain(t, dir)
	if code != exitError || !strings.Contains(out, dir) || !strings.Contains(out, "choose another data_dir") || strings.Count(out, "\n") != 1 {
		t.Errorf("exit code %d, want %d and one line that says what to do:\n%s", code, exitError, out)
	}
}

// serveInVain runs a gateway that does not start, and returns what it says and
// its exit code.
func serveInVain(t *testing.T, dir string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "--data-dir", dir, "--min-free", "0",
		"--callback-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), asMain+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it started:\n%s", out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
