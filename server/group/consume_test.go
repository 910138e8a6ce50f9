package group_test

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A member is a stream.
type member struct {
	grpc.BidiStreamingClient[sluicev1.ConsumeRequest, sluicev1.ConsumeResponse]

	g *gate
}

// consume opens a stream that is ready for so many events.
func (g *gate) consume(name string, credits uint32) *member {
	g.t.Helper()
	return g.consumeWith(&sluicev1.ConsumeOpen{ConsumerGroupId: "w", Member: name, Credits: &sluicev1.Credits{Events: credits}})
}

func (g *gate) consumeWith(open *sluicev1.ConsumeOpen) *member {
	g.t.Helper()
	stream, err := g.work.Consume(g.ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	m := &member{BidiStreamingClient: stream, g: g}
	m.say(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Open{Open: open}})
	return m
}

func (m *member) say(req *sluicev1.ConsumeRequest) {
	m.g.t.Helper()
	if err := m.Send(req); err != nil {
		m.g.t.Fatalf("Send(%v) = %v", req, err)
	}
}

func (m *member) credits(n uint32) {
	m.g.t.Helper()
	m.say(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Credits{Credits: &sluicev1.Credits{Events: n}}})
}

func (m *member) settle(items ...*sluicev1.Settlement) {
	m.g.t.Helper()
	m.say(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Settle{Settle: &sluicev1.SettlementBatch{Items: items}}})
}

// next returns the next frame that is no heartbeat.
func (m *member) next() *sluicev1.ConsumeResponse {
	m.g.t.Helper()
	for {
		res, err := m.Recv()
		if err != nil {
			m.g.t.Fatalf("Recv() = %v", err)
		}
		if res.GetHeartbeat() == nil {
			return res
		}
	}
}

func (m *member) opened() *sluicev1.ConsumeOpened {
	m.g.t.Helper()
	res := m.next()
	if res.GetOpened() == nil {
		m.g.t.Fatalf("the first frame is %v, want opened", res)
	}
	return res.GetOpened()
}

func (m *member) deliveries() []*sluicev1.Delivery {
	m.g.t.Helper()
	res := m.next()
	if res.GetDeliveries() == nil {
		m.g.t.Fatalf("the next frame is %v, want deliveries", res)
	}
	return res.GetDeliveries().GetDeliveries()
}

func (m *member) settled() []*sluicev1.SettlementResult {
	m.g.t.Helper()
	res := m.next()
	if res.GetSettled() == nil {
		m.g.t.Fatalf("the next frame is %v, want settled", res)
	}
	return res.GetSettled().GetItems()
}

// TestConsume holds that credits bound what members hold, and that a stream
// leaves when it has said all.
func TestConsume(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	m1, m2 := g.consume("m1", 1), g.consume("m2", 0)
	m1.opened()
	m2.opened()
	g.post("a", "b", "c")
	first := m1.deliveries()
	if len(first) != 1 {
		t.Fatalf("m1 got %v, want one delivery for one credit", first)
	}
	m2.credits(2)
	var rest []*sluicev1.Delivery
	for len(rest) < 2 {
		rest = append(rest, m2.deliveries()...)
	}
	all := append(sequences(first), sequences(rest)...)
	slices.Sort(all)
	if !slices.Equal(all, []uint64{1, 2, 3}) {
		t.Errorf("the members got %v, want each event once", all)
	}
	for _, member := range g.status().GetMembers() {
		want := map[string]uint32{"m1": 1, "m2": 2}[member.GetName()]
		if member.GetOutstanding() != want || !member.GetConnected() || member.GetCredits().GetEvents() != want {
			t.Errorf("status says %v, want %d", member, want)
		}
	}
	m2.settle(ack(rest[0]), nack(rest[1]), ack(rest[0]))
	if err := m2.CloseSend(); err != nil {
		t.Fatal(err)
	}
	want := []sluicev1.Outcome{done, done, sluicev1.Outcome_OUTCOME_ALREADY_DONE}
	for i, item := range m2.settled() {
		if item.GetOutcome() != want[i] {
			t.Errorf("outcome %d is %v, want %v", i, item, want[i])
		}
	}
	if _, err := m2.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream of who has said all ends with %v, want OK", err)
	}
	m1.credits(0)
	m1.settle(ack(first[0]))
	if got := m1.settled(); got[0].GetOutcome() != done {
		t.Errorf("outcome %v, want DONE", got[0])
	}
}

// TestReconnect holds that a member that comes back has its leases, and that
// who holds its name is replaced.
func TestReconnect(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	g.post("a")
	m := g.consume("m1", 1)
	m.opened()
	d := m.deliveries()
	again := g.consume("m1", 1)
	if held := again.opened().GetHeld(); len(held) != 1 || held[0].GetLease() != d[0].GetLease() {
		t.Errorf("held = %v, want the lease from before", held)
	}
	_, err := m.Recv()
	wantError(t, err, codes.Aborted, "MEMBER_REPLACED")
	g.Restart()
	again = g.consume("m1", 1)
	if held := again.opened().GetHeld(); len(held) != 1 || held[0].GetLease() != d[0].GetLease() {
		t.Errorf("held after a restart = %v, want the lease from before", held)
	}
	again.settle(ack(d[0]))
	if got := again.settled(); got[0].GetOutcome() != done {
		t.Errorf("outcome %v, want DONE", got[0])
	}
}

// TestLeaseRunsOut holds that a lease that ran out is told, and lost.
func TestLeaseRunsOut(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{
		Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(100 * time.Millisecond)},
		Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{durationpb.New(time.Hour)}},
	})
	g.post("a")
	m := g.consume("m1", 1)
	m.opened()
	d := m.deliveries()
	if revoked := m.next().GetRevoked().GetLeases(); !slices.Equal(revoked, []string{d[0].GetLease()}) {
		t.Fatalf("revoked = %v, want the lease", revoked)
	}
	m.settle(ack(d[0]))
	if got := m.settled(); got[0].GetOutcome() != sluicev1.Outcome_OUTCOME_LEASE_LOST {
		t.Errorf("outcome %v, want LEASE_LOST", got[0])
	}
	if st := g.status(); len(st.GetBlockedChats()) != 1 || st.GetBlockedChats()[0].GetChatKey() == "" ||
		st.GetBlockedChats()[0].GetLastFailure().GetCause() != sluicev1.FailureCause_FAILURE_CAUSE_EXPIRED {
		t.Errorf("status = %v, want the chat and why it waits", st)
	}
}

// TestSilentMember holds that a member that says nothing is gone, and one that
// does not read is not.
func TestSilentMember(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	m := g.consumeWith(&sluicev1.ConsumeOpen{ConsumerGroupId: "w", Member: "m1", HeartbeatInterval: durationpb.New(100 * time.Millisecond)})
	m.opened()
	beats := 0
	for {
		res, err := m.Recv()
		if err != nil {
			wantError(t, err, codes.Aborted, "MEMBER_SILENT")
			break
		}
		if res.GetHeartbeat() != nil {
			beats++
		}
	}
	if beats == 0 {
		t.Error("the server sent no heartbeat")
	}
}

// TestBadFrames holds that a stream that says nonsense ends with a reason.
func TestBadFrames(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	open := func(open *sluicev1.ConsumeOpen) *sluicev1.ConsumeRequest {
		return &sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Open{Open: open}}
	}
	tests := map[string]struct {
		frame  *sluicev1.ConsumeRequest
		code   codes.Code
		reason string
	}{
		"no open":       {&sluicev1.ConsumeRequest{}, codes.InvalidArgument, "INVALID_REQUEST"},
		"no group":      {open(&sluicev1.ConsumeOpen{ConsumerGroupId: "x", Member: "m"}), codes.NotFound, "GROUP_NOT_FOUND"},
		"no member":     {open(&sluicev1.ConsumeOpen{ConsumerGroupId: "w"}), codes.InvalidArgument, "INVALID_REQUEST"},
		"huge credits":  {open(&sluicev1.ConsumeOpen{ConsumerGroupId: "w", Member: "m", Credits: &sluicev1.Credits{Events: 1 << 20}}), codes.InvalidArgument, "INVALID_REQUEST"},
		"a short beat":  {open(&sluicev1.ConsumeOpen{ConsumerGroupId: "w", Member: "m", HeartbeatInterval: durationpb.New(-1)}), codes.InvalidArgument, "INVALID_REQUEST"},
		"a name of NUL": {open(&sluicev1.ConsumeOpen{ConsumerGroupId: "w", Member: "\x00"}), codes.InvalidArgument, "INVALID_REQUEST"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			stream, err := g.work.Consume(g.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(tt.frame); err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			wantError(t, err, tt.code, tt.reason)
		})
	}
	m := g.consume("m", 1)
	m.opened()
	m.settle(ack(&sluicev1.Delivery{Lease: "x"}))
	_, err := m.Recv()
	wantError(t, err, codes.InvalidArgument, "INVALID_LEASE")
}

// TestDrain holds that members are told, that a pull ends, and that the stop is
// clean although a member holds something.
func TestDrain(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	g.post("a")
	m := g.consume("m1", 1)
	m.opened()
	m.deliveries()
	pulled := make(chan error, 1)
	go func() {
		_, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m2", Wait: durationpb.New(time.Minute)})
		pulled <- err
	}()
	for g.status().GetMembersTotal() < 2 { // until the pull waits
	}
	g.Stop()
	if res := m.next(); res.GetGoingAway().GetReason() != "DRAINING" {
		t.Errorf("the last frame is %v, want going_away", res)
	}
	if _, err := m.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ends with %v, want OK", err)
	}
	if err := <-pulled; err != nil {
		t.Errorf("the pull that waited = %v, want an empty response", err)
	}
}
