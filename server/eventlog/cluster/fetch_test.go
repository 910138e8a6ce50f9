package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// A played stream is what a test plays: a replica that answers reads, and a
// leader. Of both the records are numbers.
type played struct {
	t                            *testing.T
	replica, leader, deleted     []uint64
	first, last                  uint64
	silent                       bool // the leader
	at                           time.Time
	direct, info, details, asked int
}

// play serves a stream.
func (p *played) play(url string) {
	nc, err := nats.Connect(url)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(nc.Close)
	serve := func(subject string, answer func(*nats.Msg)) {
		if _, err := nc.Subscribe(subject, answer); err != nil {
			p.t.Fatal(err)
		}
	}
	respond := func(m *nats.Msg, answer any) {
		body, err := json.Marshal(answer)
		if err == nil {
			err = m.Respond(body)
		}
		if err != nil {
			p.t.Error(err)
		}
	}
	serve(fmt.Sprintf(server.JSDirectMsgGetT, "EVENTS"), func(m *nats.Msg) {
		p.direct++
		var req server.JSApiMsgGetRequest
		_ = json.Unmarshal(m.Data, &req)
		sent := 0
		for _, n := range p.replica {
			if n < req.Seq || req.Batch == 0 && n != req.Seq || sent >= max(req.Batch, 1) {
				continue
			}
			sent++
			_ = m.RespondMsg(&nats.Msg{Data: fmt.Append(nil, n), Header: nats.Header{
				server.JSSequence: {fmt.Sprint(n)}, server.JSSubject: {"EVENTS.-.s"}, server.JSTimeStamp: {p.at.Format(time.RFC3339Nano)},
			}})
		}
		switch {
		case sent == 0:
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"404"}}})
		case req.Batch > 0:
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"204"}}})
		}
	})
	serve(fmt.Sprintf(server.JSApiMsgGetT, "EVENTS"), func(m *nats.Msg) {
		p.asked++
		var req server.JSApiMsgGetRequest
		_ = json.Unmarshal(m.Data, &req)
		answer := server.JSApiMsgGetResponse{}
		answer.Error = &server.ApiError{Code: 404, ErrCode: uint16(server.JSNoMessageFoundErr), Description: "no message found"}
		for _, n := range p.leader {
			if n == req.Seq {
				answer.Error, answer.Message = nil, &server.StoredMsg{Subject: "EVENTS.-.s", Sequence: n, Data: fmt.Append(nil, n), Time: p.at}
			}
		}
		respond(m, answer)
	})
	serve(fmt.Sprintf(server.JSApiStreamInfoT, "EVENTS"), func(m *nats.Msg) {
		if p.silent {
			return
		}
		p.info++
		var req server.JSApiStreamInfoRequest
		_ = json.Unmarshal(m.Data, &req)
		state := server.StreamState{FirstSeq: p.first, LastSeq: p.last, Msgs: uint64(len(p.leader)), NumDeleted: len(p.deleted)}
		if req.DeletedDetails {
			p.details++
			state.Deleted = p.deleted
		}
		respond(m, map[string]any{
			"state":   state,
			"cluster": server.ClusterInfo{Leader: "n0", Replicas: []*server.PeerInfo{{Name: "n1", Lag: 3}}},
		})
	})
	if err := nc.Flush(); err != nil {
		p.t.Fatal(err)
	}
}

// TestHolesAreExplained plays replicas that do not have what the leader has
// acknowledged, and leaders that explain it or do not.
func TestHolesAreExplained(t *testing.T) {
	nats := natstest.StartOne(t, func(o *server.Options) { o.JetStream = false })
	all := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	var gone *eventlog.TruncatedError
	var damaged *eventlog.DamagedError
	for name, tt := range map[string]struct {
		played
		deletes bool
		from    uint64
		limit   int

		want    string
		through uint64
		err     any
		misses  float64
		asked   int
	}{
		"nothing is missing":   {played: played{replica: all}, from: 1, limit: 4, want: "[1 2 3 4]", through: 4},
		"a hole in between":    {played: played{replica: []uint64{1, 2, 6, 7}, leader: all}, from: 1, limit: 6, want: "[1 2 3 4 5 6]", through: 6, misses: 3, asked: 3},
		"a hole at the start":  {played: played{replica: []uint64{4, 5}, leader: all}, from: 2, limit: 10, want: "[2 3 4 5]", through: 5, misses: 2, asked: 2},
		"a replica that lags":  {played: played{replica: []uint64{1, 2}, leader: all, at: time.Now().Add(time.Hour)}, from: 3, limit: 3, want: "[3 4 5]", through: 5, asked: 3},
		"a replica cut short":  {played: played{replica: []uint64{1, 2}, leader: all}, from: 3, limit: 3, want: "[3 4 5]", through: 5, misses: 3, asked: 3},
		"nothing at all":       {played: played{leader: all}, from: 9, limit: 9, want: "[9 10]", through: 10, misses: 2, asked: 2},
		"deleted in between":   {played: played{replica: []uint64{1, 4}, leader: all, deleted: []uint64{2, 3}}, deletes: true, from: 1, limit: 9, want: "[1 4]", through: 4},
		"deleted and a hole":   {played: played{replica: []uint64{1, 5}, leader: all, deleted: []uint64{2, 4}}, deletes: true, from: 1, limit: 9, want: "[1 3 5]", through: 5, misses: 1, asked: 1},
		"deleted to the end":   {played: played{replica: []uint64{1}, leader: []uint64{1}, deleted: all[1:]}, deletes: true, from: 2, limit: 9, want: "[]", through: 10},
		"retention":            {played: played{replica: []uint64{8, 9}, leader: all, first: 8}, from: 3, limit: 9, err: &gone},
		"damage":               {played: played{replica: []uint64{6}, leader: []uint64{1, 2, 6, 7}}, from: 3, limit: 9, err: &damaged, asked: 3 + 1},
		"damage behind a hole": {played: played{replica: []uint64{1, 6}, leader: []uint64{1, 2, 3, 6, 7}}, from: 1, limit: 9, want: "[1 2 3]", through: 3, misses: 2, asked: 6},
		"damage that the leader takes for deleted": {
			played: played{replica: []uint64{1, 3}, leader: []uint64{1, 3}, deleted: []uint64{2}}, from: 2, limit: 9, err: &damaged, asked: 1,
		},
		"no leader": {played: played{replica: []uint64{5}, silent: true}, from: 3, limit: 9, err: eventlog.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			e := openEngine(t, Config{URL: nats.URL})
			p := &tt.played
			p.t, p.first, p.last = t, max(p.first, 1), 10
			if p.at.IsZero() {
				p.at = time.Date(2026, 5, 17, 8, 0, 0, 0, time.UTC)
			}
			p.play(nats.URL)
			s := &store{engine: e, cfg: eventlog.LogConfig{Name: "EVENTS", Deletes: tt.deletes}}
			s.log = eventlog.NewLog(s.cfg, "", 10, s, eventlog.Options{Metrics: e.metrics, Logger: testLogger(t)})
			e.logger = testLogger(t)
			for range 2 {
				p.asked = 0
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				records, through, err := s.Fetch(ctx, tt.from, 10, tt.limit)
				switch want := tt.err.(type) {
				case nil:
					got := []string{}
					for _, r := range records {
						got = append(got, string(r.Data))
					}
					if err != nil || fmt.Sprint(got) != tt.want || through != tt.through {
						t.Fatalf("Fetch() = %s through %d, %v, want %s through %d", got, through, err, tt.want, tt.through)
					}
				case error:
					if !errors.Is(err, want) {
						t.Fatalf("Fetch() = %v, want %v", err, want)
					}
				case **eventlog.TruncatedError:
					if !errors.As(err, want) || (*want).Asked != tt.from || (*want).First != p.first {
						t.Fatalf("Fetch() = %v, want a TruncatedError", err)
					}
				case **eventlog.DamagedError:
					if !errors.As(err, want) || (*want).First != tt.from {
						t.Fatalf("Fetch() = %v, want a DamagedError", err)
					}
				}
				if p.asked > tt.asked {
					t.Errorf("the leader was asked for %d records, want %d", p.asked, tt.asked)
				}
			}
			if got := testutil.ToFloat64(e.misses); got != 2*tt.misses {
				t.Errorf("%v misses were counted in two reads, want %v each", got, tt.misses)
			}
			if p.details > 1 {
				t.Errorf("the leader listed what is deleted %d times, though nothing had changed", p.details)
			}
		})
	}
}
