package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
	"github.com/sluicegate/sluice/server/servertest"
)

// leaseTTL is how long a group of these tests has no leader when the one that it
// had is cut off.
const leaseTTL = 2 * time.Second

// A peer is one gateway of a cluster with its clients.
type peer struct {
	*servertest.Server

	t      *testing.T
	link   *natstest.Link
	groups sluicev1.ConsumerGroupServiceClient
	work   sluicev1.ConsumerServiceClient
}

// peersOf starts n gateways of one cluster.
func peersOf(t *testing.T, n int) []*peer {
	t.Helper()
	cluster := natstest.Start(t)
	all := make([]*peer, n)
	for i := range all {
		link := cluster.Link(t)
		srv := servertest.Start(t, servertest.With(func(cfg *server.Config) {
			cfg.NATSURL = server.URL(link.URL)
			cfg.CommitTimeout = time.Second
			cfg.SetLeaseTTL(leaseTTL)
		}))
		all[i] = &peer{
			Server: srv, t: t, link: link,
			groups: sluicev1.NewConsumerGroupServiceClient(srv.Conn()),
			work:   sluicev1.NewConsumerServiceClient(srv.Conn()),
		}
	}
	return all
}

// leads says whether the gateway leads the group, by its metrics.
func (p *peer) leads(group string) bool {
	p.t.Helper()
	return strings.Contains(p.text("/metrics"), fmt.Sprintf("sluice_group_leading{group=%q} 1\n", group))
}

// heal ends a cut of the gateway's link, and waits until it is ready again.
func (p *peer) heal() {
	p.t.Helper()
	p.link.Heal()
	eventually(p.t, "the gateway that was cut off is ready", func() bool { return p.text("/readyz") == "ready\n" })
}

// text returns what the gateway answers over HTTP, whatever the status.
func (p *peer) text(path string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.HTTPURL()+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// split waits until one of the gateways leads the group, and returns it and
// another one.
func split(t *testing.T, group string, all []*peer) (leader, follower *peer) {
	t.Helper()
	eventually(t, "one gateway leads "+group, func() bool {
		i := slices.IndexFunc(all, func(p *peer) bool { return p.leads(group) })
		if i >= 0 {
			leader, follower = all[i], all[(i+1)%len(all)]
		}
		return i >= 0
	})
	return leader, follower
}

// eventually waits until a condition is met.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !met(); {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to that: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// patient calls again for as long as the group has no leader, as clients do,
// only sooner.
func patient[T any](t *testing.T, call func(ctx context.Context) (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		res, err := call(ctx)
		if err == nil {
			return res
		}
		if !waits(err) {
			t.Fatalf("got %v, want success, or UNAVAILABLE with RetryInfo", err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// waits says whether err asks to wait and try again.
func waits(err error) bool {
	return status.Code(err) == codes.Unavailable && slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool {
		_, ok := d.(*errdetails.RetryInfo)
		return ok
	})
}

func (p *peer) create(group string, most uint32) error {
	_, err := p.groups.CreateConsumerGroup(p.t.Context(), &sluicev1.CreateConsumerGroupRequest{
		ConsumerGroupId: group,
		ConsumerGroup: &sluicev1.ConsumerGroup{
			Start:  &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}},
			Lease:  &sluicev1.LeasePolicy{Duration: durationpb.New(time.Minute)},
			Limits: &sluicev1.GroupLimits{MaxOutstandingEvents: most},
		},
	})
	return err
}

// pause has the group hand out nothing.
func (p *peer) pause(group string) {
	p.t.Helper()
	patient(p.t, func(ctx context.Context) (*sluicev1.UpdateConsumerGroupResponse, error) {
		return p.groups.UpdateConsumerGroup(ctx, &sluicev1.UpdateConsumerGroupRequest{
			ConsumerGroupId: group, ConsumerGroup: &sluicev1.ConsumerGroup{Paused: true},
		})
	})
}

// standing returns how the group stands.
func (p *peer) standing(group string) *sluicev1.ConsumerGroupStatus {
	p.t.Helper()
	return patient(p.t, func(ctx context.Context) (*sluicev1.GetConsumerGroupStatusResponse, error) {
		return p.groups.GetConsumerGroupStatus(ctx, &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: group})
	}).GetStatus()
}

// pull pulls up to n events, and waits for the first.
func (p *peer) pull(group string, n uint32) []*sluicev1.Delivery {
	p.t.Helper()
	return patient(p.t, func(ctx context.Context) (*sluicev1.PullResponse, error) {
		return p.work.Pull(ctx, &sluicev1.PullRequest{
			ConsumerGroupId: group, Member: "m", MaxEvents: n, Wait: durationpb.New(20 * time.Second),
		})
	}).GetDeliveries()
}

// consume opens a stream of a member, with credits for so many events.
func (p *peer) consume(group, member string, events uint32) sluicev1.ConsumerService_ConsumeClient {
	p.t.Helper()
	var stream sluicev1.ConsumerService_ConsumeClient
	first := patient(p.t, func(context.Context) (*sluicev1.ConsumeResponse, error) {
		var err error
		if stream, err = p.work.Consume(p.t.Context()); err != nil {
			return nil, err
		}
		err = stream.Send(&sluicev1.ConsumeRequest{Frame: &sluicev1.ConsumeRequest_Open{Open: &sluicev1.ConsumeOpen{
			ConsumerGroupId: group, Member: member, Credits: &sluicev1.Credits{Events: events},
		}}})
		if err != nil {
			return nil, err
		}
		return stream.Recv()
	})
	if first.GetOpened() == nil {
		p.t.Fatalf("the first frame is %v, want opened", first)
	}
	return stream
}

func acks(group string, all ...*sluicev1.Delivery) *sluicev1.SettleRequest {
	req := &sluicev1.SettleRequest{ConsumerGroupId: group}
	for _, d := range all {
		req.Items = append(req.Items, &sluicev1.Settlement{Lease: d.GetLease(), Verdict: &sluicev1.Settlement_Ack{Ack: &sluicev1.Ack{}}})
	}
	return req
}

// ack acks deliveries, of which none may be settled.
func (p *peer) ack(group string, all ...*sluicev1.Delivery) {
	p.t.Helper()
	res := patient(p.t, func(ctx context.Context) (*sluicev1.SettleResponse, error) {
		return p.work.Settle(ctx, acks(group, all...))
	})
	for _, item := range res.GetItems() {
		if item.GetOutcome() != sluicev1.Outcome_OUTCOME_DONE {
			p.t.Errorf("an ack of group %s is answered %v, want DONE", group, item.GetOutcome())
		}
	}
}

// chat posts the n-th message of a chat.
func (p *peer) chat(chat string, n int) {
	p.t.Helper()
	body := fmt.Sprintf(`{"data":{"messageId":"%s-%d","chatId":%q,"type":7,"payload":{"text":"x"},"timestamp":"%d"}}`,
		chat, n, chat, 1700000000000+n)
	eventually(p.t, "a callback is accepted", func() bool {
		code, _ := p.Post("/", body)
		return code == http.StatusOK
	})
}

func messageOf(d *sluicev1.Delivery) string { return d.GetEvents()[0].GetMessage().GetMessageId() }
