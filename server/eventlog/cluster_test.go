package eventlog

import (
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// freePorts returns n ports of the loopback address that were free a moment
// ago.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ports[i] = ln.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// startCluster starts three NATS servers that sync every record, and returns
// them and their URL.
func startCluster(t *testing.T) ([]*server.Server, string) {
	t.Helper()
	ports := freePorts(t, 6)
	var routes []*url.URL
	for _, p := range ports[3:] {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
	}
	var servers []*server.Server
	var urls string
	for i := range 3 {
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i),
			Host:       "127.0.0.1",
			Port:       ports[i],
			NoSigs:     true,
			NoLog:      true,
			JetStream:  true,
			StoreDir:   t.TempDir(),
			SyncAlways: true,
			Cluster:    server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[3+i]},
			Routes:     routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		servers = append(servers, srv)
		urls += fmt.Sprintf("nats://127.0.0.1:%d,", ports[i])
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		peers := 0
		for _, srv := range servers {
			if srv.JetStreamIsLeader() {
				peers = len(srv.JetStreamClusterPeers())
			}
		}
		if peers == 3 {
			return servers, urls[:len(urls)-1]
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster did not form")
		}
		<-time.After(20 * time.Millisecond)
	}
}

// TestTwoGatewaysOfOneCluster appends through two engines: they share the
// order, the duplicates and the end of the log, and go on when a node dies.
func TestTwoGatewaysOfOneCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	servers, urls := startCluster(t)
	cfg := LogConfig{DedupeWindow: time.Hour}
	one := openLog(t, openEngine(t, Config{URL: urls, Logger: testLogger(t), CommitTimeout: 10 * time.Second}), cfg)
	two := openLog(t, openEngine(t, Config{URL: urls, Logger: testLogger(t), CommitTimeout: 10 * time.Second}), cfg)
	if one.Epoch() != two.Epoch() {
		t.Errorf("epochs %s and %s of one log", one.Epoch(), two.Epoch())
	}
	r := two.Read(1)
	if a := mustAppend(t, one, "a", "a"); a.Sequence != 1 {
		t.Fatalf("Append = %+v", a)
	}
	wantData(t, take(t, r, 1), "a")
	if a := mustAppend(t, two, "a", "again"); !a.Duplicate || a.Sequence != 1 {
		t.Errorf("Append through the other gateway = %+v, want a duplicate of 1", a)
	}
	mustAppend(t, two, "b", "b")
	wantData(t, take(t, one.Read(1), 2), "a", "b")

	for i, srv := range servers { // the one that most has to move away from
		if srv.JetStreamIsLeader() {
			srv.Shutdown()
			srv.WaitForShutdown()
			servers = append(servers[:i:i], servers[i+1:]...)
			break
		}
	}
	if len(servers) != 2 {
		t.Fatal("no node was the leader")
	}
	mustAppend(t, one, "c", "c")
	mustAppend(t, two, "d", "d")
	wantData(t, take(t, one.Read(1), 4), "a", "b", "c", "d")
	wantData(t, take(t, r, 3), "b", "c", "d")
}
