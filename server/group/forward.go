package group

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
)

// forwardedKey marks a call, in its metadata, that a gateway has handed on: it
// goes no further. A client that sets it is answered by the gateway it calls, or
// not at all.
const forwardedKey = "sluice-forwarded"

// requestIDKey is passed on, so that the lines of both gateways' logs can be
// told to belong together.
const requestIDKey = "x-request-id"

// led are the calls that only the leader of a group can answer, by full name,
// with what they answer; Consume is another.
var led = map[string]func() proto.Message{
	sluicev1.ConsumerService_Pull_FullMethodName:   func() proto.Message { return &sluicev1.PullResponse{} },
	sluicev1.ConsumerService_Settle_FullMethodName: func() proto.Message { return &sluicev1.SettleResponse{} },

	sluicev1.ConsumerGroupService_UpdateConsumerGroup_FullMethodName:    func() proto.Message { return &sluicev1.UpdateConsumerGroupResponse{} },
	sluicev1.ConsumerGroupService_SeekConsumerGroup_FullMethodName:      func() proto.Message { return &sluicev1.SeekConsumerGroupResponse{} },
	sluicev1.ConsumerGroupService_GetConsumerGroupStatus_FullMethodName: func() proto.Message { return &sluicev1.GetConsumerGroupStatusResponse{} },
	sluicev1.ConsumerGroupService_ListDeadLetters_FullMethodName:        func() proto.Message { return &sluicev1.ListDeadLettersResponse{} },
	sluicev1.ConsumerGroupService_RedriveDeadLetters_FullMethodName:     func() proto.Message { return &sluicev1.RedriveDeadLettersResponse{} },
	sluicev1.ConsumerGroupService_DiscardDeadLetters_FullMethodName:     func() proto.Message { return &sluicev1.DiscardDeadLettersResponse{} },
}

// Forward is an interceptor: it hands a call for a group that another gateway
// leads on to that one, and everything else to handler.
func (s *Service) Forward(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer := led[info.FullMethod]
	about, ok := req.(interface{ GetConsumerGroupId() string })
	if answer == nil || !ok || s.leases == nil {
		return handler(ctx, req)
	}
	r, err := s.group(ctx, about.GetConsumerGroupId())
	if err != nil {
		return nil, err
	}
	conn, err := s.toLeader(ctx, r)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return handler(ctx, req)
	}
	out, cancel := context.WithCancel(outgoing(ctx))
	defer cancel()
	if info.FullMethod == sluicev1.ConsumerService_Pull_FullMethodName { // it may wait
		go func() {
			select {
			case <-s.draining:
				cancel()
			case <-out.Done():
			}
		}()
	}
	res := answer()
	if err := conn.Invoke(out, info.FullMethod, req, res); err != nil {
		return nil, s.forwarded(ctx, r, err)
	}
	return res, nil
}

// toLeader returns the connection to the other gateway that is to answer a call;
// nil when this one is.
func (s *Service) toLeader(ctx context.Context, r *runner) (*grpc.ClientConn, error) {
	address := r.leader()
	if address == "" || len(metadata.ValueFromIncomingContext(ctx, forwardedKey)) > 0 {
		return nil, nil //nolint:nilnil // neither is there
	}
	conn, err := s.peers.conn(address)
	if err != nil {
		return nil, noLeader(r.name, err)
	}
	s.metrics.forwarded.Inc()
	return conn, nil
}

// outgoing returns the context of a call that is handed on.
func outgoing(ctx context.Context) context.Context {
	md := metadata.Pairs(forwardedKey, "1")
	md.Set(requestIDKey, metadata.ValueFromIncomingContext(ctx, requestIDKey)...)
	return metadata.NewOutgoingContext(ctx, md)
}

// forwarded returns the error of a call that was handed on: what the leader says
// as it is, and of one that cannot be reached that there is no leader. What such
// a call has done is not known.
func (s *Service) forwarded(ctx context.Context, r *runner, err error) error {
	said := status.Convert(err)
	switch {
	case said.Code() == codes.Canceled && ctx.Err() == nil && s.isDraining():
		return apierror.Draining()
	case said.Code() == codes.Unavailable && len(said.Details()) == 0:
		return noLeader(r.name, err)
	}
	return err
}

// proxy is a call of Consume for a group that another gateway leads: conn leads
// there, and open is the first frame.
func (s *Service) proxy(stream consumeStream, conn *grpc.ClientConn, r *runner, open *sluicev1.ConsumeRequest) error {
	ctx := stream.Context()
	out, cancel := context.WithCancel(outgoing(ctx))
	defer cancel()
	far, err := sluicev1.NewConsumerServiceClient(conn).Consume(out)
	if err == nil {
		err = far.Send(open)
	}
	if err != nil && !errors.Is(err, io.EOF) { // then Recv says why
		return s.forwarded(ctx, r, err)
	}
	go func() { // ends with the stream, which ends when this function does
		for {
			req, err := stream.Recv()
			if err == nil {
				err = far.Send(req)
			} else if errors.Is(err, io.EOF) {
				_ = far.CloseSend() // it returns no error
			}
			if err != nil {
				return
			}
		}
	}()
	answers := make(chan *sluicev1.ConsumeResponse)
	failed := make(chan error, 1) // one place: nobody may wait for it
	go func() {
		for {
			res, err := far.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case answers <- res:
			case <-out.Done():
				return
			}
		}
	}()
	for {
		select {
		case res := <-answers:
			if err := stream.Send(res); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return s.forwarded(ctx, r, err)
		case <-s.draining:
			return stream.Send(goingAway())
		}
	}
}

// peers are the connections to other gateways, made when they are needed. They
// are safe for concurrent use.
type peers struct {
	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // by address
}

const (
	// peerPing and peerPingTimeout find a gateway that is gone while calls wait
	// for it. The server does not take more pings than that.
	peerPing        = 10 * time.Second
	peerPingTimeout = 5 * time.Second
)

// conn returns the connection to the gateway at address.
func (p *peers) conn(address string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[address]; c != nil {
		return c, nil
	}
	// One that comes back is to be found soon: the lease says that it is there.
	retry := backoff.DefaultConfig
	retry.MaxDelay = noLeaderDelay
	c, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: noLeaderDelay}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: peerPing, Timeout: peerPingTimeout}),
		// The leader has held what it answers to the limits of the API.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	)
	if err != nil {
		return nil, err
	}
	if p.conns == nil {
		p.conns = make(map[string]*grpc.ClientConn)
	}
	p.conns[address] = c
	return c, nil
}

// close closes the connections.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close() // only says that it was closed before
	}
	p.conns = nil
}
