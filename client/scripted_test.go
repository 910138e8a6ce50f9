package client_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A stream is the server's end of one subscription.
type stream = grpc.ServerStreamingServer[sluicev1.SubscribeResponse]

// A script is a peer that answers the n-th subscription with its n-th step, and
// any further one with its last. It stands for what the real server cannot be
// made to do at will: to misbehave. A step may end in any error.
type script struct {
	sluicev1.UnimplementedEventServiceServer
	steps []func(stream) error

	mu       sync.Mutex
	requests []*sluicev1.SubscribeRequest
}

func (s *script) Subscribe(req *sluicev1.SubscribeRequest, st stream) error {
	s.mu.Lock()
	s.requests = append(s.requests, req)
	step := s.steps[min(len(s.requests), len(s.steps))-1]
	s.mu.Unlock()
	return step(st)
}

// asked returns the requests so far.
func (s *script) asked() []*sluicev1.SubscribeRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*sluicev1.SubscribeRequest(nil), s.requests...)
}

// play returns a client of a server that plays steps, and the script.
func play(t *testing.T, steps ...func(stream) error) (*client.Client, *script) {
	t.Helper()
	s := &script{steps: steps}
	return serveScript(t, func(srv *grpc.Server) { sluicev1.RegisterEventServiceServer(srv, s) }), s
}

// serveScript returns a client of a server with the services that register
// registers.
func serveScript(t *testing.T, register func(*grpc.Server)) *client.Client {
	t.Helper()
	srv := grpc.NewServer()
	register(srv)
	ln := bufconn.Listen(1 << 16)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	conn, err := grpc.NewClient("passthrough:///script",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return client.New(conn)
}

// send returns a step that sends frames and returns err.
func send(err error, frames ...*sluicev1.SubscribeResponse) func(stream) error {
	return func(st stream) error {
		for _, f := range frames {
			if err := st.Send(f); err != nil {
				return err
			}
		}
		return err
	}
}

// hang returns a step that sends frames and then nothing, until the client goes.
func hang(frames ...*sluicev1.SubscribeResponse) func(stream) error {
	return func(st stream) error {
		if err := send(nil, frames...)(st); err != nil {
			return err
		}
		<-st.Context().Done()
		return st.Context().Err()
	}
}

func opened(cursor string, last uint64) *sluicev1.SubscribeResponse {
	return &sluicev1.SubscribeResponse{Cursor: cursor, Frame: &sluicev1.SubscribeResponse_Opened{
		Opened: &sluicev1.Opened{LastSequence: last, HeartbeatInterval: durationpb.New(heartbeat)},
	}}
}

func events(cursor string, es ...*sluicev1.Event) *sluicev1.SubscribeResponse {
	return &sluicev1.SubscribeResponse{Cursor: cursor, Frame: &sluicev1.SubscribeResponse_Events{
		Events: &sluicev1.EventBatch{Events: es},
	}}
}

func event(sequence uint64, cursor string) *sluicev1.Event {
	return &sluicev1.Event{Sequence: sequence, Cursor: cursor}
}

func checkpoint(cursor string) *sluicev1.SubscribeResponse {
	return &sluicev1.SubscribeResponse{Cursor: cursor, Frame: &sluicev1.SubscribeResponse_Checkpoint{
		Checkpoint: &sluicev1.Checkpoint{CaughtUp: true},
	}}
}

func gap(cursor string, first, last uint64) *sluicev1.SubscribeResponse {
	return &sluicev1.SubscribeResponse{Cursor: cursor, Frame: &sluicev1.SubscribeResponse_Gap{
		Gap: &sluicev1.Gap{FirstSequence: first, LastSequence: last},
	}}
}

func goingAway(cursor string) *sluicev1.SubscribeResponse {
	return &sluicev1.SubscribeResponse{Cursor: cursor, Frame: &sluicev1.SubscribeResponse_GoingAway{
		GoingAway: &sluicev1.GoingAway{Reason: "DRAINING"},
	}}
}
