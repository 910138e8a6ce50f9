package natstest

import (
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// processEnv holds the options of the server that a process is to be.
const processEnv = "SLUICE_TEST_NATS_SERVER"

// Main runs a server, and does not return, in a process that Processes started.
// TestMain calls it first.
func Main() {
	text := os.Getenv(processEnv)
	if text == "" {
		return
	}
	var s settings
	err := json.Unmarshal([]byte(text), &s)
	if err != nil {
		os.Exit(1) //nolint:forbidigo // there is no caller
	}
	srv, err := server.NewServer(s.options())
	if err != nil {
		os.Exit(1) //nolint:forbidigo // there is no caller
	}
	srv.Start()
	select {} // until it is killed
}

// Processes are a cluster of three servers, each a process.
type Processes struct {
	// URL names the servers, for cluster.Config.URL.
	URL string

	options   []*server.Options
	processes []*exec.Cmd
}

// StartProcesses runs a cluster until the test ends, and returns once it can
// hold streams. The test's TestMain must call Main.
func StartProcesses(t testing.TB) *Processes {
	t.Helper()
	c := configure(t, nodes)
	p := &Processes{URL: c.URL, options: c.options, processes: make([]*exec.Cmd, nodes)}
	t.Cleanup(func() {
		for i := range p.processes {
			p.Kill(i)
		}
	})
	for i := range p.options {
		p.Run(t, i)
	}
	nc, err := nats.Connect(p.URL, nats.RetryOnFailedConnect(true), nats.ReconnectWait(100*time.Millisecond), nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream(nats.MaxWait(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(formTimeout); ; <-time.After(50 * time.Millisecond) {
		_, err := js.AddStream(&nats.StreamConfig{Name: "FORMED", Replicas: nodes, Storage: nats.MemoryStorage})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the cluster did not form: %v", err)
		}
	}
	if err := js.DeleteStream("FORMED"); err != nil {
		t.Error(err)
	}
	return p
}

// Run starts server i.
func (p *Processes) Run(t testing.TB, i int) {
	t.Helper()
	o := p.options[i]
	s := settings{Name: o.ServerName, Port: o.Port, ClusterPort: o.Cluster.Port, StoreDir: o.StoreDir}
	for _, r := range o.Routes {
		s.Routes = append(s.Routes, r.Host)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path) //nolint:noctx,gosec // it ends with the test, by Kill; the path is this program's
	cmd.Env = append(os.Environ(), processEnv+"="+string(text))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.processes[i] = cmd
}

// Kill kills server i, if it runs: it hands over nothing.
func (p *Processes) Kill(i int) {
	if cmd := p.processes[i]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		p.processes[i] = nil
	}
}

// Pause stops server i without a word, as a hung machine does: its connections
// stay open.
func (p *Processes) Pause(t testing.TB, i int) { p.signal(t, i, syscall.SIGSTOP) }

// Resume lets server i go on.
func (p *Processes) Resume(t testing.TB, i int) { p.signal(t, i, syscall.SIGCONT) }

func (p *Processes) signal(t testing.TB, i int, s syscall.Signal) {
	t.Helper()
	if err := p.processes[i].Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
