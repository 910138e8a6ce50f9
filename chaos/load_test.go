//go:build chaos

package chaos

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A posted is a callback of the load, and what the vendor knows of it.
type posted struct {
	ID     string `json:"message_id"`
	Chat   string `json:"chat"`
	Number int    // within the chat, in the order of the first attempts
	Hash   string // of the body as it must be stored
	Tries  int
	Acked  bool // answered errcode 0

	body      []byte
	malformed bool // not JSON: it belongs into the quarantine
}

// A ledger is the vendor's side: all that was posted, and how it was answered.
// Its file is on the file system of the tests, which no fault touches.
type ledger struct {
	mu      sync.Mutex
	file    *os.File
	posts   map[string]*posted
	order   []*posted
	forged  map[string]bool // ids that came without a valid token
	answers map[int]int     // by HTTP status; 0 is none
	slowest time.Duration
	lastAck time.Time
	client  *http.Client
	loads   int
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "ledger.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return &ledger{
		file: file, posts: map[string]*posted{}, forged: map[string]bool{}, answers: map[int]int{},
		client: &http.Client{
			Timeout:   15 * time.Second, // what must be sooner is checked
			Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		},
	}
}

// callback returns a callback as the vendor sends one, with text of about size
// bytes that cannot be compressed.
func callback(id, chat string, size int) *posted {
	noise := make([]byte, max(size/2, 4))
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	body := fmt.Appendf(nil, `{"token":%q,"data":{"messageId":%q,"chatId":%q,"botId":"60aa00000000000000000b01",`+
		`"contactId":"7881300000000001","contactName":"客户甲","type":7,"timestamp":%d,"isSelf":false,"payload":{"text":"%s"}}}`,
		token, id, chat, time.Now().UnixMilli(), hex.EncodeToString(noise))
	return &posted{ID: id, Chat: chat, Hash: hash(bytes.Replace(body, []byte(token), nil, 1)), body: body}
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// A load is how much to post.
type load struct {
	chats, each int
	size        int              // bytes of text
	pace        time.Duration    // between two callbacks of a chat
	until       func() bool      // ends it early
	limit       time.Duration    // ends it, too; 0 is a minute
	after       func(status int) // told of each answer
}

// run posts the load, each chat one callback after the other. A chat ends when
// nobody answers; after a refusal it goes on with its next callback.
func (l *ledger) run(g *gateway, what load) {
	l.mu.Lock()
	l.loads++
	prefix := "m" + strconv.Itoa(l.loads)
	l.mu.Unlock()
	var chats sync.WaitGroup
	end := time.Now().Add(cmp.Or(what.limit, time.Minute))
	for c := range what.chats {
		chats.Go(func() {
			for n := range what.each {
				if time.Now().After(end) || what.until != nil && what.until() {
					return
				}
				chat := fmt.Sprintf("chat-%02d", c)
				p := l.add(callback(fmt.Sprintf("%s-%02d-%05d", prefix, c, n), chat, what.size))
				status := l.post(g, p)
				if what.after != nil {
					what.after(status)
				}
				if status == 0 {
					return
				}
				if wait := max(what.pace, refusalPause(status)); wait > 0 {
					<-time.After(wait)
				}
			}
		})
	}
	chats.Wait()
}

// refusalPause is how long a chat waits after a refusal, so that a gateway that
// refuses quickly is not asked ten thousand times a second.
func refusalPause(status int) time.Duration {
	if status == http.StatusOK {
		return 0
	}
	return 20 * time.Millisecond
}

// start runs the load beside the test.
func (l *ledger) start(g *gateway, what load) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(g, what)
	}()
	return func() { <-done }
}

func (l *ledger) add(p *posted) *posted {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.Number = len(l.order)
	l.posts[p.ID] = p
	l.order = append(l.order, p)
	return p
}

// post posts p and returns the HTTP status: 200 for errcode 0 only, 0 when there
// was no answer.
func (l *ledger) post(g *gateway, p *posted) int {
	began := time.Now()
	status, errcode := send(l.client, g.callbacks+"/hook-7f3a9c/message", p.body)
	took := time.Since(began)
	if status == http.StatusOK && errcode != 0 {
		status = -errcode
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p.Tries++
	l.answers[status]++
	l.slowest = max(l.slowest, took)
	if status == http.StatusOK {
		p.Acked, l.lastAck = true, time.Now()
		if line, err := json.Marshal(p); err == nil && !p.malformed {
			_, _ = l.file.Write(append(line, '\n')) // for verify --ledger
		}
	}
	return status
}

// send posts a body, and returns the HTTP status and the vendor's errcode.
func send(client *http.Client, url string, body []byte) (status, errcode int) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, 0
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return 0, 0
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	var said struct{ Errcode *int }
	if err != nil || json.Unmarshal(answer, &said) != nil || said.Errcode == nil {
		return 0, 0 // half an answer is none
	}
	return res.StatusCode, *said.Errcode
}

// retry posts again what was not answered 0, and some of what was, as the
// vendor may. All of it must be answered 0.
func (l *ledger) retry(t *testing.T, g *gateway) {
	t.Helper()
	again := 0
	for _, p := range l.all() {
		if p.Acked {
			if again++; again > 20 {
				continue
			}
		}
		if status := l.post(g, p); status != http.StatusOK {
			t.Fatalf("the retry of %s is answered %d", p.ID, status)
		}
	}
}

// forge posts a callback with a wrong token: it must be refused, and nobody may
// ever get it.
func (l *ledger) forge(t *testing.T, g *gateway) {
	t.Helper()
	id := fmt.Sprintf("forged-%d", len(l.forged))
	p := callback(id, "chat-00", 16)
	if status, _ := send(l.client, g.callbacks+"/hook-7f3a9c/message", bytes.Replace(p.body, []byte(token), []byte("wrong"), 1)); status != http.StatusUnauthorized && status != 0 { // 0: it was killed before it answered
		t.Errorf("a callback with a wrong token is answered %d", status)
	}
	l.forged[id] = true
}

// malform posts a body that is not JSON: it is answered 0 and kept in the
// quarantine.
func (l *ledger) malform(t *testing.T, g *gateway) {
	t.Helper()
	l.mu.Lock()
	id := fmt.Sprintf("malformed-%d", len(l.order))
	l.mu.Unlock()
	p := l.add(&posted{ID: id, body: []byte(`{"id":"` + id + `",`), malformed: true})
	if status := l.post(g, p); status != http.StatusOK {
		t.Fatalf("a body that is not JSON is answered %d", status)
	}
}

func (l *ledger) all() []*posted {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*posted(nil), l.order...)
}

// acked returns how many were answered 0.
func (l *ledger) acked() int {
	n := 0
	for _, p := range l.all() {
		if p.Acked {
			n++
		}
	}
	return n
}

// count returns how many answers had the status.
func (l *ledger) count(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[status]
}

// mustAnswerSoon checks that no callback waited longer than it may.
func (l *ledger) mustAnswerSoon(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit := commitTimeout + time.Second; l.slowest > limit {
		t.Errorf("a callback waited %v for its answer, want at most %v", l.slowest, limit)
	}
}

// sync makes the ledger's file durable and returns its name.
func (l *ledger) sync(t *testing.T) string {
	t.Helper()
	if err := l.file.Sync(); err != nil {
		t.Fatal(err)
	}
	return l.file.Name()
}

// String says how the callbacks were answered.
func (l *ledger) String() string {
	acked := l.acked()
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d posted, %d answered 0, answers by status %v, slowest %v", len(l.order), acked, l.answers, l.slowest.Round(time.Millisecond))
	return b.String()
}
