package server_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sluicegate/sluice/server"
)

// A buffer takes what several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A configured is a server that runs with a configuration file.
type configured struct {
	running
	file, token string // paths
	log         *buffer
}

// runConfigured runs a server with a file that says text. Where that does not
// say so, callbacks are taken on loopback.
func runConfigured(t *testing.T, text string) configured {
	t.Helper()
	dir := t.TempDir()
	c := configured{file: filepath.Join(dir, "sluice.yaml"), token: filepath.Join(dir, "token"), log: new(buffer)}
	c.t = t
	c.write(c.token, "first-token\n")
	c.write(c.file, text)
	in := server.Inputs{File: c.file, Flags: map[string]string{"data_dir": filepath.Join(dir, "data"), "min_free": "0"}}
	for _, key := range []string{"callback_addr", "grpc_addr", "http_addr"} {
		if !strings.Contains(text, key) {
			in.Flags[key] = "127.0.0.1:0"
		}
	}
	cfg, _, err := server.LoadConfig(in)
	if err != nil {
		t.Fatalf("LoadConfig() = %v", err)
	}
	c.running = runLogged(t, cfg, slog.New(slog.NewTextHandler(c.log, nil)))
	t.Cleanup(func() { c.stop(nil) })
	return c
}

// write replaces a file. FILE in text is the path of the file with the token.
func (c configured) write(path, text string) {
	c.t.Helper()
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "FILE", c.token)), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// settle lets the server look twice, as it does after a change.
func (c configured) settle() {
	c.LookAtConfig()
	c.LookAtConfig()
}

// wantPost posts a callback with a token, and compares the status.
func (c configured) wantPost(path, token string, want int) {
	c.t.Helper()
	body := strings.Replace(callback, `"data":{`, `"data":{"token":"`+token+`",`, 1)
	if got := post(c.t, "http://"+c.CallbackAddr()+path, body); got.code != want {
		c.t.Errorf("POST %s with token %q = %d %s, want %d", path, token, got.code, got.body, want)
	}
}

// wantReloads compares how many reloads there were, and whether the last one
// worked.
func (c configured) wantReloads(success, failure, last string) {
	c.t.Helper()
	body := get(c.t, "http://"+c.HTTPAddr()+"/metrics").body
	for _, want := range []string{
		`sluice_server_config_reloads_total{outcome="success"} ` + success,
		`sluice_server_config_reloads_total{outcome="failure"} ` + failure,
		`sluice_server_config_last_reload_successful ` + last,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			c.t.Errorf("/metrics has no %s", want)
		}
	}
}

func (c configured) wantLog(parts ...string) {
	c.t.Helper()
	for _, part := range parts {
		if !strings.Contains(c.log.String(), part) {
			c.t.Errorf("the log has no %q:\n%s", part, c.log)
		}
	}
}

const acme = "sources:\n  - {name: acme, path: /, tokens: ['file:FILE']}\n"

// TestReloadToken holds that a token can be rotated in its file.
func TestReloadToken(t *testing.T) {
	c := runConfigured(t, acme)
	c.wantPost("/", "first-token", 200)
	c.settle()
	c.wantReloads("0", "0", "1") // nothing has changed

	c.write(c.token, "second-token")
	c.LookAtConfig() // may have been written halfway
	c.wantPost("/", "first-token", 200)
	c.wantReloads("0", "0", "1")
	c.LookAtConfig()
	c.wantPost("/", "second-token", 200)
	c.wantPost("/", "first-token", 401)
	c.wantReloads("1", "0", "1")
	c.settle()
	c.wantReloads("1", "0", "1")
	c.wantLog(`msg="configuration reloaded" sources=[acme]`)
	if log := c.log.String(); strings.Contains(log, "-token") {
		t.Errorf("the log has a token:\n%s", log)
	}
}

// TestReloadSources holds that sources come and go with the file, and that what
// else is new in it waits for a restart.
func TestReloadSources(t *testing.T) {
	c := runConfigured(t, acme)
	c.wantPost("/other", "other-token", 401)
	c.write(c.file, acme+"  - {name: other, path: /other, tokens: [other-token]}\nmax_body: 2MiB\nmax_age: 1000h\n")
	c.settle()
	c.wantPost("/other", "other-token", 200)
	c.wantPost("/", "first-token", 200)
	c.wantLog("sources=\"[acme other]\"", `msg="settings have changed that need a restart" settings="[max_body max_age]"`)

	c.write(c.file, acme)
	c.settle()
	c.wantPost("/other", "other-token", 401)
	c.wantReloads("2", "0", "1")
}

// TestReloadBroken holds that the sources stay when what is to replace them is
// wrong, whatever it is, and that the server recovers by itself.
func TestReloadBroken(t *testing.T) {
	c := runConfigured(t, acme)
	for name, breakIt := range map[string]func(){
		"no YAML":         func() { c.write(c.file, "sources: [") },
		"unknown key":     func() { c.write(c.file, acme+"sauces: []\n") },
		"bad setting":     func() { c.write(c.file, acme+"max_body: 1\n") },
		"bad source":      func() { c.write(c.file, strings.ReplaceAll(acme, "path: /,", "path: hook,")) },
		"no secret":       func() { c.write(c.token, "") },
		"no secrets file": func() { _ = os.Remove(c.token) },
		"no file":         func() { _ = os.Remove(c.file) },
	} {
		c.settle()
		before := strings.Count(c.log.String(), "configuration not reloaded")
		breakIt()
		c.settle()
		c.settle() // says so once
		if n := strings.Count(c.log.String(), "configuration not reloaded, the sources stay as they are") - before; n != 1 {
			t.Errorf("%s: the log says %d times that it was not reloaded, want once:\n%s", name, n, c.log)
		}
		c.wantPost("/", "first-token", 200)
		if body := get(t, "http://"+c.HTTPAddr()+"/metrics").body; !strings.Contains(body, "config_last_reload_successful 0") {
			t.Errorf("%s: the gauge of the last reload is not 0", name)
		}
		c.write(c.token, "first-token")
		c.write(c.file, acme)
	}
	c.settle()
	c.wantReloads("7", "7", "1")
	c.wantPost("/", "first-token", 200)
}

// TestReloadOpen holds that a reload cannot open a gateway to the world, also
// not by a change of the address, which only a restart would bring about.
func TestReloadOpen(t *testing.T) {
	const public = "callback_addr: 0.0.0.0:0\n"
	c := runConfigured(t, public+acme)
	for name, text := range map[string]string{
		"no source":              public,
		"open source":            public + "sources:\n  - {name: acme, path: /}\n",
		"no source on loopback":  "callback_addr: 127.0.0.1:0\n",
		"open, address not said": "sources:\n  - {name: acme, path: /}\n",
	} {
		c.write(c.file, text)
		c.settle()
		c.wantPost("/", "any-token", 401)
		c.wantPost("/", "first-token", 200)
		if t.Failed() {
			t.Fatalf("with %s", name)
		}
	}
	c.wantReloads("0", "4", "0")
}

// TestReloadOnHangup holds that the signal does not wait for a second look, and
// reports even that nothing has changed.
func TestReloadOnHangup(t *testing.T) {
	c := runConfigured(t, acme)
	c.Hang()
	c.wantReloads("1", "0", "1")
	c.write(c.token, "second-token")
	c.Hang()
	c.wantReloads("2", "0", "1")
	c.wantPost("/", "second-token", 200)
}
