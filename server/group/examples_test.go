package group_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// TestExamples parses the bodies that the design promises to take and to
// return, as the HTTP API does.
func TestExamples(t *testing.T) {
	anchor := func(a sluicev1.Anchor) *sluicev1.Position {
		return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: a}}
	}
	for name, tt := range map[string]struct {
		json string
		want proto.Message
	}{
		"create": {
			`{"consumerGroupId":"w","consumerGroup":{"start":{"anchor":"ANCHOR_EARLIEST"},"retry":{"backoff":["0.3s"],"maxAttempts":3}}}`,
			&sluicev1.CreateConsumerGroupRequest{
				ConsumerGroupId: "w",
				ConsumerGroup: &sluicev1.ConsumerGroup{
					Start: anchor(sluicev1.Anchor_ANCHOR_EARLIEST),
					Retry: &sluicev1.RetryPolicy{
						Backoff:     []*durationpb.Duration{durationpb.New(300 * time.Millisecond)},
						MaxAttempts: 3,
					},
				},
			},
		},
		"pull": {
			`{"member":"m1","maxEvents":10,"wait":"1s"}`,
			&sluicev1.PullRequest{Member: "m1", MaxEvents: 10, Wait: durationpb.New(time.Second)},
		},
		"pulled": {
			`{"deliveries":[{"lease":"l","events":[{"sequence":"7"}],"attempt":1}]}`,
			&sluicev1.PullResponse{Deliveries: []*sluicev1.Delivery{
				{Lease: "l", Events: []*sluicev1.Event{{Sequence: 7}}, Attempt: 1},
			}},
		},
		"settle": {
			`{"items":[{"lease":"l1","ack":{}},{"lease":"l2","nack":{"reason":"no"}}]}`,
			&sluicev1.SettleRequest{Items: []*sluicev1.Settlement{
				{Lease: "l1", Verdict: &sluicev1.Settlement_Ack{Ack: &sluicev1.Ack{}}},
				{Lease: "l2", Verdict: &sluicev1.Settlement_Nack{Nack: &sluicev1.Nack{Reason: "no"}}},
			}},
		},
		"settled": {
			`{"items":[{"lease":"l1","outcome":"OUTCOME_DONE"}]}`,
			&sluicev1.SettleResponse{Items: []*sluicev1.SettlementResult{
				{Lease: "l1", Outcome: sluicev1.Outcome_OUTCOME_DONE},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := tt.want.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal([]byte(tt.json), got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.json, diff)
			}
		})
	}
}

// TestVocabulary holds the words of the contract that clients compare with.
func TestVocabulary(t *testing.T) {
	for enum, want := range map[string]struct {
		values map[int32]string
		names  []string
	}{
		"Outcome":     {sluicev1.Outcome_name, []string{"OUTCOME_DONE", "OUTCOME_ALREADY_DONE", "OUTCOME_LEASE_LOST", "OUTCOME_RETRY", "OUTCOME_UNKNOWN_LEASE"}},
		"Order":       {sluicev1.Order_name, []string{"ORDER_CHAT", "ORDER_NONE", "ORDER_TOTAL"}},
		"OnExhausted": {sluicev1.OnExhausted_name, []string{"ON_EXHAUSTED_DEAD_LETTER_EVENT", "ON_EXHAUSTED_DIVERT_CHAT", "ON_EXHAUSTED_BLOCK_CHAT"}},
	} {
		for i, name := range want.names {
			if got := want.values[int32(i+1)]; got != name {
				t.Errorf("%s %d is %s, want %s", enum, i+1, got, name)
			}
		}
	}
}
