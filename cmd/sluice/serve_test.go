package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asMain makes the test's own binary the command, so that tests can start,
// signal and kill the real thing.
const asMain = "TEST_AS_SLUICE"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	m.Run()
}

// patience bounds what should happen at once; a test that waits so long has
// failed.
const patience = 20 * time.Second

// A process is a gateway of its own.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	callbacks, api string // URLs
	tail           []string
	curl           string
	log            *bytes.Buffer
}

// serve starts a gateway on free ports, and waits until it has said where it
// is.
func serve(t *testing.T, dataDir string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	p := &process{t: t, log: new(bytes.Buffer)}
	p.cmd = exec.CommandContext(ctx, os.Args[0], append([]string{
		"serve", "--data-dir", dataDir, "--min-free", "0",
		"--callback-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0",
	}, args...)...)
	p.cmd.Env = append(os.Environ(), asMain+"=1")
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // if it still runs
	lines := bufio.NewScanner(out)
	for p.tail == nil && lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "callbacks "):
			p.callbacks = fields[1]
		case strings.HasPrefix(line, "HTTP API "):
			p.api = fields[2]
		case strings.HasPrefix(line, "curl "):
			p.curl = line
		case strings.Contains(line, " tail "):
			p.tail = fields
		}
	}
	if p.tail == nil {
		_ = p.cmd.Wait()
		t.Fatalf("serve said no tail command; its log:\n%s", p.log)
	}
	return p
}

// wait waits for the process to end and returns how it did.
func (p *process) wait() *os.ProcessState {
	p.t.Helper()
	_ = p.cmd.Wait() // the state says more
	return p.cmd.ProcessState
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// post posts a callback and returns the body of the answer.
func (p *process) post(path, body string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.callbacks+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(answer)
}

// metrics returns what /metrics says.
func (p *process) metrics() string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.api+"/metrics", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// TestSurvivesKill holds the promise from outside: what the vendor was answered
// 0 for is there after kill -9, typed and without its token.
func TestSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	gateway := serve(t, dir)
	other := strings.Replace(sampleCallback, `"messageId":"string"`, `"messageId":"another"`, 1)
	for path, body := range map[string]string{"/": sampleCallback, "/message": other} {
		if got := gateway.post(path, body); got != `{"errcode":0,"errmsg":"ok"}` {
			t.Fatalf("POST %s = %s", path, got)
		}
	}
	gateway.signal(os.Kill)
	gateway.wait()

	gateway = serve(t, dir)
	var out, errOut bytes.Buffer
	args := append(gateway.tail[1:], "--to", "latest", "--json", "--raw") // as printed
	if code := run(t.Context(), args, &out, &errOut); code != exitOK {
		t.Fatalf("sluice %s = %d: %s", strings.Join(args, " "), code, errOut.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("tail shows %d events, want 2:\n%s", len(lines), out.String())
	}
	for _, line := range lines {
		var event struct {
			Dialect string
			Message struct {
				MessageID string `json:"messageId"`
			}
			Raw []byte
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		if event.Dialect != "DIALECT_ENTERPRISE" || event.Message.MessageID == "" {
			t.Errorf("tail shows %s, want it typed", line)
		}
		if len(event.Raw) == 0 || strings.Contains(string(event.Raw), `"token":"string"`) {
			t.Errorf("raw is %s, want the body without its token", event.Raw)
		}
	}
	gateway.signal(syscall.SIGTERM)
	if state := gateway.wait(); state.ExitCode() != exitOK {
		t.Errorf("after SIGTERM: %v, want exit code 0; its log:\n%s", state, gateway.log)
	}
}

// TestPrintedCurl holds that the line that serve prints works when it is pasted.
func TestPrintedCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl here")
	}
	gateway := serve(t, t.TempDir())
	out, err := exec.CommandContext(t.Context(), "sh", "-c", gateway.curl+" -s").CombinedOutput()
	if err != nil || string(out) != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("%s\nprints %s, %v", gateway.curl, out, err)
	}
	gateway.signal(os.Interrupt)
	if state := gateway.wait(); state.ExitCode() != exitOK {
		t.Errorf("after an interrupt: %v, want exit code 0", state)
	}
}

// TestSecondSignal holds that a drain that waits for a client can be cut short.
func TestSecondSignal(t *testing.T) {
	gateway := serve(t, t.TempDir())
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(gateway.callbacks, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n") // and no body
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v, want the server to ask for the body", line, err)
	}

	gateway.signal(syscall.SIGTERM)
	for { // until the drain has begun
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway.api+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("/readyz: %v, want it to answer while the callback is under way", err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable {
			break
		}
	}
	began := time.Now()
	gateway.signal(syscall.SIGTERM)
	state := gateway.wait()
	if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("after a second signal: %v, want it killed by the signal", state)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the second signal took %v, want it to end the process at once", took)
	}
}

// TestHangup holds that SIGHUP has the configuration read again, and ends
// nothing.
func TestHangup(t *testing.T) {
	gateway := serve(t, t.TempDir())
	gateway.signal(syscall.SIGHUP)
	const reloaded = `sluice_server_config_reloads_total{outcome="success"} 1`
	for began := time.Now(); !strings.Contains(gateway.metrics(), reloaded); {
		if time.Since(began) > patience {
			t.Fatalf("/metrics has no %s", reloaded) // nothing has changed: no look alone makes it
		}
	}
	if got := gateway.post("/", sampleCallback); got != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("POST after the reload = %s", got)
	}
	gateway.signal(syscall.SIGTERM)
	if state := gateway.wait(); state.ExitCode() != exitOK {
		t.Errorf("after SIGTERM: %v, want exit code 0; its log:\n%s", state, gateway.log)
	}
}

// TestPrintedSecrets holds that what serve prints, which may go to a log, holds
// neither a path nor a token that is a secret.
func TestPrintedSecrets(t *testing.T) {
	gateway := serve(t, t.TempDir(), "--source", "name=acme,path=/hunter2,token=hunter2", "--log-format", "json", "--log-level", "debug")
	gateway.post("/hunter2/message", strings.Replace(sampleCallback, `"token":"string"`, `"token":"hunter2"`, 1))
	gateway.signal(syscall.SIGTERM)
	gateway.wait()
	for _, text := range []string{gateway.curl, gateway.log.String()} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("serve printed a secret:\n%s", text)
		}
	}
	if !strings.Contains(gateway.curl, "<path of acme>/message") || !strings.Contains(gateway.curl, "<token of acme>") {
		t.Errorf("serve printed %s, want it to say what goes where", gateway.curl)
	}
	for line := range strings.Lines(gateway.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("with --log-format json the log has the line %q", line)
		}
	}
}

func TestCommandLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte("max_body: 2MiB\ncallback_addr: :8080\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args     []string
		code     int
		out, err string // patterns
	}{
		"nothing":         {nil, exitOK, `(?s)Usage:.*serve.*tail`, `^$`},
		"help":            {[]string{"serve", "--help"}, exitOK, `--data-dir DIR .*\(default data\)`, `^$`},
		"help, a switch":  {[]string{"serve", "--help"}, exitOK, `--reflection  .*\(default true\)`, `^$`},
		"help, every one": {[]string{"config", "check", "--help"}, exitOK, `--source SOURCE`, `^$`},
		"version":         {[]string{"version"}, exitOK, `^sluice \S+.* go\S+ \w+/\w+\n$`, `^$`},
		"no such command": {[]string{"serv"}, exitUsage, `^$`, `^sluice: unknown command "serv" for "sluice", did you mean serve\?\nRun "sluice --help"`},
		"no such flag":    {[]string{"serve", "--data"}, exitUsage, `^$`, `^sluice: unknown flag: --data\nRun "sluice serve --help"`},
		"stray argument":  {[]string{"serve", "now"}, exitUsage, `^$`, `unknown command "now" for "sluice serve"`},
		"no subcommand":   {[]string{"config"}, exitOK, `check`, `^$`},
		"no such one":     {[]string{"config", "show"}, exitUsage, `^$`, `unknown command "show"`},
		"configuration": {
			[]string{"config", "check", "--config", file, "--callback-addr", "127.0.0.1:0", "--pprof", "--reflection=false"},
			exitOK,
			`(?s)callback_addr: 127.0.0.1:0 +# --callback-addr\n.*max_body: 2MiB +# file \S+sluice.yaml\n.*reflection: false +# --reflection\n` +
				`pprof: true +# --pprof\n`, `^$`,
		},
		"local engine": {
			[]string{"config", "check", "--wal-failover-dir", "/other/disk"},
			exitOK,
			`(?s)^# The log is kept by the local engine: .*\n#   wal_failover_dir: where the write-ahead log moves .*` +
				`less than 256MiB left.*\nwal_failover_dir: /other/disk +# --wal-failover-dir\n`, `^$`,
		},
		"cluster engine": {
			[]string{"config", "check", "--nats-url", "nats://host:4222", "--accept-unsynced-nodes"},
			exitOK,
			`(?s)^# The log is kept by the cluster engine: .*\n#   accept_unsynced_nodes: a node that .*\naccept_unsynced_nodes: true `, `^$`,
		},
		"two sources": {
			[]string{"config", "check", "--source", "name=a,path=/a", "--source", "name=b,path=/b"}, exitOK, `(?s)name: a\n.*name: b\n`, `^$`,
		},
		"all that is wrong": {
			[]string{"config", "check", "--config", file, "--max-body", "1", "--on-full=x", "--drain-timeout", "x"},
			exitError, `^$`,
			`(?s)^sluice: the configuration is wrong:\n  drain_timeout \(from --drain-timeout\): .*\n  sources: callback_addr :8080 can be reached .*\n  max_body: 1 .*\n  on_full: "x" `,
		},
		"serve, too": {[]string{"serve", "--max-body", "1"}, exitError, `^$`, `^sluice: the configuration is wrong:\n  max_body: `},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			code := run(t.Context(), tt.args, &out, &errOut)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !regexp.MustCompile(tt.out).Match(out.Bytes()) {
				t.Errorf("standard output, want %s:\n%s", tt.out, out.String())
			}
			if !regexp.MustCompile(tt.err).Match(errOut.Bytes()) {
				t.Errorf("standard error, want %s:\n%s", tt.err, errOut.String())
			}
		})
	}
}
