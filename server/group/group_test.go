package group_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should happen at once; a test that waits so long has
// failed.
const patience = 20 * time.Second

// A gate is a gateway with its clients.
type gate struct {
	*servertest.Server

	t      *testing.T
	ctx    context.Context
	groups sluicev1.ConsumerGroupServiceClient
	work   sluicev1.ConsumerServiceClient
	posted int
}

func start(t *testing.T, options ...servertest.Option) *gate {
	t.Helper()
	srv := servertest.Start(t, options...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	return &gate{
		Server: srv, t: t, ctx: ctx,
		groups: sluicev1.NewConsumerGroupServiceClient(srv.Conn()),
		work:   sluicev1.NewConsumerServiceClient(srv.Conn()),
	}
}

// post posts one message for each chat; the n-th of all has the id "n", and was
// sent n seconds after the first, or before with a minus in front of its chat.
func (g *gate) post(chats ...string) {
	g.t.Helper()
	for _, chat := range chats {
		g.posted++
		sent := 1700000000000 + 1000*g.posted
		chat, early := strings.CutPrefix(chat, "-")
		if early {
			sent = 1700000000000 - 1000*g.posted
		}
		g.MustPost("/message", fmt.Sprintf(
			`{"data":{"messageId":"%d","chatId":%q,"type":7,"payload":{"text":"hello"},"timestamp":"%d"}}`, g.posted, chat, sent))
	}
}

// earliest is the start of a group that reads all.
func earliest() *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}}
}

func at(sequence uint64) *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: sequence}}
}

// create creates the group "w".
func (g *gate) create(group *sluicev1.ConsumerGroup) {
	g.t.Helper()
	_, err := g.groups.CreateConsumerGroup(g.ctx, &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: "w", ConsumerGroup: group})
	if err != nil {
		g.t.Fatalf("CreateConsumerGroup() = %v", err)
	}
}

// update changes the group "w".
func (g *gate) update(group *sluicev1.ConsumerGroup, paths ...string) {
	g.t.Helper()
	req := &sluicev1.UpdateConsumerGroupRequest{ConsumerGroupId: "w", ConsumerGroup: group}
	if len(paths) > 0 {
		req.UpdateMask = mask(paths...)
	}
	if _, err := g.groups.UpdateConsumerGroup(g.ctx, req); err != nil {
		g.t.Fatalf("UpdateConsumerGroup(%v) = %v", paths, err)
	}
}

// pull pulls up to n events within wait.
func (g *gate) pull(member string, n uint32, wait time.Duration) []*sluicev1.Delivery {
	g.t.Helper()
	res, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{
		ConsumerGroupId: "w", Member: member, MaxEvents: n, Wait: durationpb.New(wait),
	})
	if err != nil {
		g.t.Fatalf("Pull() = %v", err)
	}
	return res.GetDeliveries()
}

// pullAll pulls until n events have come.
func (g *gate) pullAll(member string, n int) []*sluicev1.Delivery {
	g.t.Helper()
	var all []*sluicev1.Delivery
	for left := n; left > 0; left = n - len(sequences(all)) {
		got := g.pull(member, uint32(left), patience)
		if len(got) == 0 {
			g.t.Fatalf("%d events did not come", left)
		}
		all = append(all, got...)
	}
	return all
}

func sequences(all []*sluicev1.Delivery) []uint64 {
	var out []uint64
	for _, d := range all {
		for _, e := range d.GetEvents() {
			out = append(out, e.GetSequence())
		}
	}
	return out
}

func ack(d *sluicev1.Delivery) *sluicev1.Settlement {
	return &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Ack{Ack: &sluicev1.Ack{}}}
}

func nack(d *sluicev1.Delivery) *sluicev1.Settlement {
	return &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Nack{Nack: &sluicev1.Nack{Reason: "no"}}}
}

func park(d *sluicev1.Delivery) *sluicev1.Settlement {
	return &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Park{Park: &sluicev1.Park{Reason: "never"}}}
}

// settle settles, and wants all outcomes to be that one.
func (g *gate) settle(want sluicev1.Outcome, items ...*sluicev1.Settlement) {
	g.t.Helper()
	res, err := g.work.Settle(g.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: items})
	if err != nil {
		g.t.Fatalf("Settle() = %v", err)
	}
	for i, item := range res.GetItems() {
		if item.GetOutcome() != want || item.GetLease() != items[i].GetLease() {
			g.t.Fatalf("Settle(%v) = %v, want %v", items[i], item, want)
		}
	}
}

const done = sluicev1.Outcome_OUTCOME_DONE

// ackAll acknowledges deliveries.
func (g *gate) ackAll(all []*sluicev1.Delivery) {
	g.t.Helper()
	for _, d := range all {
		g.settle(done, ack(d))
	}
}

// status returns how "w" stands.
func (g *gate) status() *sluicev1.ConsumerGroupStatus {
	g.t.Helper()
	res, err := g.groups.GetConsumerGroupStatus(g.ctx, &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "w"})
	if err != nil {
		g.t.Fatalf("GetConsumerGroupStatus() = %v", err)
	}
	return res.GetStatus()
}

// http sends a request to the HTTP API, and returns its answer in res.
func (g *gate) http(method, path, body string, res proto.Message) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.ctx, method, g.HTTPURL()+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Close = true
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		g.t.Fatalf("%s %s = %d %s, %v", method, path, answer.StatusCode, text, err)
	}
	if err := protojson.Unmarshal(text, res); err != nil {
		g.t.Fatalf("%s %s = %s: %v", method, path, text, err)
	}
}

// wantError wants an error with that code and reason.
func wantError(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	got := ""
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			got = info.GetReason()
		}
	}
	if status.Code(err) != code || got != reason {
		t.Errorf("got %v with the reason %q, want %v with %s", err, got, code, reason)
	}
}

// TestOverHTTP is the example of the contract, as it would be typed.
func TestOverHTTP(t *testing.T) {
	g := start(t)
	g.post("a", "b")
	var created sluicev1.CreateConsumerGroupResponse
	g.http("POST", "/v1/consumerGroups", `{"consumerGroupId":"w","consumerGroup":{"start":{"anchor":"ANCHOR_EARLIEST"},"retry":{"backoff":["0.3s"],"maxAttempts":3}}}`, &created)
	if d := created.GetConsumerGroup().GetLease().GetDuration().AsDuration(); d != 30*time.Second {
		t.Errorf("the lease is %v, want the default filled in", d)
	}
	pull := func(n int) []*sluicev1.Delivery {
		t.Helper()
		var all []*sluicev1.Delivery
		for len(all) < n {
			var res sluicev1.PullResponse
			g.http("POST", "/v1/consumerGroups/w:pull", `{"member":"m1","maxEvents":10,"wait":"10s"}`, &res)
			if len(res.GetDeliveries()) == 0 {
				t.Fatalf("nothing came within 10s")
			}
			all = append(all, res.GetDeliveries()...)
		}
		return all
	}
	first := pull(2)
	if got := sequences(first); !slices.Equal(got, []uint64{1, 2}) {
		t.Fatalf("pulled %v, want 1 and 2", got)
	}
	var settled sluicev1.SettleResponse
	g.http("POST", "/v1/consumerGroups/w:settle", fmt.Sprintf(
		`{"items":[{"lease":%q,"ack":{}},{"lease":%q,"nack":{"reason":"busy"}}]}`, first[0].GetLease(), first[1].GetLease()), &settled)
	nacked := time.Now()
	for _, item := range settled.GetItems() {
		if item.GetOutcome() != done {
			t.Errorf("outcome of %v, want DONE", item)
		}
	}
	for attempt := uint32(2); attempt <= 3; attempt++ {
		again := pull(1)
		if took := time.Since(nacked); took < 250*time.Millisecond {
			t.Errorf("attempt %d came after %v, want 300ms", attempt, took)
		}
		d := again[0]
		if len(again) != 1 || sequences(again)[0] != 2 || d.GetAttempt() != attempt || d.GetLastFailure().GetReason() != "busy" {
			t.Fatalf("pulled %v, want attempt %d of event 2", again, attempt)
		}
		g.http("POST", "/v1/consumerGroups/w:settle", fmt.Sprintf(`{"items":[{"lease":%q,"nack":{"reason":"busy"}}]}`, d.GetLease()), &settled)
		nacked = time.Now()
	}
	var st sluicev1.GetConsumerGroupStatusResponse
	g.http("GET", "/v1/consumerGroups/w/status", "", &st)
	if s := st.GetStatus(); s.GetDeadLetters() != 1 || s.GetPending() != 0 || s.GetOutstanding() != 0 || s.GetLag().GetEvents() != 0 {
		t.Errorf("status = %v, want one dead letter and nothing else", s)
	}
	var letters sluicev1.ListDeadLettersResponse
	g.http("GET", "/v1/consumerGroups/w/deadLetters", "", &letters)
	if len(letters.GetDeadLetters()) != 1 || letters.GetDeadLetters()[0].GetEvent().GetSequence() != 2 || letters.GetDeadLetters()[0].GetAttempts() != 3 {
		t.Errorf("dead letters = %v, want event 2 after 3 attempts", &letters)
	}
	var redriven sluicev1.RedriveDeadLettersResponse
	g.http("POST", "/v1/consumerGroups/w/deadLetters:redrive", `{"selection":{"all":true}}`, &redriven)
	if redriven.GetEvents() != 1 || redriven.GetChats() != 1 {
		t.Errorf("redriven = %v, want 1 of 1", &redriven)
	}
	d := pull(1)[0]
	if d.GetAttempt() != 1 || d.GetOrigin() != sluicev1.Origin_ORIGIN_REDRIVE {
		t.Errorf("pulled %v, want the first attempt of a redrive", d)
	}
	if body := metrics(g); !strings.Contains(body, `sluice_group_dead_letters{group="w"} 0`) ||
		!strings.Contains(body, `sluice_group_deliveries_total{group="w",outcome="nack"} 3`) {
		t.Errorf("metrics lack the group's:\n%s", body)
	}
}

// metrics returns what a scrape gets of groups.
func metrics(g *gate) string {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.ctx, http.MethodGet, g.HTTPURL()+"/metrics", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	var out bytes.Buffer
	if _, err := io.Copy(&out, res.Body); err != nil {
		g.t.Fatal(err)
	}
	return out.String()
}

// TestOrderOfAChat holds that two members share the chats, and never one.
func TestOrderOfAChat(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{})
	g.post("a", "a", "b", "a", "b")
	holder := map[string]string{} // chat to the member that has it
	last := map[string]uint64{}
	for n := 0; n < 5; n++ {
		member := []string{"m1", "m2"}[n%2]
		d := g.pull(member, 1, patience)
		if len(d) != 1 {
			t.Fatalf("pull %d = %v, want one", n, d)
		}
		e := d[0].GetEvents()[0]
		if e.GetSequence() <= last[e.GetChatKey()] {
			t.Errorf("event %d comes after %d", e.GetSequence(), last[e.GetChatKey()])
		}
		last[e.GetChatKey()] = e.GetSequence()
		if other := holder[e.GetChatKey()]; other != "" {
			t.Errorf("%s gets event %d while %s has its chat", member, e.GetSequence(), other)
		}
		holder[e.GetChatKey()] = member
		g.settle(done, ack(d[0]))
		delete(holder, e.GetChatKey())
	}
	g.post("a", "a")
	if got := sequences(g.pullAll("m1", 1)); !slices.Equal(got, []uint64{6}) {
		t.Fatalf("pulled %v, want 6", got)
	}
	if got := g.pull("m2", 10, 0); len(got) != 0 {
		t.Errorf("pulled %v while the chat's first event is out, want nothing", got)
	}
}

// TestTurn holds that a turn is the chat's events in order of send time.
func TestTurn(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{Turn: &sluicev1.TurnPolicy{Quiet: durationpb.New(300 * time.Millisecond)}})
	g.post("a", "-a", "b", "a")
	got := g.pullAll("m1", 4)
	if len(got) != 2 {
		t.Fatalf("pulled %d deliveries, want 2: %v", len(got), got)
	}
	for _, d := range got {
		want := []uint64{2, 1, 4}
		if d.GetEvents()[0].GetSequence() == 3 {
			want = []uint64{3}
		}
		if s := sequences([]*sluicev1.Delivery{d}); !slices.Equal(s, want) {
			t.Errorf("a turn is %v, want %v", s, want)
		}
	}
}

// TestRestart holds that what was acknowledged does not come again, and that
// nothing else is forgotten.
func TestRestart(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{
		Retry: &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{durationpb.New(0)}},
		Lease: &sluicev1.LeasePolicy{Duration: durationpb.New(2 * time.Second)},
	})
	g.post("a", "b", "c", "d", "a")
	got := g.pullAll("m1", 4)
	g.settle(done, ack(got[0]))
	g.settle(done, nack(got[1]))
	g.settle(done, park(got[2]))

	g.Restart()

	g.settle(sluicev1.Outcome_OUTCOME_ALREADY_DONE, ack(got[0]))
	g.settle(sluicev1.Outcome_OUTCOME_ALREADY_DONE, nack(got[1]))
	g.settle(sluicev1.Outcome_OUTCOME_LEASE_LOST, ack(got[2]))
	all := g.pullAll("m2", 2)
	g.ackAll(all)
	all = append(all, g.pullAll("m2", 1)...) // the one that nobody settled comes when its lease has run out
	attempts := map[uint64]uint32{}
	for _, d := range all {
		attempts[d.GetEvents()[0].GetSequence()] = d.GetAttempt()
	}
	if len(attempts) != 3 || attempts[2] != 2 || attempts[4] != 2 || attempts[5] != 1 {
		t.Errorf("attempts by event after the restart: %v, want 2 of 2 and 4, 1 of 5", attempts)
	}
	g.settle(sluicev1.Outcome_OUTCOME_LEASE_LOST, ack(got[3])) // late
	if st := g.status(); st.GetDeadLetters() != 1 || st.GetOutstanding() != 1 {
		t.Errorf("status = %v, want one dead letter and one out", st)
	}
	g.ackAll(all[2:])
	g.Restart()
	if st := g.status(); st.GetPending()+st.GetOutstanding() != 0 || st.GetLag().GetEvents() != 0 {
		t.Errorf("status after all is settled = %v", st)
	}
}

// TestSnapshots holds that a group whose journal was trimmed many times is the
// same after a restart.
func TestSnapshots(t *testing.T) {
	g := start(t)
	g.create(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{ChatIds: []string{"a", "b"}}})
	g.post("a", "b", "c")
	got := g.pullAll("m1", 2)
	g.settle(done, ack(got[0]))
	for range 3 {
		g.update(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{ChatIds: []string{"a"}}}, "filter")
		g.update(&sluicev1.ConsumerGroup{}, "filter")
		g.Restart()
	}
	g.settle(done, ack(got[1]))
	g.post("c")
	g.ackAll(g.pullAll("m1", 1))
	g.update(&sluicev1.ConsumerGroup{Filter: &sluicev1.EventFilter{ChatIds: []string{"a"}}}, "filter")
	g.Restart()
	g.update(&sluicev1.ConsumerGroup{}, "filter")
	g.post("c")
	last := g.pullAll("m1", 1)
	if got := sequences(last); !slices.Equal(got, []uint64{5}) {
		t.Errorf("pulled %v, want 5: what was passed over stays so", got)
	}
	g.Restart() // which reads event 5 with the filter that it was read with
	g.ackAll(last)
}
