// Package natstest runs a NATS cluster in a test: three servers in the process,
// on free ports of the loopback address, that sync every record.
package natstest

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const nodes = 3

// formTimeout bounds the forming of a cluster.
const formTimeout = 30 * time.Second

// A Cluster is three NATS servers.
type Cluster struct {
	// URL names the servers, for eventlog.Config.URL.
	URL string

	servers []*server.Server
}

// Start runs a cluster until the test ends, and returns once it can hold
// streams.
func Start(t testing.TB) *Cluster {
	t.Helper()
	ports := freePorts(t, 2*nodes)
	var routes []*url.URL
	for _, p := range ports[nodes:] {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
	}
	c := &Cluster{}
	var urls []string
	for i := range nodes {
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i),
			Host:       "127.0.0.1",
			Port:       ports[i],
			NoSigs:     true,
			NoLog:      true,
			JetStream:  true,
			StoreDir:   t.TempDir(),
			SyncAlways: true,
			Cluster: server.ClusterOpts{
				Name: "c", Host: "127.0.0.1", Port: ports[nodes+i],
				NoAdvertise: true, // clients stay with the addresses that they were given
			},
			Routes: routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		t.Cleanup(func() { stop(srv) })
		c.servers = append(c.servers, srv)
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	c.URL = strings.Join(urls, ",")
	deadline := time.Now().Add(formTimeout)
	for leader := c.leader(); leader < 0 || len(c.servers[leader].JetStreamClusterPeers()) < nodes; leader = c.leader() {
		if time.Now().After(deadline) {
			t.Fatal("the cluster did not form")
		}
		<-time.After(20 * time.Millisecond)
	}
	return c
}

// KillLeader stops the server that leads the cluster.
func (c *Cluster) KillLeader(t testing.TB) {
	t.Helper()
	i := c.leader()
	if i < 0 {
		t.Fatal("no server is the leader")
	}
	stop(c.servers[i])
	c.servers = append(c.servers[:i:i], c.servers[i+1:]...)
}

// leader returns the index of the server that leads; -1 for none.
func (c *Cluster) leader() int {
	for i, srv := range c.servers {
		if srv.JetStreamIsLeader() {
			return i
		}
	}
	return -1
}

func stop(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
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
