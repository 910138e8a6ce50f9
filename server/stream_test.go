package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/servertest"
)

// subscribe opens a stream over HTTP and returns its lines.
func subscribe(t *testing.T, method, url, accept, body string, header ...string) *bufio.Scanner {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	want := "application/x-ndjson"
	if accept != "" {
		req.Header.Set("Accept", accept)
		want = "text/event-stream"
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if got := res.Header.Get("Content-Type"); got != want || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s = %d %s, want 200 %s", method, url, res.StatusCode, got, want)
	}
	return bufio.NewScanner(res.Body)
}

// frame parses the next line that is a frame, in either form.
func frame(t *testing.T, lines *bufio.Scanner) *sluicev1.SubscribeResponse {
	t.Helper()
	for lines.Scan() {
		text, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData {
			var chunk struct{ Result json.RawMessage }
			if json.Unmarshal(lines.Bytes(), &chunk) != nil || chunk.Result == nil {
				continue // id, event and blank lines
			}
			text = string(chunk.Result)
		}
		var res sluicev1.SubscribeResponse
		if err := protojson.Unmarshal([]byte(text), &res); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		return &res
	}
	t.Fatalf("the stream ended: %v", lines.Err())
	return nil
}

// events returns the sequences of the next n events, and the last cursor.
func events(t *testing.T, lines *bufio.Scanner, n int) (sequences []uint64, cursor string) {
	t.Helper()
	for len(sequences) < n {
		res := frame(t, lines)
		for _, e := range res.GetEvents().GetEvents() {
			sequences = append(sequences, e.GetSequence())
		}
		cursor = res.GetCursor()
	}
	return sequences, cursor
}

// TestSubscribeOverHTTP holds that both forms deliver what comes, as it comes,
// and resume.
func TestSubscribeOverHTTP(t *testing.T) {
	srv := servertest.Start(t)
	url := srv.HTTPURL() + "/v1/events:subscribe"
	tests := map[string]struct{ method, query, accept, body string }{
		"lines":              {http.MethodGet, "?start.anchor=ANCHOR_LATEST", "", ""},
		"lines, POST":        {http.MethodPost, "", "", `{"start":{"anchor":"ANCHOR_LATEST"}}`},
		"server-sent events": {http.MethodGet, "", "text/event-stream", ""},
		"among other types":  {http.MethodGet, "", "application/json;q=0.5, text/event-stream", ""},
	}
	next := uint64(1)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			lines := subscribe(t, tt.method, url+tt.query, tt.accept, tt.body)
			if res := frame(t, lines); res.GetOpened() == nil {
				t.Fatalf("the first frame is %v, want opened", res)
			}
			var cursor string
			for range 2 {
				srv.MustPost("/message", strings.Replace(callback, `"messageId":"1"`, `"messageId":"`+name+string(rune('a'+next))+`"`, 1))
				var got []uint64
				got, cursor = events(t, lines, 1)
				if got[0] != next {
					t.Fatalf("got event %v, want %d", got, next)
				}
				next++
			}
			srv.MustPost("/message", strings.Replace(callback, `"messageId":"1"`, `"messageId":"`+name+string(rune('a'+next))+`"`, 1))
			var again *bufio.Scanner
			if tt.accept == "" {
				again = subscribe(t, http.MethodGet, url+"?start.cursor="+cursor, "", "")
			} else {
				again = subscribe(t, http.MethodGet, url, tt.accept, "", "Last-Event-ID", cursor)
			}
			if got, _ := events(t, again, 1); got[0] != next {
				t.Errorf("after cursor %s comes event %v, want %d", cursor, got, next)
			}
			next++
		})
	}
}
