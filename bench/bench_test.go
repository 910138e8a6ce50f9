package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/callback"
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

// What the limit server has answered, it must have: else it is no limit.
func TestLimitStoresWhatItAnswers(t *testing.T) {
	db, err := pebble.Open(t.TempDir(), &pebble.Options{Logger: quiet{pebble.DefaultLogger}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	server := httptest.NewServer(&limit{db: db})
	defer server.Close()
	for name, l := range map[string]load{
		"as fast as it answers": {connections: 4, duration: 100 * time.Millisecond},
		"at a rate":             {connections: 4, duration: 100 * time.Millisecond, rate: 500},
	} {
		before := stored(t, db)
		l.addr = server.Listener.Addr().String()
		r, err := l.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := stored(t, db) - before; got != len(r.latencies) || got == 0 {
			t.Errorf("%s: %d bodies are stored, want the %d that were answered", name, got, len(r.latencies))
		}
		if l.rate > 0 && len(r.latencies) != 50 {
			t.Errorf("%s: %d callbacks in %v, want 50", name, len(r.latencies), l.duration)
		}
	}
}

// stored counts the bodies in db, and checks that they are bodies.
func stored(t *testing.T, db *pebble.DB) (n int) {
	t.Helper()
	all, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	for all.First(); all.Valid(); all.Next() {
		if len(all.Value()) != len(body) {
			t.Fatalf("a stored body has %d bytes, want %d", len(all.Value()), len(body))
		}
		n++
	}
	if err := all.Error(); err != nil {
		t.Fatal(err)
	}
	return n
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
