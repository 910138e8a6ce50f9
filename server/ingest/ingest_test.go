package ingest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
)

// token is the credential of the corpus.
const token = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a02"

const ok = `{"errcode":0,"errmsg":"ok"}`

// A gate is a callback listener on a real log.
type gate struct {
	t                  *testing.T
	dir                string
	engine             *local.Engine
	events, quarantine *eventlog.Log
	service            *Service
	url                string
	registry           *prometheus.Registry
	log                syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start opens a gate on dir, which may hold what an earlier one has left.
func start(t *testing.T, dir string, cfg Config, logs ...eventlog.LogConfig) *gate {
	t.Helper()
	g := &gate{t: t, dir: dir, registry: prometheus.NewRegistry()}
	logger := slog.New(slog.NewTextHandler(&g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	g.engine, err = local.Open(t.Context(), local.Config{
		Dir: dir, MaxRecord: MaxRecord(defaultMaxBody), Logger: logger, Registerer: g.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.stop)
	open := func(name string) *eventlog.Log {
		cfg := eventlog.LogConfig{Name: name, DedupeWindow: 30 * time.Minute}
		for _, c := range logs {
			if c.Name == name {
				cfg = c
			}
		}
		l, err := g.engine.Log(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	g.events, g.quarantine = open("EVENTS"), open("QUARANTINE")
	cfg.Logger, cfg.Registerer = logger, g.registry
	if g.service, err = New(cfg, g.events, g.quarantine); err != nil {
		t.Fatal(err)
	}
	h, err := NewHandler(g.service)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

func (g *gate) stop() {
	if err := g.engine.Close(context.Background()); err != nil {
		g.t.Errorf("Close() = %v", err)
	}
}

// request returns a POST of body to path below the gate's address.
func (g *gate) request(path string, body io.Reader) *http.Request {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), http.MethodPost, g.url+path, body)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// do returns the answer to r: status, body, header.
func (g *gate) do(r *http.Request) (int, string, http.Header) {
	g.t.Helper()
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode, string(body), res.Header
}

func (g *gate) post(path, body string) (int, string) {
	g.t.Helper()
	status, answer, _ := g.do(g.request(path, strings.NewReader(body)))
	return status, answer
}

// mustPost posts bodies to path, which are all accepted.
func (g *gate) mustPost(path string, bodies ...string) {
	g.t.Helper()
	for _, body := range bodies {
		if status, answer := g.post(path, body); status != http.StatusOK || answer != ok {
			g.t.Fatalf("POST %s = %d %s, want 200 %s", path, status, answer, ok)
		}
	}
}

func (g *gate) records(l *eventlog.Log) []eventlog.Record {
	g.t.Helper()
	var records []eventlog.Record
	for seq := uint64(1); seq <= l.Durable(); seq++ {
		r, err := l.Get(g.t.Context(), seq)
		if err != nil {
			g.t.Fatalf("Get(%d): %v", seq, err)
		}
		records = append(records, r)
	}
	return records
}

// stored returns the events in the log, in order.
func (g *gate) stored() []*sluicev1.Event {
	g.t.Helper()
	var events []*sluicev1.Event
	for _, r := range g.records(g.events) {
		e, err := record.Decode(r.Data, r.Sequence, g.events.Epoch(), true)
		if err != nil {
			g.t.Fatal(err)
		}
		if got := record.Subject(e); got != r.Subject {
			g.t.Errorf("event %d is under subject %q, want %q", r.Sequence, r.Subject, got)
		}
		events = append(events, e)
	}
	return events
}

// isolated returns the entries in quarantine, in order.
func (g *gate) isolated() []*sluicev1.QuarantineEntry {
	g.t.Helper()
	var entries []*sluicev1.QuarantineEntry
	for _, r := range g.records(g.quarantine) {
		e := &sluicev1.QuarantineEntry{}
		if err := proto.Unmarshal(r.Data, e); err != nil {
			g.t.Fatal(err)
		}
		entries = append(entries, e)
	}
	return entries
}

// wantStored fails the test unless the logs hold that many records.
func (g *gate) wantStored(events, quarantined uint64) {
	g.t.Helper()
	if got := g.events.Durable(); got != events {
		g.t.Errorf("the log holds %d events, want %d", got, events)
	}
	if got := g.quarantine.Durable(); got != quarantined {
		g.t.Errorf("the quarantine holds %d entries, want %d", got, quarantined)
	}
}

// metric returns the value of a counter or gauge, as in
// metric(g.service.metrics.rejected, "path").
func (g *gate) metric(v interface {
	WithLabelValues(...string) prometheus.Counter
}, labels ...string,
) float64 {
	return testutil.ToFloat64(v.WithLabelValues(labels...))
}

// corpus returns a body that the vendor sends.
func corpus(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "callback", "testdata", "corpus", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// secret returns the credential that ParseSecret makes of s.
func secret(t testing.TB, s string) Secret {
	t.Helper()
	v, err := ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// text returns a text message as the enterprise shape has it.
func text(id, words string) string {
	return fmt.Sprintf(`{"orgId":"o","token":%q,"botId":"b1","imBotId":"w1","chatId":"c1","imContactId":"p1",`+
		`"messageId":%q,"messageType":7,"timestamp":"1763365331161","payload":{"text":%q}}`, token, id, words)
}
