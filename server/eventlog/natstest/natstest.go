// Package natstest runs a NATS cluster in a test: three servers in the process,
// on free ports of the loopback address, that sync every record.
package natstest

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const nodes = 3

// formTimeout bounds the forming of a cluster.
const formTimeout = 30 * time.Second

// A Cluster is some NATS servers.
type Cluster struct {
	// URL names the servers, for cluster.Config.URL.
	URL string

	options []*server.Options
	servers []*server.Server // nil for one that was stopped
}

// Start runs a cluster until the test ends, and returns once it can hold
// streams.
func Start(t testing.TB) *Cluster {
	t.Helper()
	c := configure(t, nodes)
	for i := range c.options {
		c.Run(t, i)
	}
	deadline := time.Now().Add(formTimeout)
	for leader := c.leader(); leader < 0 || len(c.servers[leader].JetStreamClusterPeers()) < nodes; leader = c.leader() {
		if time.Now().After(deadline) {
			t.Fatal("the cluster did not form")
		}
		<-time.After(20 * time.Millisecond)
	}
	return c
}

// StartOne runs a single server until the test ends, which holds streams of one
// replica. change, which may be nil, changes how.
func StartOne(t testing.TB, change func(*server.Options)) *Cluster {
	t.Helper()
	c := configure(t, 1)
	c.options[0].Cluster, c.options[0].Routes = server.ClusterOpts{}, nil
	if change != nil {
		change(c.options[0])
	}
	c.Run(t, 0)
	if !c.servers[0].ReadyForConnections(formTimeout) {
		t.Fatal("the server did not start")
	}
	return c
}

// configure prepares n servers.
func configure(t testing.TB, n int) *Cluster {
	t.Helper()
	ports := freePorts(t, 2*n)
	c := &Cluster{servers: make([]*server.Server, n)}
	var urls []string
	for i := range n {
		s := settings{Name: fmt.Sprint("n", i), Port: ports[i], ClusterPort: ports[n+i], StoreDir: t.TempDir()}
		for _, p := range ports[n:] {
			s.Routes = append(s.Routes, fmt.Sprintf("127.0.0.1:%d", p))
		}
		c.options = append(c.options, s.options())
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	c.URL = strings.Join(urls, ",")
	t.Cleanup(func() {
		for i := range c.servers {
			c.Stop(i)
		}
	})
	return c
}

// settings are what tells one server of a cluster from the others.
type settings struct {
	Name, StoreDir    string
	Port, ClusterPort int
	Routes            []string // host and port of each server
}

func (s settings) options() *server.Options {
	o := &server.Options{
		ServerName: s.Name,
		Host:       "127.0.0.1",
		Port:       s.Port,
		NoSigs:     true,
		NoLog:      true,
		JetStream:  true,
		StoreDir:   s.StoreDir,
		SyncAlways: true,
		Cluster: server.ClusterOpts{
			Name: "c", Host: "127.0.0.1", Port: s.ClusterPort,
			NoAdvertise: true, // clients stay with the addresses that they were given
		},
	}
	for _, r := range s.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: r})
	}
	return o
}

// Run starts server i, which was stopped.
func (c *Cluster) Run(t testing.TB, i int) {
	t.Helper()
	srv, err := server.NewServer(c.options[i].Clone())
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	c.servers[i] = srv
}

// Stop stops server i, if it runs, as an operator does: it hands over what it
// leads.
func (c *Cluster) Stop(i int) {
	if srv := c.servers[i]; srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		c.servers[i] = nil
	}
}

// Dir returns the folder of the streams of server i.
func (c *Cluster) Dir(i int) string {
	return filepath.Join(c.options[i].StoreDir, "jetstream", "$G", "streams")
}

// NodeURL returns the address of server i.
func (c *Cluster) NodeURL(i int) string { return strings.Split(c.URL, ",")[i] }

// Varz returns what server i says of itself, as it does on the system account.
func (c *Cluster) Varz(t testing.TB, i int) server.ServerAPIResponse {
	t.Helper()
	varz, err := c.servers[i].Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	return server.ServerAPIResponse{Server: &server.ServerInfo{Name: c.options[i].ServerName}, Data: varz}
}

// StreamLeader returns which server leads a stream, and waits for one.
func (c *Cluster) StreamLeader(t testing.TB, stream string) int {
	t.Helper()
	for deadline := time.Now().Add(formTimeout); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		for i, srv := range c.servers {
			if srv != nil && srv.JetStreamIsStreamLeader("$G", stream) {
				return i
			}
		}
	}
	t.Fatalf("stream %s has no leader", stream)
	return -1
}

// WaitCurrent waits until server i has all of a stream.
func (c *Cluster) WaitCurrent(t testing.TB, i int, stream string) {
	t.Helper()
	for deadline := time.Now().Add(formTimeout); !c.servers[i].JetStreamIsStreamCurrent("$G", stream); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("server %d did not catch up with stream %s", i, stream)
		}
	}
}

// KillLeader stops the server that leads the cluster.
func (c *Cluster) KillLeader(t testing.TB) {
	t.Helper()
	i := c.leader()
	if i < 0 {
		t.Fatal("no server is the leader")
	}
	c.Stop(i)
}

// leader returns the index of the server that leads; -1 for none.
func (c *Cluster) leader() int {
	for i, srv := range c.servers {
		if srv != nil && srv.JetStreamIsLeader() {
			return i
		}
	}
	return -1
}

// freePorts returns n ports of the loopback address that were free a moment
// ago.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }() // all at once at the end, so that no port comes twice
		addr, ok := ln.Addr().(*net.TCPAddr)
		if !ok {
			t.Fatalf("address %v is not TCP's", ln.Addr())
		}
		ports[i] = addr.Port
	}
	return ports
}
