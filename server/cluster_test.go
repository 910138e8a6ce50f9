package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
	"github.com/sluicegate/sluice/server/servertest"
)

// TestTwoGatewaysShareIdentity posts to two gateways of one cluster: the same
// message through both is one event, another body under its id is a revision,
// and both gateways tell the same story.
func TestTwoGatewaysShareIdentity(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	cluster := natstest.Start(t)
	external := servertest.With(func(cfg *server.Config) {
		cfg.NATSURL = server.URL(cluster.URL)
		cfg.CommitTimeout = 8 * time.Second
	})
	gateways := []*servertest.Server{servertest.Start(t, external), servertest.Start(t, external)}

	const (
		first     = `{"data":{"messageId":"m","botId":"b","chatId":"c","type":6,"timestamp":1,"payload":{}}}`
		reordered = `{"data":{"payload":{},"timestamp":1,"type":6,"chatId":"c","botId":"b","messageId":"m"}}`
		loaded    = `{"data":{"messageId":"m","botId":"b","chatId":"c","type":6,"timestamp":1,"payload":{"imageUrl":"https://x/1"}}}`
		otherBot  = `{"data":{"messageId":"m","botId":"b2","chatId":"c2","type":6,"timestamp":1,"payload":{}}}`
	)
	var twins sync.WaitGroup
	for _, g := range gateways {
		twins.Go(func() {
			if status, answer := g.Post("/", first); status != 200 {
				t.Errorf("a twin was answered %d %s", status, answer)
			}
		})
	}
	twins.Wait()
	gateways[1].MustPost("/", reordered)
	gateways[0].MustPost("/", loaded)
	gateways[1].MustPost("/", loaded)
	gateways[1].MustPost("/", otherBot)

	// What one gateway has stored the other knows a moment later: a stream waits
	// for it.
	var cursors [2][]string
	for i, g := range gateways {
		stream, err := sluicev1.NewEventServiceClient(g.Conn()).Subscribe(t.Context(), &sluicev1.SubscribeRequest{
			Start: &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for len(got) < 3 {
			res, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range res.GetEvents().GetEvents() {
				cursors[i] = append(cursors[i], e.GetCursor())
				got = append(got, e.GetRevisionOf())
			}
		}
		if len(got) != 3 || got[0] != 0 || got[1] != 1 || got[2] != 0 {
			t.Fatalf("gateway %d has events that revise %v, want [0 1 0]", i, got)
		}
	}
	for i := range cursors[0] {
		if cursors[0][i] != cursors[1][i] {
			t.Errorf("event %d has the cursors %q and %q", i, cursors[0][i], cursors[1][i])
		}
	}
}

// TestLargeCallbacksOfACluster holds that what the nodes of a cluster cannot
// take, by their max_payload of 1 MiB, is refused for good and not for now.
func TestLargeCallbacksOfACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	cluster := natstest.Start(t)
	srv := servertest.Start(t, servertest.With(func(cfg *server.Config) {
		cfg.NATSURL, cfg.MaxBody, cfg.CommitTimeout = server.URL(cluster.URL), 2<<20, 8*time.Second
	}))
	body := func(size int) string {
		return fmt.Sprintf(`{"data":{"messageId":"m%d","botId":"b","type":7,"payload":{"text":%q}}}`, size, strings.Repeat("x", size))
	}
	for size, want := range map[int]int{
		10:        http.StatusOK,
		600_000:   http.StatusOK, // twice that is too much: what was read out of it is given up
		900_000:   http.StatusOK,
		1_000_000: http.StatusRequestEntityTooLarge,
		1_500_000: http.StatusRequestEntityTooLarge,
	} {
		if status, answer := srv.Post("/", body(size)); status != want {
			t.Errorf("a text of %d bytes was answered %d %s, want %d", size, status, answer, want)
		}
	}
	if status, answer := srv.Post("/", "not JSON"+body(900_000)); status != http.StatusOK {
		t.Errorf("what is not JSON was answered %d %s", status, answer)
	}
}
