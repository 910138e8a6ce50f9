package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/servertest"
)

// A result is what a command left behind.
type result struct {
	code        int
	out, errOut string
}

// command runs a command against srv, to its end.
func command(t *testing.T, srv *servertest.Server, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	code := run(ctx, append(args, "--addr", srv.GRPCAddr()), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

func (r result) want(t *testing.T, code int, out, errOut string) {
	t.Helper()
	if r.code != code || !matches(out, r.out) || !matches(errOut, r.errOut) {
		t.Errorf("exit code %d, want %d\nout:\n%s\nwant:\n%s\nerr:\n%s\nwant:\n%s", r.code, code, r.out, out, r.errOut, errOut)
	}
}

// matches reports whether all of text is as the pattern says.
func matches(pattern, text string) bool {
	return regexp.MustCompile(`(?s)^` + pattern + `$`).MatchString(text)
}

// message is a callback with the n-th message of a conversation; text is part of
// a JSON string.
func message(n int, text string) string {
	return fmt.Sprintf(`{"data":{"messageId":"m-%d","chatId":"60aa00000000000000000c01","botId":"b-1","contactId":"w-1",`+
		`"contactName":"客户甲","type":7,"timestamp":1763365331110,"isSelf":false,"payload":{"text":"%s"}}}`, n, text)
}

// files writes contents to files, and returns their names.
func files(t *testing.T, contents ...string) []string {
	t.Helper()
	dir := t.TempDir()
	names := make([]string, len(contents))
	for i, content := range contents {
		names[i] = filepath.Join(dir, fmt.Sprintf("%d.json", i+1))
		if err := os.WriteFile(names[i], []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func TestPost(t *testing.T) {
	srv := servertest.Start(t)
	fs := files(t, message(1, "a"), message(1, "a"), `{"broken`, message(2, "b"), message(3, "c"))
	command(t, srv, "post", fs[0], fs[1], filepath.Join(t.TempDir(), "missing.json"), fs[2], fs[3]).want(t, 1,
		`\S+1.json: stored as 1\n\S+2.json: duplicate of 1\n\S+3.json: quarantined: it is not JSON\n\S+4.json: stored as 2\n`,
		`\S+missing.json: open .*\nsluice: 1 of 5 not stored\n`)
	command(t, srv, "post", "--path", "/message", fs[4]).want(t, 0, `\S+5.json: stored as 3\n`, ``)
	command(t, srv, "events", "get", "3").want(t, 0, `.*path +/message\n.*`, ``)
	command(t, srv, "post").want(t, 2, ``, `sluice: .*\n`)
}

func TestPostRefused(t *testing.T) {
	srv := servertest.Start(t, servertest.With(func(c *server.Config) {
		c.Sources = []server.Source{{Name: "acme", Path: "/acme", Tokens: []string{"a-token-nobody-sends"}}}
		c.MaxBody = 1 << 10
	}))
	fs := files(t, `{"token":"wrong"}`, message(2, strings.Repeat("x", 2<<10)))
	command(t, srv, "post", "--path", "/acme", fs[0], fs[1]).want(t, 1, ``,
		`\S+1.json: .*--path.*\n\S+2.json: .*max_body is 1024 bytes\nsluice: 2 of 2 not stored\n`)
}

func TestTailToTheEnd(t *testing.T) {
	srv := servertest.Start(t)
	for n := 1; n <= 3; n++ {
		srv.MustPost("/", message(n, fmt.Sprintf(`text %d\n\u001b[31m`, n)))
	}
	command(t, srv, "tail", "--from", "earliest", "--to", "latest").want(t, 0,
		`( +[123]  \d\d-\d\d \d\d:\d\d:\d\d  60aa00000000000000000c01  客户甲      text          text [123]\\n\\x1b\[31m\n){3}`, ``)
	command(t, srv, "tail", "--from", "2", "-n", "1").want(t, 0, ` +2 .*text 2\S+\n`, ``)
	command(t, srv, "tail", "--from", "1h ago", "--to", "2", "--expr", `event.message.text.text.startsWith("text 2")`).
		want(t, 0, ` +2 .*text 2\S+\n`, ``)

	r := command(t, srv, "tail", "--from", "earliest", "--to", "latest", "--json", "--raw")
	lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(lines), r.out)
	}
	for i, line := range lines {
		var e struct {
			Sequence string
			Raw      []byte
			Message  struct{ Text struct{ Text string } }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		text, raw := fmt.Sprintf("text %d\n\x1b[31m", i+1), message(i+1, fmt.Sprintf(`text %d\n\u001b[31m`, i+1))
		if e.Sequence != fmt.Sprint(i+1) || e.Message.Text.Text != text || string(e.Raw) != raw {
			t.Errorf("line %d = %s", i+1, line)
		}
	}
}

func TestTailRefused(t *testing.T) {
	srv := servertest.Start(t)
	command(t, srv, "tail", "--from", "99").want(t, 1, ``, `sluice: the position is beyond the end of the log: .*--from earliest\n`)
	command(t, srv, "tail", "--expr", "event.nonsense").want(t, 1, ``, `sluice: filter.expression: .*nonsense.*\n`)
	command(t, srv, "tail", "--from", "whenever").want(t, 2, ``, `sluice: --from: "whenever" is no place .*tail --help.*\n`)
	command(t, srv, "tail", "--type", "txt").want(t, 2, ``, `sluice: --type: "txt" is neither .*\n`)
}

// TestNoAnswer connects to a port where nobody says a word.
func TestNoAnswer(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, args := range [][]string{{"tail"}, {"events", "list"}} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append(args, "--timeout", "50ms", "--addr", mute.Addr().String()), &out, &errOut)
		result{code, out.String(), errOut.String()}.want(t, 1, ``, `sluice: 127.0.0.1:\d+ did not answer within 50ms: .*\n`)
	}
}

func TestWhereTheGatewayIs(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/", message(1, "a"))
	_, port, err := net.SplitHostPort(srv.GRPCAddr())
	if err != nil {
		t.Fatal(err)
	}
	list := func(args ...string) result {
		var out, errOut bytes.Buffer
		code := run(t.Context(), append([]string{"events", "list"}, args...), &out, &errOut)
		return result{code, out.String(), errOut.String()}
	}
	t.Setenv("SLUICE_GRPC_ADDR", "0.0.0.0:"+port) // as the gateway on the same machine has it
	list().want(t, 0, ` +1 .*\n`, ``)

	// An address in this form is not known to be of this machine, so it is
	// spoken to with TLS.
	elsewhere := "passthrough:127.0.0.1:" + port
	list("--addr", elsewhere).want(t, 1, ``, `sluice: no TLS with \S+: add --plaintext .*\n`)
	list("--addr", elsewhere, "--plaintext").want(t, 0, ` +1 .*\n`, ``)
}

func TestNobodyThere(t *testing.T) {
	var out, errOut bytes.Buffer
	for _, args := range [][]string{{"tail"}, {"events", "list"}, {"events", "get", "1"}} {
		out.Reset()
		errOut.Reset()
		code := run(t.Context(), append(args, "--addr", "127.0.0.1:1"), &out, &errOut)
		result{code, out.String(), errOut.String()}.want(t, 1, ``, "sluice: cannot reach 127.0.0.1:1: is `sluice serve` running there.*connection refused.*\n")
	}
}

func TestTailOverAGap(t *testing.T) {
	srv := servertest.Start(t, servertest.With(func(c *server.Config) {
		c.MaxBody, c.MaxBytes, c.OnFull = 1<<10, 4<<10, server.OnFullDropOldest
	}))
	for n := 1; n <= 50; n++ {
		srv.MustPost("/", message(n, fmt.Sprintf("text %d.", n)))
	}
	srv.Restart() // what is in memory is gone, too
	tail := []string{"tail", "--from", "1", "--to", "latest"}
	command(t, srv, tail...).want(t, 1, ``, `sluice: .*--from earliest.*--skip-gaps.*\n`)
	command(t, srv, append(tail, "--skip-gaps")...).want(t, 0, `.* text 50\.\n`,
		`sluice: events 1 to \d+ were removed before they could be read\n`)
}

// TestTailReconnects restarts the gateway under a tail, and interrupts it in the
// end.
func TestTailReconnects(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/", message(1, "before"))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, lines := io.Pipe()
	var errOut bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"tail", "--from", "earliest", "--addr", srv.GRPCAddr()}, lines, &errOut)
		_ = lines.Close()
	}()
	read := newLineReader(out)
	if line := read(t); !strings.Contains(line, "before") {
		t.Errorf("first line = %q", line)
	}
	for n := 2; n <= 3; n++ {
		srv.Restart()
		srv.MustPost("/", message(n, "after"))
		if line := read(t); !strings.Contains(line, "after") {
			t.Errorf("line %d = %q", n, line)
		}
	}
	interrupt()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	if want := `(sluice: connection lost, reconnecting \([^\n]*\)\nsluice: connected again\n){2}`; !matches(want, errOut.String()) {
		t.Errorf("notes = %q, want %q", errOut.String(), want)
	}
}

// newLineReader returns a function that returns the next line of r.
func newLineReader(r io.Reader) func(t *testing.T) string {
	buf := make([]byte, 64<<10) // a command writes a line at a time, and a pipe keeps that
	return func(t *testing.T) string {
		t.Helper()
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestEventsList(t *testing.T) {
	srv := servertest.Start(t)
	command(t, srv, "events", "list").want(t, 0, ``, `sluice: no event matches\n`)
	command(t, srv, "events", "list", "--json").want(t, 0, ``, ``)
	for n := 1; n <= 120; n++ {
		srv.MustPost("/", message(n, fmt.Sprintf("text-%d-", n)))
	}
	command(t, srv, "events", "list", "--limit", "2").want(t, 0, ` +120 .*text-120-\n +119 .*text-119-\n`, ``)
	command(t, srv, "events", "list", "--limit", "2", "--oldest-first", "--from", "5").want(t, 0, ` +5 .*text-5-\n +6 .*text-6-\n`, ``)
	command(t, srv, "events", "list", "--to", "1", "--json").want(t, 0, `\{"sequence":"1",.*\}\n`, ``)
	for limit, want := range map[string]int{"0": 120, "110": 110} {
		if r := command(t, srv, "events", "list", "--limit", limit); strings.Count(r.out, "\n") != want {
			t.Errorf("--limit %s lists %d events, want %d", limit, strings.Count(r.out, "\n"), want)
		}
	}
}

func TestEventsGet(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/", message(1, `第一行\nline two`))
	command(t, srv, "events", "get", "1").want(t, 0,
		`sequence +1\n.*\nmessage\n  message_id  m-1\n.*\n  sender\n    wxid  w-1\n    name  客户甲\n.*    text  第一行\n          line two\n`, ``)
	command(t, srv, "events", "get", "1", "--raw").want(t, 0, `.*\nraw\n  \{\n    "data": \{\n      "messageId": "m-1",\n.*`, ``)
	command(t, srv, "events", "get", "1", "--json").want(t, 0, `\{"sequence":"1",[^\n]*"text":\{"text":"第一行\\nline two"\}\}\}\n`, ``)
	command(t, srv, "events", "get", "2").want(t, 1, ``, "sluice: .*`sluice events list`.*\n")
	command(t, srv, "events", "get", "two").want(t, 2, ``, `sluice: "two" is not the sequence .*\n`)
}
