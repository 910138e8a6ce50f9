package cluster

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// describe lets the servers describe themselves, as an account that imports the
// system account's service does.
func describe(t *testing.T, nodes ...*natstest.Cluster) {
	t.Helper()
	nc, err := nats.Connect(nodes[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	_, err = nc.Subscribe("$SYS.REQ.SERVER.PING.VARZ", func(m *nats.Msg) {
		for _, n := range nodes {
			body, err := json.Marshal(n.Varz(t, 0))
			if err == nil {
				err = m.Respond(body)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestNodesAreChecked opens clusters that would lose records, or take none.
func TestNodesAreChecked(t *testing.T) {
	synced := natstest.StartOne(t, nil)
	lossy := natstest.StartOne(t, func(o *server.Options) { o.ServerName, o.SyncAlways = "lossy", false })
	small := natstest.StartOne(t, func(o *server.Options) { o.ServerName, o.MaxPayload = "small", 100<<10 })
	tiny := natstest.StartOne(t, func(o *server.Options) { o.ServerName, o.MaxPayload = "tiny", 60<<10 })
	hidden := natstest.StartOne(t, nil)
	describe(t, synced, small)
	describe(t, lossy, synced)
	for name, tt := range map[string]struct {
		nats      *natstest.Cluster
		accept    bool
		refusal   string // of Open
		line      string
		maxRecord int
	}{
		"synced, one of them small": {nats: synced, line: "max_payload=102400", maxRecord: 100<<10 - headerRoom},
		"one is lossy":              {nats: lossy, refusal: "the NATS servers lossy acknowledge records before they are on the disk"},
		"lossy, which is accepted":  {nats: lossy, accept: true, line: "which is accepted", maxRecord: 512 << 10},
		"small":                     {nats: small, line: "raise max_payload", maxRecord: 100<<10 - headerRoom},
		"tiny":                      {nats: tiny, refusal: "set max_payload to 525312 or more"},
		"cannot be seen":            {nats: hidden, line: "check that each has sync_interval: always", maxRecord: 512 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			said, logger := capture(t)
			e, err := Open(t.Context(), Config{
				URL: tt.nats.URL, Replicas: 1, MaxRecord: 512 << 10, AcceptUnsynced: tt.accept, Logger: logger,
			})
			if tt.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refusal) {
					t.Fatalf("Open() = %v, want that it says %q", err, tt.refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer closeEngine(t, e)
			if !strings.Contains(said.String(), tt.line) || e.MaxRecord() != tt.maxRecord {
				t.Errorf("MaxRecord() = %d, want %d; and a line with %q", e.MaxRecord(), tt.maxRecord, tt.line)
			}
			l := openLog(t, e, eventlog.LogConfig{Name: "SIZES"})
			r := eventlog.Record{Subject: "s", ID: strings.Repeat("i", 64), Data: make([]byte, e.MaxRecord())}
			if _, err := l.Append(t.Context(), r); err != nil {
				t.Errorf("Append() of the largest record = %v", err)
			}
			r.ID, r.Data = "", make([]byte, e.MaxRecord()+1)
			if _, err := l.Append(t.Context(), r); err == nil || errors.Is(err, eventlog.ErrUnavailable) {
				t.Errorf("Append() of a larger record = %v, want an error for good", err)
			}
			if err := e.Remove(t.Context(), "SIZES"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWindowIsCapped holds that IDs are not remembered for longer than memory
// allows, and that it is said.
func TestWindowIsCapped(t *testing.T) {
	nats := natstest.StartOne(t, nil)
	said, logger := capture(t)
	e := openEngine(t, Config{URL: nats.URL, Replicas: 1, Logger: logger})
	openLog(t, e, eventlog.LogConfig{Name: "LONG", DedupeWindow: 24 * maxWindow})
	stream, err := e.js.Stream(t.Context(), "LONG")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().Config.Duplicates; got != maxWindow {
		t.Errorf("the window is %v, want %v", got, maxWindow)
	}
	if text := said.String(); !strings.Contains(text, "dedupe_window") || !strings.Contains(text, "log=LONG") {
		t.Errorf("no line says that the window is shorter: %s", text)
	}
}
