package subscription

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// fill appends n messages like a vendor's: about 1 KiB with raw, of 4 sources.
func fill(b *testing.B, g *gate, n int) {
	b.Helper()
	const writers = 64
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := w; i < n; i += writers {
				e := typical(i)
				data, err := record.Encode(e)
				if err == nil {
					_, err = g.log.Append(g.ctx, eventlog.Record{Subject: record.Subject(e), Key: e.GetChatKey(), Data: data})
				}
				if err != nil {
					b.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	writing.Wait()
}

func typical(i int) *sluicev1.Event {
	e := text(fmt.Sprintf("第%d号订单的发票什么时候能开？", i))
	e.Source = fmt.Sprint("source-", i%4)
	e.Key = fmt.Sprint("source/bot-1/", i)
	e.ChatKey = "source/c1"
	e.Raw = []byte(strings.Repeat("x", 500))
	m := e.GetMessage()
	m.MessageId, m.OrgId, m.SendTime = fmt.Sprint("message-", i), "5f8f0e8d9c0b5e0001c0ffee", timestamppb.New(time.Unix(1_700_000_000, 0))
	m.Sender = &sluicev1.Contact{Wxid: "7881300846030208", Name: "王小明"}
	m.Avatar = "https://wework.qpic.cn/wwpic/695643_abcdefghijklmnopq_1700000000/0"
	return e
}

// BenchmarkSubscribe measures a stream from the log to a gRPC client in the same
// process. An operation is one event read.
func BenchmarkSubscribe(b *testing.B) {
	const held = 50_000
	g := newGate(b, eventlog.LogConfig{})
	fill(b, g, held)
	for _, bb := range []struct {
		name   string
		filter *sluicev1.EventFilter
	}{
		{"filter=none", nil},
		{"filter=source", &sluicev1.EventFilter{Sources: []string{"source-1"}}},
		{"filter=cel", &sluicev1.EventFilter{Expression: `event.message.text.text.contains("发票")`}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			events := 0
			for events < b.N {
				n := min(held, b.N-events)
				s := g.subscribe(&sluicev1.SubscribeRequest{
					Start: earliest(), Stop: atSequence(uint64(n)), Filter: bb.filter,
				})
				got, err := s.rest()
				if err != nil || bb.filter == nil && len(got) != n {
					b.Fatalf("%d events of %d, %v", len(got), n, err)
				}
				events += n
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
