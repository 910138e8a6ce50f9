package client_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A proxy stands between a client and the gateway, and can be told to fail.
type proxy struct {
	Addr string // where clients connect to

	target   string
	listener net.Listener
	pipes    sync.WaitGroup

	mu    sync.Mutex
	lines map[*line]struct{} // the connections that are open
}

// A line is one connection through a proxy.
type line struct {
	client, server net.Conn
	silent         atomic.Bool // swallow what comes, either way
}

// startProxy forwards to target until the test ends.
func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Addr: listener.Addr().String(), target: target, listener: listener, lines: map[*line]struct{}{}}
	p.pipes.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
		p.pipes.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close() // the gateway is down: so is the line to it
			continue
		}
		l := &line{client: client, server: server}
		p.mu.Lock()
		p.lines[l] = struct{}{}
		p.mu.Unlock()
		p.pipes.Go(func() { p.forward(l, client, server) })
		p.pipes.Go(func() { p.forward(l, server, client) })
	}
}

// forward copies from one end of l to the other, until either is closed.
func (p *proxy) forward(l *line, from, to net.Conn) {
	defer func() {
		_ = l.client.Close()
		_ = l.server.Close()
		p.mu.Lock()
		delete(p.lines, l)
		p.mu.Unlock()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !l.silent.Load() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) && l.silent.Load() {
			continue // even the end is kept from the other side
		}
		if err != nil {
			return
		}
	}
}

// Cut closes the connections that are open.
func (p *proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		_ = l.client.Close()
		_ = l.server.Close()
	}
}

// Silence swallows everything on the connections that are open, which stay so.
func (p *proxy) Silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.silent.Store(true)
	}
}
