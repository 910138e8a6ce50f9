package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// A load is callbacks posted over some keep-alive connections, each of which
// sends the next one when the one before is answered.
type load struct {
	addr        string // host:port
	connections int
	duration    time.Duration

	// rate is callbacks per second over all connections, at even distances. 0
	// is as fast as the answers come.
	rate int

	// chats is how many conversations the callbacks are spread over; 0 is
	// defaultChats.
	chats int
}

// A result is what a load met.
type result struct {
	elapsed   time.Duration
	latencies []time.Duration // one per callback, sorted
	processor time.Duration   // that the server took meanwhile; 0 when it was not measured
}

// perSecond returns callbacks per second.
func (r result) perSecond() float64 { return float64(len(r.latencies)) / r.elapsed.Seconds() }

// processorTimeEach returns the processor time of the server per callback, in
// nanoseconds.
func (r result) processorTimeEach() float64 {
	return float64(r.processor) / float64(max(1, len(r.latencies)))
}

// measure posts the load at s, and takes the processor time of s meanwhile.
func (s *server) measure(ctx context.Context, l load) (result, error) {
	l.addr = s.callbackAddr
	before, err := s.processorTime()
	if err != nil {
		return result{}, err
	}
	r, err := l.run(ctx)
	if err != nil {
		return result{}, err
	}
	after, err := s.processorTime()
	r.processor = after - before
	return r, err
}

// run posts the load. Every answer must be errcode 0: the first that is not
// ends the run with an error.
//
// A latency is the time from a callback's first byte sent, or with a rate from
// when that was due, to its answer's last byte.
func (l load) run(ctx context.Context) (result, error) {
	posters := make([]*poster, l.connections)
	for i := range posters {
		p, err := dial(ctx, l.addr, cmp.Or(l.chats, defaultChats))
		if err != nil {
			return result{}, err
		}
		defer p.close()
		posters[i] = p
	}
	begin := time.Now()
	each := make([][]time.Duration, l.connections)
	g, ctx := errgroup.WithContext(ctx)
	for i, p := range posters {
		g.Go(func() (err error) {
			if l.rate == 0 {
				each[i], err = p.postUntil(ctx, begin.Add(l.duration))
				return err
			}
			gap := time.Second / time.Duration(l.rate)
			first := begin.Add(time.Duration(i) * gap)
			each[i], err = p.postEvery(ctx, first, time.Duration(l.connections)*gap, begin.Add(l.duration))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return result{}, err
	}
	r := result{elapsed: time.Since(begin), latencies: slices.Concat(each...)}
	slices.Sort(r.latencies)
	return r, nil
}

// A poster is one connection. It speaks just enough HTTP for the answers it
// expects, because what it costs is taken from the server beside it.
type poster struct {
	conn    net.Conn
	r       *bufio.Reader
	request *request
}

func dial(ctx context.Context, addr string, chats int) (*poster, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &poster{conn: conn, r: bufio.NewReader(conn), request: newRequest(addr, chats)}, nil
}

func (p *poster) close() { _ = p.conn.Close() } // all that was sent was answered

// postUntil posts one callback after the other until end.
func (p *poster) postUntil(ctx context.Context, end time.Time) ([]time.Duration, error) {
	var latencies []time.Duration
	for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
		if err := p.post(); err != nil {
			return nil, err
		}
		answered := time.Now()
		latencies = append(latencies, answered.Sub(now))
		now = answered
	}
	return latencies, ctx.Err()
}

// postEvery posts a callback at due and every interval from then on until end.
func (p *poster) postEvery(ctx context.Context, due time.Time, interval time.Duration, end time.Time) ([]time.Duration, error) {
	var latencies []time.Duration
	for ; due.Before(end); due = due.Add(interval) {
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := p.post(); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(due))
	}
	return latencies, nil
}

// post sends one callback and waits for its answer, at most 10 s.
func (p *poster) post() error {
	p.request.next()
	if err := p.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := p.conn.Write(p.request.bytes); err != nil {
		return err
	}
	return p.readAnswer()
}

func (p *poster) readAnswer() error {
	status, err := p.r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %q", bytes.TrimSpace(status))
	}
	length := -1
	for {
		line, err := p.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
		}
	}
	if length != len(okAnswer) {
		return fmt.Errorf("answered a body of %d bytes, want %d", length, len(okAnswer))
	}
	answer, err := p.r.Peek(length)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if string(answer) != okAnswer {
		return fmt.Errorf("answered %q, want %q", answer, okAnswer)
	}
	_, err = p.r.Discard(length)
	return err
}

// runLoad posts a load at a server that already runs.
func runLoad(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	var l load
	flags.StringVar(&l.addr, "addr", "127.0.0.1:8080", "where the server takes callbacks")
	flags.IntVar(&l.connections, "connections", 64, "how many connections")
	flags.DurationVar(&l.duration, "duration", 5*time.Second, "how long")
	flags.IntVar(&l.chats, "chats", defaultChats, "how many conversations they are in")
	flags.IntVar(&l.rate, "rate", 0, "callbacks per second; 0 is as fast as the answers come")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if l.chats < 1 || l.chats > maxChats {
		return fmt.Errorf("-chats must be 1 to %d", maxChats)
	}
	r, err := l.run(ctx)
	if err != nil {
		return err
	}
	if len(r.latencies) == 0 {
		return errors.New("no callback was sent")
	}
	fmt.Fprintf(out, "%d callbacks, %.0f/s, p50 %v, p99 %v, longest %v\n", len(r.latencies), r.perSecond(),
		quantile(r.latencies, 0.50), quantile(r.latencies, 0.99), quantile(r.latencies, 1))
	return nil
}
