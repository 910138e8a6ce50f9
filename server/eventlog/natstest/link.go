package natstest

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// A Link is a way to a cluster that can be cut, as a network can.
type Link struct {
	// URL leads to one of the servers, for cluster.Config.URL.
	URL string

	target   string
	listener net.Listener
	runs     sync.WaitGroup
	gate     sync.RWMutex // held for writing while stalled

	mu    sync.Mutex
	cut   bool
	conns []net.Conn // open ones, and others
}

// Link returns a way to the cluster that lasts until the test ends.
func (c *Cluster) Link(t testing.TB) *Link {
	t.Helper()
	first, _, _ := strings.Cut(c.URL, ",")
	target, err := url.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{URL: "nats://" + listener.Addr().String(), target: target.Host, listener: listener}
	l.runs.Go(l.accept)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		l.Cut()
		l.runs.Wait()
	})
	return l
}

// Cut breaks all connections, and lets no new ones through.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, c := range l.conns {
		_ = c.Close() // some have ended before
	}
	l.conns = nil
}

// Stall lets nothing through, without a word, until Flow: connections stay open.
func (l *Link) Stall() { l.gate.Lock() }

// Flow ends Stall.
func (l *Link) Flow() { l.gate.Unlock() }

// pass copies what comes from one end to the other.
func (l *Link) pass(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.gate.RLock()
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		l.gate.RUnlock()
		if err != nil {
			return // one of them is closed
		}
	}
}

// Heal lets connections through again.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // the test ends
		}
		far, err := new(net.Dialer).DialContext(context.Background(), "tcp", l.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		l.join(near, far)
	}
}

// join lets what comes at one end out at the other.
func (l *Link) join(a, b net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_, _ = a.Close(), b.Close()
		return
	}
	l.conns = append(l.conns, a, b)
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		l.runs.Go(func() {
			l.pass(pair[0], pair[1])
			_, _ = pair[0].Close(), pair[1].Close()
		})
	}
}
