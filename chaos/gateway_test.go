//go:build chaos

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Exit codes of serve.
const (
	exitError   = 1
	exitRefused = 65 // the log holds less or something else than was acknowledged
	exitFailed  = 74 // the log failed while it ran
)

// commitTimeout is the gateway's default.
const commitTimeout = 3 * time.Second

// token is the credential in every callback. No log may show it.
const token = "chaos-secret-token-4711"

// options say how to start a gateway.
type options struct {
	binary     string // "" is the one with failpoints
	failpoints string
	env        []string
	args       []string
	mayWait    bool // it may neither serve nor end for a while
	quiet      bool // the test shows what matters of the log
}

// A gateway is a process of its own.
type gateway struct {
	t                    *testing.T
	cmd                  *exec.Cmd
	callbacks, api, grpc string        // addresses
	serving              bool          // it has said that it serves
	expires              bool          // retention removes events in this row
	ended                chan struct{} // closed when it has ended
	endedAt              time.Time     // set before

	mu  sync.Mutex
	log strings.Builder
}

// launch starts a gateway on dir and waits until it serves or has ended.
func launch(t *testing.T, dir string, o options) *gateway {
	t.Helper()
	if o.binary == "" {
		o.binary = binary
	}
	g := &gateway{t: t, ended: make(chan struct{}), expires: slices.Contains(o.args, "drop_oldest")}
	g.cmd = exec.Command(o.binary, append([]string{
		"serve", "--data-dir", dir, "--min-free", "0", "--log-format", "json",
		"--callback-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0",
		"--source", "name=acme,path=/hook-7f3a9c,token=" + token,
	}, o.args...)...)
	g.cmd.Env = append(append(os.Environ(), "FAILPOINTS="+o.failpoints), o.env...)
	out, err := g.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.kill()
		if t.Failed() && !o.quiet {
			t.Logf("log of the gateway (the last 4 kB):\n%s", tail(g.logged(), 4096))
		}
		if strings.Contains(g.logged(), token) {
			t.Error("the gateway's log has the token")
		}
	})
	serving := make(chan struct{})
	go g.read(out, serving)
	select {
	case <-serving:
		g.serving = true
	case <-g.ended:
	case <-time.After(patience):
		if o.mayWait {
			break
		}
		t.Fatalf("the gateway neither serves nor ends within %v; its log:\n%s", patience, g.logged())
	}
	return g
}

// start starts a gateway that must become ready.
func start(t *testing.T, dir string, o options) *gateway {
	t.Helper()
	g := launch(t, dir, o)
	if !g.serving {
		t.Fatalf("the gateway ended with code %d; its log:\n%s", g.code(), g.logged())
	}
	eventually(t, patience, "ready", func() bool { code, _ := g.ready(); return code == http.StatusOK })
	return g
}

// read collects the log until the process has ended.
func (g *gateway) read(out io.Reader, serving chan<- struct{}) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		g.mu.Lock()
		g.log.WriteString(line)
		g.mu.Unlock()
		var said struct{ Msg, Callbacks, GRPC, HTTP string }
		if strings.Contains(line, `"msg":"serving"`) && json.Unmarshal([]byte(line), &said) == nil && g.api == "" {
			g.callbacks, g.grpc, g.api = "http://"+said.Callbacks, said.GRPC, "http://"+said.HTTP
			close(serving)
		}
		if err != nil {
			break
		}
	}
	_ = g.cmd.Wait() // the state says more
	g.endedAt = time.Now()
	close(g.ended)
}

func (g *gateway) logged() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

func (g *gateway) pid() int { return g.cmd.Process.Pid }

func (g *gateway) alive() bool {
	select {
	case <-g.ended:
		return false
	default:
		return true
	}
}

// ends returns whether the process ends within limit.
func (g *gateway) ends(limit time.Duration) bool {
	return within(limit, func() bool { return !g.alive() })
}

// await waits for the process to end.
func (g *gateway) await() {
	g.t.Helper()
	select {
	case <-g.ended:
	case <-time.After(patience):
		g.t.Fatalf("the gateway has not ended within %v", patience)
	}
}

// code returns the exit code of a process that has ended; -1 after a signal.
func (g *gateway) code() int { return g.cmd.ProcessState.ExitCode() }

// kill ends the process as kill -9 does.
func (g *gateway) kill() {
	_ = g.cmd.Process.Kill()
	select {
	case <-g.ended:
	case <-time.After(patience): // on a disk that has stopped
		g.t.Errorf("the gateway did not end within %v of SIGKILL", patience)
	}
}

// stop ends the process in order.
func (g *gateway) stop() {
	g.t.Helper()
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	g.await()
	if code := g.code(); code != 0 {
		g.t.Fatalf("stopped with code %d; its log:\n%s", code, tail(g.logged(), 4096))
	}
}

// ready returns the status and the text of /readyz; 0 when there was no answer.
func (g *gateway) ready() (int, string) { return get(g.api+"/readyz", 2*time.Second) }

// get returns the status and the body of an answer; 0 when there was none.
func get(url string, limit time.Duration) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

// dial connects to the gRPC API.
func (g *gateway) dial() *grpc.ClientConn {
	g.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+g.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// mustFailed checks that the gateway ended since its log failed.
func (g *gateway) mustFailed() {
	g.t.Helper()
	if code := g.code(); code != exitFailed {
		g.t.Errorf("the gateway ended with code %d, want %d", code, exitFailed)
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return fmt.Sprintf("... %s", s[len(s)-n:])
	}
	return s
}
