package eventlog

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// TestLaggingReplicaHidesNothing plays a cluster in which the replica that
// answers has not got what the leader has acknowledged: it must not look as if
// that had been removed.
func TestLaggingReplicaHidesNothing(t *testing.T) {
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(srv.Shutdown)
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)

	at := time.Date(2026, 5, 17, 8, 0, 0, 0, time.UTC)
	serve := func(subject string, answer func(server.JSApiMsgGetRequest) *nats.Msg) {
		_, err := nc.Subscribe(subject, func(m *nats.Msg) {
			var req server.JSApiMsgGetRequest
			if err := json.Unmarshal(m.Data, &req); err != nil {
				t.Error(err)
			}
			if err := m.RespondMsg(answer(req)); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	serve(fmt.Sprintf(server.JSDirectMsgGetT, "EVENTS"), func(server.JSApiMsgGetRequest) *nats.Msg {
		return &nats.Msg{Header: nats.Header{"Status": {"404"}}}
	})
	serve(fmt.Sprintf(server.JSApiMsgGetT, "EVENTS"), func(req server.JSApiMsgGetRequest) *nats.Msg {
		answer := server.JSApiMsgGetResponse{}
		switch next := req.NextFor == ">"; {
		case req.Batch > 0:
			answer.Error = &server.ApiError{Code: 400, ErrCode: 10003, Description: "bad request"}
		case req.Seq == 7, next && req.Seq > 0 && req.Seq < 7, next && req.StartTime != nil && !req.StartTime.After(at):
			answer.Message = &server.StoredMsg{Subject: "EVENTS.s", Sequence: 7, Data: []byte("seven"), Time: at}
		default:
			answer.Error = &server.ApiError{Code: 404, ErrCode: codeNoMessage, Description: "no message found"}
		}
		body, err := json.Marshal(answer)
		if err != nil {
			t.Error(err)
		}
		return &nats.Msg{Data: body}
	})

	f, err := newFetcher(nc, true)
	if err != nil {
		t.Fatal(err)
	}
	later := at.Add(time.Second)
	for name, tt := range map[string]struct {
		req  server.JSApiMsgGetRequest
		want bool
	}{
		"the record":             {server.JSApiMsgGetRequest{Seq: 7}, true},
		"another record":         {server.JSApiMsgGetRequest{Seq: 6}, false},
		"a batch before it":      {server.JSApiMsgGetRequest{Seq: 5, Batch: 256, MaxBytes: 1 << 20}, true},
		"a batch after it":       {server.JSApiMsgGetRequest{Seq: 8, Batch: 256, MaxBytes: 1 << 20}, false},
		"the first since":        {server.JSApiMsgGetRequest{StartTime: &at, Batch: 1}, true},
		"the first since, later": {server.JSApiMsgGetRequest{StartTime: &later, Batch: 1}, false},
	} {
		got, err := f.request(t.Context(), "EVENTS", tt.req)
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case !tt.want && len(got) > 0:
			t.Errorf("%s: %+v, want nothing", name, got)
		case tt.want && (len(got) != 1 || got[0].Sequence != 7 || got[0].Subject != "s" || string(got[0].Data) != "seven" || !got[0].Time.Equal(at)):
			t.Errorf("%s: %+v, want record 7", name, got)
		}
	}
}
