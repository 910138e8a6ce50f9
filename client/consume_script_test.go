package client_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

const memberHeartbeat = 5 * time.Second

// A peer is the server's end of one stream of a member. A frame of the member
// is taken with next, in order.
type peer struct {
	t      *testing.T
	stream grpc.BidiStreamingServer[sluicev1.ConsumeRequest, sluicev1.ConsumeResponse]
	open   *sluicev1.ConsumeOpen
	early  []*sluicev1.Settlement // came with those that were asked for
}

// A groupScript is a server that answers the n-th stream with its n-th step, and
// any further one with its last. It stands for what the real server cannot be
// made to do at will.
type groupScript struct {
	sluicev1.UnimplementedConsumerServiceServer
	sluicev1.UnimplementedConsumerGroupServiceServer
	t     *testing.T
	group *sluicev1.ConsumerGroup
	steps []func(*peer) error

	mu      sync.Mutex
	streams int
	settled []*sluicev1.Settlement // by calls
}

func (s *groupScript) GetConsumerGroup(context.Context, *sluicev1.GetConsumerGroupRequest) (*sluicev1.GetConsumerGroupResponse, error) {
	return &sluicev1.GetConsumerGroupResponse{ConsumerGroup: s.group}, nil
}

func (s *groupScript) Consume(st grpc.BidiStreamingServer[sluicev1.ConsumeRequest, sluicev1.ConsumeResponse]) error {
	s.mu.Lock()
	s.streams++
	step := s.steps[min(s.streams, len(s.steps))-1]
	s.mu.Unlock()
	req, err := st.Recv()
	if err != nil {
		return err
	}
	if req.GetOpen() == nil {
		s.t.Errorf("first frame = %v, want open", req)
	}
	return step(&peer{t: s.t, stream: st, open: req.GetOpen()})
}

func (s *groupScript) Settle(_ context.Context, req *sluicev1.SettleRequest) (*sluicev1.SettleResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = append(s.settled, req.GetItems()...)
	res := &sluicev1.SettleResponse{}
	for _, item := range req.GetItems() {
		res.Items = append(res.Items, result(item.GetLease(), sluicev1.Outcome_OUTCOME_DONE))
	}
	return res, nil
}

// playGroup returns a client of a server that plays steps for a group with
// leases of 30 s, and the script.
func playGroup(t *testing.T, steps ...func(*peer) error) (*client.Client, *groupScript) {
	t.Helper()
	s := &groupScript{t: t, steps: steps, group: &sluicev1.ConsumerGroup{
		Name: "g", Order: sluicev1.Order_ORDER_CHAT, Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(30 * time.Second)},
	}}
	return serveScript(t, func(srv *grpc.Server) {
		sluicev1.RegisterConsumerServiceServer(srv, s)
		sluicev1.RegisterConsumerGroupServiceServer(srv, s)
	}), s
}

// opened accepts the member, who still holds leases.
func (p *peer) opened(held ...string) {
	o := &sluicev1.ConsumeOpened{HeartbeatInterval: durationpb.New(memberHeartbeat)}
	for _, lease := range held {
		o.Held = append(o.Held, &sluicev1.HeldLease{Lease: lease, LeaseUntil: timestamppb.Now()})
	}
	p.send(&sluicev1.ConsumeResponse{Frame: &sluicev1.ConsumeResponse_Opened{Opened: o}})
}

// send sends a frame. The stream may have ended, which what follows shows.
func (p *peer) send(res *sluicev1.ConsumeResponse) { _ = p.stream.Send(res) }

func (p *peer) deliver(ds ...*sluicev1.Delivery) {
	p.send(&sluicev1.ConsumeResponse{Frame: &sluicev1.ConsumeResponse_Deliveries{Deliveries: &sluicev1.DeliveryBatch{Deliveries: ds}}})
}

func (p *peer) revoke(leases ...string) {
	p.send(&sluicev1.ConsumeResponse{Frame: &sluicev1.ConsumeResponse_Revoked{Revoked: &sluicev1.RevocationBatch{Leases: leases}}})
}

// settled answers verdicts.
func (p *peer) settled(items ...*sluicev1.SettlementResult) {
	p.send(&sluicev1.ConsumeResponse{Frame: &sluicev1.ConsumeResponse_Settled{Settled: &sluicev1.SettlementResultBatch{Items: items}}})
}

func (p *peer) beat() {
	p.send(&sluicev1.ConsumeResponse{Frame: &sluicev1.ConsumeResponse_Heartbeat{Heartbeat: &sluicev1.ConsumeHeartbeat{}}})
}

// next returns the member's next frame; nil when it has closed its side.
func (p *peer) next() *sluicev1.ConsumeRequest {
	req, err := p.stream.Recv()
	if err != nil {
		return nil
	}
	return req
}

// credits returns the next credits, passing over anything else.
func (p *peer) credits() *sluicev1.Credits {
	for req := p.next(); req != nil; req = p.next() {
		if c := req.GetCredits(); c != nil {
			return c
		}
	}
	p.t.Error("the member went without credits")
	return nil
}

// verdicts returns the next n settlements, passing over anything else, while it
// gives signs of life.
func (p *peer) verdicts(n int) []*sluicev1.Settlement {
	for len(p.early) < n {
		req := p.next()
		if req == nil {
			p.t.Errorf("the member went after %d verdicts, want %d", len(p.early), n)
			return make([]*sluicev1.Settlement, n)
		}
		p.early = append(p.early, req.GetSettle().GetItems()...)
		if req.GetHeartbeat() != nil {
			p.beat()
		}
	}
	items := p.early[:n:n]
	p.early = p.early[n:]
	return items
}

// serve answers verdicts with DONE, and gives signs of life, until the member
// goes.
func (p *peer) serve() error {
	for req := p.next(); req != nil; req = p.next() {
		for _, item := range req.GetSettle().GetItems() {
			p.settled(done(item))
		}
		if req.GetHeartbeat() != nil {
			p.beat()
		}
	}
	return nil
}

// done is that a settlement took effect.
func done(item *sluicev1.Settlement) *sluicev1.SettlementResult {
	r := result(item.GetLease(), sluicev1.Outcome_OUTCOME_DONE)
	if item.GetExtend() != nil {
		r.LeaseUntil = timestamppb.Now()
	}
	return r
}

func result(lease string, outcome sluicev1.Outcome) *sluicev1.SettlementResult {
	return &sluicev1.SettlementResult{Lease: lease, Outcome: outcome}
}

// delivery is one of events of a chat, under a lease.
func delivery(lease, chat string, sequences ...uint64) *sluicev1.Delivery {
	d := &sluicev1.Delivery{Lease: lease, Attempt: 1}
	for _, n := range sequences {
		d.Events = append(d.Events, &sluicev1.Event{Sequence: n, ChatKey: chat})
	}
	return d
}
