package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// call posts to the HTTP API. It returns an error when the gateway is gone.
func (p *process) call(path, body string, res proto.Message) error {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.api+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Close = true
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s = %s", path, text)
	}
	return protojson.Unmarshal(text, res)
}

// pull pulls up to 5 events for member.
func (p *process) pull(member string) ([]*sluicev1.Delivery, error) {
	var res sluicev1.PullResponse
	err := p.call("/v1/consumerGroups/w:pull", fmt.Sprintf(`{"member":%q,"maxEvents":5,"wait":"5s"}`, member), &res)
	return res.GetDeliveries(), err
}

// ack acknowledges deliveries, and returns whether that was answered.
func (p *process) ack(all []*sluicev1.Delivery) (bool, error) {
	items := make([]string, len(all))
	for i, d := range all {
		items[i] = fmt.Sprintf(`{"lease":%q,"ack":{}}`, d.GetLease())
	}
	var res sluicev1.SettleResponse
	if err := p.call("/v1/consumerGroups/w:settle", `{"items":[`+strings.Join(items, ",")+`]}`, &res); err != nil {
		return false, err
	}
	for _, item := range res.GetItems() {
		if item.GetOutcome() != sluicev1.Outcome_OUTCOME_DONE {
			return false, fmt.Errorf("outcome of an ack: %v", item)
		}
	}
	return true, nil
}

// TestGroupSurvivesKill kills a gateway while members settle: what was
// acknowledged, and answered, never comes again, and all else does.
func TestGroupSurvivesKill(t *testing.T) {
	const events, members = 120, 4
	dir := t.TempDir()
	gateway := serve(t, dir)
	var created sluicev1.CreateConsumerGroupResponse
	if err := gateway.call("/v1/consumerGroups", `{"consumerGroupId":"w","consumerGroup":{"lease":{"duration":"2s"},"retry":{"backoff":["0s"],"maxAttempts":-1}}}`, &created); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		body := strings.NewReplacer(`"messageId":"string"`, fmt.Sprintf(`"messageId":"%d"`, i),
			`"chatId":"string"`, fmt.Sprintf(`"chatId":"%d"`, i%40)).Replace(sampleCallback)
		if got := gateway.post("/message", body); got != `{"errcode":0,"errmsg":"ok"}` {
			t.Fatalf("post %d = %s", i, got)
		}
	}

	var mu sync.Mutex
	acked, unknown := map[uint64]bool{}, map[uint64]bool{}
	halfway := make(chan struct{})
	var working sync.WaitGroup
	for n := range members {
		working.Go(func() {
			for {
				all, err := gateway.pull(fmt.Sprint("m", n))
				if err != nil || len(all) == 0 {
					return // killed
				}
				answered, _ := gateway.ack(all)
				mu.Lock()
				before := len(acked)
				for _, d := range all {
					sequence := d.GetEvents()[0].GetSequence()
					if answered {
						acked[sequence] = true
					} else {
						unknown[sequence] = true
					}
				}
				if before < events/3 && len(acked) >= events/3 {
					close(halfway)
				}
				mu.Unlock()
			}
		})
	}
	<-halfway
	gateway.signal(os.Kill)
	gateway.wait()
	working.Wait()
	if len(acked) == events {
		t.Fatal("everything was settled before the kill: the test shows nothing")
	}

	gateway = serve(t, dir)
	last := map[string]uint64{} // sequence by chat
	for left := events - len(acked); left > 0; {
		all, err := gateway.pull("later")
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 && left <= len(unknown) {
			break // these took effect, but nobody was told
		}
		for _, d := range all {
			e := d.GetEvents()[0]
			if acked[e.GetSequence()] {
				t.Errorf("event %d comes again, although its ack was answered", e.GetSequence())
			}
			if e.GetSequence() <= last[e.GetChatKey()] {
				t.Errorf("event %d comes after %d of its chat", e.GetSequence(), last[e.GetChatKey()])
			}
			last[e.GetChatKey()] = e.GetSequence()
			acked[e.GetSequence()] = true
			left--
		}
		if len(all) == 0 {
			t.Fatalf("%d events are forgotten; at most %d may have been settled unheard", left, len(unknown))
		}
		if _, err := gateway.ack(all); err != nil {
			t.Fatal(err)
		}
	}
	gateway.signal(syscall.SIGTERM)
	if state := gateway.wait(); state.ExitCode() != exitOK {
		t.Errorf("after SIGTERM: %v, want exit code 0; its log:\n%s", state, gateway.log)
	}
}
