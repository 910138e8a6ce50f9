package main

import (
	"cmp"
	"context"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluicegate/sluice/client"
)

// A gateway is the server that a client command speaks to: the flags that all
// of them share.
type gateway struct {
	addr      string
	timeout   time.Duration // for one answer
	plaintext bool
}

// addGatewayFlags gives cmd the flags of a gateway, and returns what they set.
func addGatewayFlags(cmd *cobra.Command) *gateway {
	g := &gateway{}
	flags := cmd.Flags()
	flags.StringVar(&g.addr, "addr", reachable(cmp.Or(os.Getenv("SLUICE_GRPC_ADDR"), "127.0.0.1:9090")),
		"gRPC address of the gateway (environment: SLUICE_GRPC_ADDR)")
	flags.DurationVar(&g.timeout, "timeout", 10*time.Second, "how long to wait for an answer")
	flags.BoolVar(&g.plaintext, "plaintext", false, "do without TLS where --addr is another machine")
	return g
}

// reachable returns addr, which may be what a server is told to listen on, as
// an address to connect to: every address of this machine becomes loopback.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// dial returns a client of the gateway. It does not wait for a connection.
func (g *gateway) dial() (*client.Client, error) {
	opts := []grpc.DialOption{grpc.WithChainUnaryInterceptor(g.bound)}
	if g.plaintext {
		opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return client.Dial(g.addr, opts...)
}

// bound is an interceptor that gives each call the time that --timeout allows.
func (g *gateway) bound(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	return invoke(ctx, method, req, reply, conn, opts...)
}
