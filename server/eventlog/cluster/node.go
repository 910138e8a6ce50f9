package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// readyTimeout bounds the start of the embedded server, and one request to any
// server.
const readyTimeout = 10 * time.Second

// pingInterval is how often the other end of an idle connection is asked
// whether it is there.
const pingInterval = 2 * time.Second

// A node is the storage while it runs: the embedded server, if there is one,
// and the connections to it. It is started once, fails once, and is then
// replaced.
type node struct {
	srv     *server.Server // nil when external
	write   *nats.Conn
	read    *nats.Conn // its own, since the server serves a connection's reads and writes in turn
	js      jetstream.JetStream
	commits *committer
	fetches *fetcher
	ailing  int // checks in a row that found the server ill

	once   sync.Once
	failed chan struct{} // closed by fail
	why    error         // set before failed is closed
}

// start starts a node.
func (e *Engine) start() (*node, error) {
	n := &node{failed: make(chan struct{})}
	url := e.cfg.URL
	options := []nats.Option{
		nats.Name("sluice"),
		// A publish that is buffered while disconnected has an outcome that
		// nobody knows: fail it instead.
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.Timeout(readyTimeout),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			e.logger.Warn("nats", "err", err)
		}),
	}
	if e.cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(e.cfg.Credentials))
	}
	var commit func([]write) error // nil: an acknowledgement is durable by itself
	if e.dir != nil {
		srv, err := startServer(e.cfg, e.logger)
		if err != nil {
			return nil, err
		}
		n.srv, url = srv, ""
		options = append(options, nats.InProcessServer(srv))
		if e.cfg.Sync == SyncGroup {
			e.dir.forgetBlocks()
			commit = e.dir.commit
		}
	} else {
		// A server that is gone without a word is found in three of these.
		options = append(options, nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2))
	}
	err := n.connect(url, options)
	if err == nil {
		n.commits, err = newCommitter(n.write, commit, n.fail, e.metrics)
	}
	if err == nil {
		n.fetches, err = newFetcher(n.read, e.dir == nil)
	}
	if err != nil {
		n.shutdown(err)
		return nil, err
	}
	return n, nil
}

func (n *node) connect(url string, options []nats.Option) (err error) {
	if n.write, err = nats.Connect(url, options...); err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	if n.read, err = nats.Connect(url, options...); err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	n.js, err = jetstream.New(n.read)
	return err
}

// startServer starts the embedded server: no port, no signal handlers.
func startServer(cfg Config, logger *slog.Logger) (*server.Server, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "sluice",
		DontListen: true,
		NoSigs:     true,
		JetStream:  true,
		StoreDir:   cfg.Dir,
		SyncAlways: cfg.Sync == SyncAlways,
		// Its own share of the disk is no bound of ours: MinFree and MaxBytes
		// are.
		JetStreamMaxStore:  1 << 60,
		JetStreamMaxMemory: 64 << 20,
		MaxPayload:         int32(min(cfg.MaxRecord+headerRoom, server.MAX_PAYLOAD_MAX_SIZE)), //nolint:gosec // bounded
		MaxPending:         256 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	srv.SetLoggerV2(&serverLog{logger}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(readyTimeout) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, errors.New("the embedded NATS server did not start: see the log for its reason")
	}
	return srv, nil
}

// headerRoom is what the headers of a record may add to it, in bytes.
const headerRoom = 64 << 10

// check fails n when the embedded server can no longer write: it then keeps
// silent for ever. Only the supervisor calls it.
func (n *node) check() {
	if n.commits.stalled() {
		n.fail(errors.New("an append was not acknowledged in time"))
	}
	if n.srv == nil {
		return
	}
	h := n.srv.Healthz(nil)
	if h.Error == "" {
		n.ailing = 0
		return
	}
	// A stream that is just being made looks missing for a moment.
	if n.ailing++; n.ailing > 2 {
		n.fail(fmt.Errorf("embedded NATS server: %s", h.Error))
	}
}

func (n *node) connected() bool { return n.write.IsConnected() && n.read.IsConnected() }

// fail takes n out of service. It may be called more than once; the first
// reason counts.
func (n *node) fail(err error) {
	n.once.Do(func() {
		n.why = err
		close(n.failed)
	})
}

// reason returns why n failed. It is called after failed is closed.
func (n *node) reason() error { return n.why }

// remove removes the record at sequence from the stream named log, or returns
// ErrNotFound.
func (n *node) remove(log string, sequence uint64) error {
	body, err := json.Marshal(server.JSApiMsgDeleteRequest{Seq: sequence})
	if err != nil {
		return err
	}
	m, err := n.read.Request(fmt.Sprintf(server.JSApiMsgDeleteT, log), body, readyTimeout)
	if err != nil {
		return fmt.Errorf("%w: remove a record: %w", ErrUnavailable, err)
	}
	var answer server.JSApiMsgDeleteResponse
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("%w: remove a record: %w", ErrUnavailable, err)
	}
	switch fault := answer.Error; {
	case fault == nil && answer.Success:
		return nil
	case fault != nil && (fault.ErrCode == codeNoSequence || fault.Description == server.ErrStoreMsgNotFound.Error()):
		return ErrNotFound
	case fault != nil:
		return fmt.Errorf("%w: remove a record: %s", ErrUnavailable, fault.Description)
	}
	return fmt.Errorf("%w: a record was not removed", ErrUnavailable)
}

// codeNoSequence is JetStream's error code for a sequence that a stream does
// not hold.
const codeNoSequence = 10043

// shutdown stops n and fails what is under way with err.
func (n *node) shutdown(err error) {
	if n.commits != nil {
		n.commits.stop(err)
	}
	if n.fetches != nil {
		n.fetches.stop(err)
	}
	for _, nc := range []*nats.Conn{n.write, n.read} {
		if nc != nil {
			nc.Close()
		}
	}
	if n.srv != nil {
		n.srv.Shutdown()
		n.srv.WaitForShutdown()
	}
}

// serverLog passes what the embedded server says on. It says nothing of the
// content of a record.
type serverLog struct{ *slog.Logger }

func (l *serverLog) say(level slog.Level, format string, args []any) {
	l.Log(context.Background(), level, "nats server", "text", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (l *serverLog) Noticef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
func (l *serverLog) Warnf(format string, args ...any)   { l.say(slog.LevelWarn, format, args) }
func (l *serverLog) Errorf(format string, args ...any)  { l.say(slog.LevelError, format, args) }
func (l *serverLog) Fatalf(format string, args ...any)  { l.say(slog.LevelError, format, args) }
func (l *serverLog) Debugf(string, ...any)              {}
func (l *serverLog) Tracef(string, ...any)              {}
