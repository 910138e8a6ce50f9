package group_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server"
	"github.com/sluicegate/sluice/server/servertest"
)

// ready says whether the gateway takes callbacks.
func (g *gate) ready() bool {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.ctx, http.MethodGet, g.HTTPURL()+"/readyz", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// fill has the disk be short of space until the function it returns is called.
func (g *gate) fill() (empty func()) {
	g.t.Helper()
	file, err := os.Create(filepath.Join(g.Config.DataDir, "ballast"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = file.Close() }) // nothing was written
	if err := syscall.Fallocate(int(file.Fd()), 0, 0, ballast); err != nil {
		g.t.Skip("the disk cannot be filled:", err)
	}
	for g.ready() {
	}
	return func() {
		g.t.Helper()
		if err := errors.Join(os.Remove(file.Name()), file.Close()); err != nil {
			g.t.Fatal(err)
		}
		for !g.ready() {
		}
	}
}

// ballast is how many bytes fill takes; the disk is short of space with half of
// that.
const ballast = 512 << 20

// TestDiskFull holds that nothing is let out that cannot be stored, whatever is
// asked first: while the disk is full no verdict is DONE and nothing is
// delivered. Afterwards all goes on as if nobody had asked.
func TestDiskFull(t *testing.T) {
	tests := map[string]func(g *gate, m *member, streamed, pulled *sluicev1.Delivery){
		"settle": func(g *gate, _ *member, _, pulled *sluicev1.Delivery) {
			res, err := g.work.Settle(g.ctx, &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: []*sluicev1.Settlement{ack(pulled)}})
			if wantError(g.t, err, codes.Unavailable, "LOG_FULL"); err == nil {
				g.t.Errorf("settled: %v", res)
			}
		},
		"settle on a stream": func(g *gate, m *member, streamed, _ *sluicev1.Delivery) {
			m.settle(ack(streamed))
			if got := m.settled(); got[0].GetOutcome() != sluicev1.Outcome_OUTCOME_RETRY {
				g.t.Errorf("settled: %v, want RETRY", got)
			}
			_, err := m.Recv()
			wantError(g.t, err, codes.Unavailable, "LOG_FULL")
		},
		"pull": func(g *gate, _ *member, _, _ *sluicev1.Delivery) {
			res, err := g.work.Pull(g.ctx, &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m3", MaxEvents: 5})
			if wantError(g.t, err, codes.Unavailable, "LOG_FULL"); err == nil {
				g.t.Errorf("pulled: %v", res)
			}
		},
		"credits": func(g *gate, m *member, _, _ *sluicev1.Delivery) {
			m.credits(5)
			res, err := m.Recv()
			if wantError(g.t, err, codes.Unavailable, "LOG_FULL"); err == nil {
				g.t.Errorf("delivered: %v", res)
			}
		},
	}
	for name, ask := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var disk syscall.Statfs_t
			if err := syscall.Statfs(dir, &disk); err != nil {
				t.Fatal(err)
			}
			free := server.Size(disk.Bavail * uint64(disk.Bsize))
			g := start(t, servertest.With(func(c *server.Config) { c.DataDir, c.MinFree = dir, max(0, free-ballast/2) }))
			g.create(&sluicev1.ConsumerGroup{})
			g.post("a", "b", "c", "d", "e")
			pulled := g.pullAll("m1", 2)
			g.settle(done, ack(pulled[0]))
			m := g.consume("m2", 1)
			m.opened()
			streamed := m.deliveries()[0]

			empty := g.fill()
			ask(g, m, streamed, pulled[1])
			empty()
			for { // the group rests for a while
				_, err := g.groups.GetConsumerGroupStatus(g.ctx, &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "w"})
				if status.Code(err) != codes.Unavailable {
					break
				}
			}
			g.settle(sluicev1.Outcome_OUTCOME_ALREADY_DONE, ack(pulled[0]))
			g.settle(done, ack(pulled[1]), ack(streamed))
			rest := g.pullAll("m3", 2)
			if got := sequences(rest); !slices.Equal(got, []uint64{4, 5}) || rest[0].GetAttempt() != 1 || rest[1].GetAttempt() != 1 {
				t.Errorf("pulled %v, want first attempts of 4 and 5", rest)
			}
			g.ackAll(rest)
			g.Restart()
			if st := g.status(); st.GetPending()+st.GetOutstanding() != 0 || st.GetLag().GetEvents() != 0 {
				t.Errorf("status = %v, want all settled", st)
			}
		})
	}
}
