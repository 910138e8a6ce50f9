package verify_test

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/verify"
)

// event is a message as large as most, about 1.5 KB.
func event(i int) *sluicev1.Event {
	return &sluicev1.Event{
		Source: "acme", Key: fmt.Sprint("acme/b-1/m-", i), ChatKey: fmt.Sprint("acme/c-", i%100), ReceiveTime: timestamppb.Now(),
		Raw: bytes.Repeat([]byte(`{"k":"v"},`), 80),
		Body: &sluicev1.Event_Message{Message: &sluicev1.Message{
			MessageId: fmt.Sprint("m-", i), ChatId: fmt.Sprint("c-", i%100), Type: sluicev1.MessageType_MESSAGE_TYPE_TEXT,
			Bot: &sluicev1.Bot{Id: "b-1"}, Sender: &sluicev1.Contact{Wxid: "w-1", Name: "客户甲"},
			Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: string(bytes.Repeat([]byte("你好 hello "), 40))}},
		}},
	}
}

// BenchmarkRun verifies a directory of a hundred thousand events.
func BenchmarkRun(b *testing.B) {
	dir := b.TempDir()
	e := open(b, local.Open, local.Config{Dir: dir})
	l, err := e.Log(b.Context(), eventlog.LogConfig{Name: verify.Events})
	if err != nil {
		b.Fatal(err)
	}
	const events, writers = 100_000, 256
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			for i := w; i < events; i += writers {
				data, err := record.Encode(event(i))
				if err == nil {
					_, err = l.Append(b.Context(), eventlog.Record{Subject: "s", Data: data})
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	size := events * proto.Size(event(0))
	closeEngine(b, e)
	e = open(b, local.Open, local.Config{Dir: dir}) // the write-ahead log becomes tables
	closeEngine(b, e)
	e = open(b, local.OpenReadOnly, local.Config{Dir: dir})
	defer closeEngine(b, e)
	b.SetBytes(int64(size))
	for b.Loop() {
		report, err := verify.Run(b.Context(), verify.Config{Engine: e, Stopped: true})
		if err != nil || !report.GetOk() || report.GetLogs()[0].GetRecords() != events {
			b.Fatalf("Run() = %v, %v", report, err)
		}
	}
}

// BenchmarkContent is what is looked at of an event, without reading it.
func BenchmarkContent(b *testing.B) {
	data, err := record.Encode(event(1))
	if err != nil {
		b.Fatal(err)
	}
	for name, look := range map[string]func() error{
		"identity":  func() error { _, err := record.ParseIdentity(data); return err },
		"unmarshal": func() error { return proto.Unmarshal(data, &sluicev1.Event{}) },
	} {
		b.Run("by="+name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := look(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
