// Package client is the Go client of a Sluice gateway. Consume works on events as
// a member of a consumer group, Subscribe reads the log of them, Post sends
// callbacks. The first two go on across lost connections and restarts of the
// server.
//
// What it does not wrap is reached through the generated clients of package
// sluicev1, over Client.Conn or a connection of one's own.
package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"iter"
	"net"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// maxResponseBytes bounds what the server may send in one message. A frame is
// far smaller, unless its events are large and asked for with their bodies.
const maxResponseBytes = 64 << 20

// A Client speaks to one gateway. It is safe for concurrent use.
type Client struct {
	conn grpc.ClientConnInterface
	dial func() (*grpc.ClientConn, error) // nil when conn is the caller's
}

// New returns a Client over conn, which stays the caller's to close. All of its
// subscriptions share conn, which therefore needs keepalive to find out when it
// is dead.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{conn: conn}
}

// Dial returns a Client with connections of its own to target, in gRPC's
// syntax: "127.0.0.1:9090", "dns:///sluice.internal:9090" or
// "unix:///run/sluice.sock". It does not wait for a connection: a gateway that
// is not there shows in the first call. Its error means that target or opts make
// no sense.
//
// A loopback address or a Unix socket is spoken to in plain text, anything else
// with TLS and the system's roots. A dead connection is noticed within 30 s
// while a call is open, and a lost one is made again at most every 5 s. Options
// in opts win over these.
func Dial(target string, opts ...grpc.DialOption) (*Client, error) {
	creds := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	if isLocal(target) {
		creds = insecure.NewCredentials()
	}
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = 5 * time.Second
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent("sluice-go"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: openTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	}, opts...)
	dial := func() (*grpc.ClientConn, error) { return grpc.NewClient(target, opts...) }
	conn, err := dial()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return &Client{conn: conn, dial: dial}, nil
}

// Close ends the calls in progress, but for Subscribe and Consume, which end with
// their context. It leaves a connection given to New alone.
func (c *Client) Close() error {
	if own, ok := c.conn.(*grpc.ClientConn); ok && c.dial != nil {
		return own.Close()
	}
	return nil
}

// Conn returns the connection, for the generated clients of what this package
// does not wrap, such as sluicev1.NewQuarantineServiceClient. Close closes it.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// fresh returns a connection for one stream, and what ends it. Each try to
// subscribe gets one of its own where that is possible: a connection that went
// silent would swallow the next try, too.
func (c *Client) fresh() (grpc.ClientConnInterface, func(), error) {
	if c.dial == nil {
		return c.conn, func() {}, nil
	}
	conn, err := c.dial()
	if err != nil {
		return nil, nil, err
	}
	return conn, func() { _ = conn.Close() }, nil // closing twice is its only error
}

// isLocal reports whether target cannot leave this machine.
func isLocal(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	endpoint := target[strings.LastIndexByte(target, '/')+1:] // without "dns:///"
	host, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		host = endpoint // no port
	}
	ip := net.ParseIP(host)
	return host == "" || host == "localhost" || ip != nil && ip.IsLoopback() // gRPC takes no host for localhost
}

// ListEvents yields what the log holds now, page by page as the loop goes on:
// breaking out of it stops asking. req.page_size is the size of a page and no
// limit. An error is the last thing yielded.
func (c *Client) ListEvents(ctx context.Context, req *sluicev1.ListEventsRequest) iter.Seq2[*sluicev1.Event, error] {
	return func(yield func(*sluicev1.Event, error) bool) {
		req := proto.CloneOf(req)
		for {
			page, err := sluicev1.NewEventServiceClient(c.conn).ListEvents(ctx, req)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, e := range page.GetEvents() {
				if !yield(e, nil) {
					return
				}
			}
			req.PageToken = page.GetNextPageToken()
			if req.GetPageToken() == "" {
				return
			}
		}
	}
}

// GetEvent returns one event. The reason of its error is EVENT_NOT_FOUND when
// the log does not hold it.
func (c *Client) GetEvent(ctx context.Context, req *sluicev1.GetEventRequest) (*sluicev1.Event, error) {
	res, err := sluicev1.NewEventServiceClient(c.conn).GetEvent(ctx, req)
	return res.GetEvent(), err
}

// Post sends a callback as the vendor would POST it: body, byte for byte, to
// path, where "" is "/". When it returns nil, what the body says is on stable
// storage. After UNAVAILABLE or a lost connection it may or may not be: posting
// it again is safe.
func (c *Client) Post(ctx context.Context, path string, body []byte) (*sluicev1.ReceiveCallbackResponse, error) {
	return sluicev1.NewCallbackServiceClient(c.conn).ReceiveCallback(ctx, &sluicev1.ReceiveCallbackRequest{
		Path:     path,
		Callback: &sluicev1.Callback{Body: body},
	})
}

// Reason returns why the gateway refused a call, with the facts that go with
// it, which error_reason.proto lists; it is what to branch on.
// It returns ERROR_REASON_UNSPECIFIED for an error that is not the gateway's
// own, such as a connection that cannot be made, and for a reason that this
// package is too old to know.
func Reason(err error) (sluicev1.ErrorReason, map[string]string) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "sluice" {
			return sluicev1.ErrorReason(sluicev1.ErrorReason_value["ERROR_REASON_"+info.GetReason()]), info.GetMetadata()
		}
	}
	return sluicev1.ErrorReason_ERROR_REASON_UNSPECIFIED, nil
}
