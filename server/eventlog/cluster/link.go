package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	// A server that is gone without a word is found in three of these: before
	// the nodes that are left have elected a leader.
	pingInterval = time.Second

	// dialTimeout bounds the connecting to one server, writeTimeout the writing
	// to one that takes nothing.
	dialTimeout  = 2 * time.Second
	writeTimeout = 2 * time.Second

	// reconnectWait is the pause after all servers were tried, and its jitter.
	reconnectWait = 250 * time.Millisecond

	// askAgain is how long a request may go unanswered before it is repeated:
	// whoever had it may be gone.
	askAgain = time.Second

	// retryDelay is how long to wait after an answer that says to come again.
	retryDelay = 50 * time.Millisecond
)

// A link is a connection to the cluster. Answers come to an inbox of its own, so
// that a request costs no subscription. What is sent goes through a queue: the
// client library holds a lock while it writes, and the other end may take
// nothing.
type link struct {
	nc     *nats.Conn
	inbox  string // what is sent under token t is answered to inbox + t
	up     atomic.Bool
	closed chan struct{}
	runs   sync.WaitGroup

	mu      sync.Mutex
	token   uint64
	waiting map[uint64]func(*nats.Msg)
	queue   []*nats.Msg
	wake    chan struct{} // of size 1: queue is not empty
}

// dial connects. Later failures of the connection heal by themselves.
func dial(ctx context.Context, cfg Config, logger *slog.Logger) (*link, error) {
	l := &link{
		inbox: nats.NewInbox() + ".", closed: make(chan struct{}),
		waiting: make(map[uint64]func(*nats.Msg)), wake: make(chan struct{}, 1),
	}
	l.up.Store(true)
	options := []nats.Option{
		nats.Name("sluice"),
		// A publish that is buffered while disconnected has an outcome that
		// nobody knows: fail it instead.
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.Timeout(dialTimeout),
		nats.FlusherTimeout(writeTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			l.up.Store(false)
			if err != nil {
				logger.Warn("the connection to NATS failed", "err", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { l.up.Store(true) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			logger.Warn("nats", "err", err)
		}),
	}
	if cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(cfg.Credentials))
	}
	done := make(chan error, 1)
	var nc *nats.Conn
	go func() {
		var err error
		if nc, err = nats.Connect(cfg.URL, options...); err == nil && ctx.Err() != nil {
			nc.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, fmt.Errorf("connect to NATS: %w", err)
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to NATS: %w", ctx.Err())
	}
	l.nc = nc
	sub, err := nc.Subscribe(l.inbox+"*", l.receive)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1) // bounded by what was asked for
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("subscribe to answers: %w", err)
	}
	l.runs.Go(l.write)
	return l, nil
}

// listen has take called for each message that is sent to reply, until cancel.
// take must not wait.
func (l *link) listen(take func(*nats.Msg)) (reply string, cancel func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token++
	token := l.token
	l.waiting[token] = take
	return l.inbox + strconv.FormatUint(token, 36), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, token)
	}
}

// receive hands an answer to who waits for it, if anybody still does.
func (l *link) receive(m *nats.Msg) {
	token, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, l.inbox), 36, 64)
	if err != nil {
		return
	}
	l.mu.Lock()
	take := l.waiting[token]
	l.mu.Unlock()
	if take != nil {
		take(m)
	}
}

// send sends m without waiting. When that fails, it is answered with the status
// of a request that nobody serves.
func (l *link) send(m *nats.Msg) {
	l.mu.Lock()
	l.queue = append(l.queue, m)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// write sends what is in the queue, until close.
func (l *link) write() {
	for {
		select {
		case <-l.wake:
		case <-l.closed:
			return
		}
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, m := range queue {
			if err := l.nc.PublishMsg(m); err != nil && m.Reply != "" {
				l.receive(&nats.Msg{Subject: m.Reply, Header: nats.Header{
					headerStatus: {statusNobody}, headerDescription: {"not sent: " + err.Error()},
				}})
			}
		}
	}
}

// statusNobody is the status of the answer to a request that nobody serves.
const statusNobody = "503"

// ask sends a request that can be repeated, and reads its answer into to. It
// returns ErrUnavailable when there is none until ctx ends.
func (l *link) ask(ctx context.Context, subject string, request, to any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	answers := make(chan *nats.Msg, 1)
	reply, cancel := l.listen(func(m *nats.Msg) {
		select {
		case answers <- m:
		default: // of a repetition
		}
	})
	defer cancel()
	why := errors.New("no answer")
	for {
		l.send(&nats.Msg{Subject: subject, Reply: reply, Data: body})
		again := time.NewTimer(askAgain)
		select {
		case m := <-answers:
			if m.Header.Get(headerStatus) != statusNobody {
				again.Stop()
				return decode(m, to)
			}
			why = decode(m, to) // nobody leads now
			again.Reset(retryDelay)
			select {
			case <-again.C:
			case <-ctx.Done():
			}
		case <-again.C:
		case <-ctx.Done():
		case <-l.closed:
			again.Stop()
			return eventlog.ErrClosed
		}
		again.Stop()
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w: %w", eventlog.ErrUnavailable, why, ctx.Err())
		}
	}
}

// close ends the connection. Whoever waits for an answer gets none.
func (l *link) close() {
	close(l.closed)
	l.nc.Close()
	l.runs.Wait()
}
