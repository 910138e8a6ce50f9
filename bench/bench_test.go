package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/ingest"
)

// Every callback must be one the server has not seen, or it measures the
// answering of duplicates.
func TestRequestsDiffer(t *testing.T) {
	seen := make(map[string]bool)
	inChats := make(map[string]bool)
	for range 2 { // as two connections do
		r := newRequest("host", defaultChats)
		for range 5000 {
			r.next()
			parsed, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.bytes)))
			if err != nil {
				t.Fatal(err)
			}
			var callback struct {
				Data struct{ MessageID, ChatID string }
			}
			if err := json.NewDecoder(parsed.Body).Decode(&callback); err != nil {
				t.Fatal(err)
			}
			if seen[callback.Data.MessageID] {
				t.Fatalf("message id %s was sent before", callback.Data.MessageID)
			}
			seen[callback.Data.MessageID] = true
			inChats[callback.Data.ChatID] = true
			if rest, err := io.ReadAll(parsed.Body); err != nil || len(rest) > 0 {
				t.Fatalf("after the body came %q, %v", rest, err)
			}
		}
	}
	if len(inChats) != defaultChats {
		t.Errorf("10000 callbacks were in %d chats, want %d", len(inChats), defaultChats)
	}
}

// The load must be the ordinary case: a text that leaves nothing to be said
// about it.
func TestBodyIsOrdinary(t *testing.T) {
	decoded := callback.Decode([]byte(body))
	if len(decoded.GetEvents()) != 1 {
		t.Fatalf("Decode(body) = %v, want one event", decoded)
	}
	event := decoded.GetEvents()[0]
	if event.GetMessage().GetText().GetText() == "" || len(event.GetAnomalies()) > 0 || event.GetUnmapped() != nil {
		t.Errorf("Decode(body) = %v, want a text without anomalies", event)
	}
}

// What the servers that Sluice is compared with have answered must be there after
// a power cut: else they are nothing to compare with.
func TestOwnServersStoreWhatTheyAnswer(t *testing.T) {
	for name, load := range map[string]load{
		"as fast as it answers": {connections: 4, duration: 100 * time.Millisecond},
		"at a rate":             {connections: 4, duration: 100 * time.Millisecond, rate: 500},
	} {
		t.Run("limit "+name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			r := postAt(t, load, &limit{db: database(t, disk)})
			db := database(t, disk.CrashClone(vfs.CrashCloneCfg{}))
			bodies := valuesOf(t, db, 0, 0xff)
			if len(bodies) != len(r.latencies) {
				t.Errorf("%d bodies are stored, want the %d that were answered", len(bodies), len(r.latencies))
			}
			for _, b := range bodies {
				if len(b) != len(body) {
					t.Fatalf("a stored body has %d bytes, want %d", len(b), len(body))
				}
			}
		})
		t.Run("floor "+name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			r := postAt(t, load, &floor{db: database(t, disk)})
			db := database(t, disk.CrashClone(vfs.CrashCloneCfg{}))
			records := valuesOf(t, db, 'r', 's')
			ids, keys := len(valuesOf(t, db, 'i', 'j')), len(valuesOf(t, db, 'k', 'l'))
			if n := len(r.latencies); len(records) != n || ids != n || keys != n {
				t.Errorf("%d records, %d identities and %d keys are stored, want the %d that were answered", len(records), ids, keys, n)
			}
			want := storedBytes(t)
			for _, r := range records {
				if d := len(r) - want; d < -8 || d > 8 { // a time can be some bytes shorter than another
					t.Fatalf("a stored record has %d bytes, the gateway's have %d", len(r), want)
				}
			}
		})
	}
}

func database(t *testing.T, disk vfs.FS) *pebble.DB {
	t.Helper()
	db, err := pebble.Open("data", &pebble.Options{FS: disk, Logger: quiet{pebble.DefaultLogger}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// postAt posts a load at a handler.
func postAt(t *testing.T, l load, h http.Handler) result {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	l.addr = server.Listener.Addr().String()
	r, err := l.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.latencies) == 0 || l.rate > 0 && len(r.latencies) != 50 {
		t.Fatalf("%d callbacks in %v", len(r.latencies), l.duration)
	}
	return r
}

// valuesOf returns what is stored under keys whose first byte is from lower to
// below upper.
func valuesOf(t *testing.T, db *pebble.DB, lower, upper byte) (all [][]byte) {
	t.Helper()
	iter, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{lower}, UpperBound: []byte{upper}})
	if err != nil {
		t.Fatal(err)
	}
	defer iter.Close()
	for iter.First(); iter.Valid(); iter.Next() {
		all = append(all, bytes.Clone(iter.Value()))
	}
	if err := iter.Error(); err != nil {
		t.Fatal(err)
	}
	return all
}

// storedBytes returns how many bytes the gateway's log takes for a callback.
func storedBytes(t *testing.T) int {
	t.Helper()
	engine, err := local.Open(t.Context(), local.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close(context.Background())
	events, err := engine.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	service, err := ingest.New(ingest.Config{}, events, events)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ingest.NewHandler(service)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	server := httptest.NewServer(h)
	defer server.Close()
	p, err := dial(t.Context(), server.Listener.Addr().String(), defaultChats)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for range n {
		if err := p.post(); err != nil {
			t.Fatal(err)
		}
	}
	if got := events.State().Count; got != n {
		t.Fatalf("the gateway has stored %d events, want %d", got, n)
	}
	return int(events.State().Bytes) / n
}

// A refused callback must end the run: refusals are fast, and would pass for
// throughput.
func TestLoadStopsAtARefusal(t *testing.T) {
	tests := map[string]struct {
		status int
		answer string
		want   string // substring of the error
	}{
		"status":         {http.StatusServiceUnavailable, okAnswer, "503"},
		"errcode":        {http.StatusOK, `{"errcode":1,"errmsg":"ok"}`, `"errcode\":1`},
		"another length": {http.StatusOK, `{}`, "2 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.answer)
			}))
			defer server.Close()
			_, err := load{addr: server.Listener.Addr().String(), connections: 2, duration: time.Minute}.run(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("run() = %v, want it to mention %q", err, tt.want)
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	tests := []struct {
		sorted []int
		q      float64
		want   int
	}{
		{hundred, 0.50, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{[]int{7}, 0.50, 7},
		{[]int{7}, 0.99, 7},
		{[]int{1, 2, 3}, 0.50, 2},
	}
	for _, tt := range tests {
		if got := quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("quantile(%d values, %v) = %d, want %d", len(tt.sorted), tt.q, got, tt.want)
		}
	}
}
