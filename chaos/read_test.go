//go:build chaos

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// An event is what a reader got.
type event struct {
	seq  uint64
	id   string // the vendor's
	chat string
	hash string // of raw
}

// A gap is a range that a stream says it cannot give.
type gap struct {
	first, last uint64
	reason      string
}

// A reading is what a stream gave from the oldest event to the newest.
type reading struct {
	first, last uint64 // what the log says it holds
	events      []event
	gaps        []gap
}

// callbackFields are those of a callback that the checker looks at.
type callbackFields struct {
	Data struct{ MessageID, ChatID string }
}

func newEvent(seq uint64, raw []byte) event {
	var fields callbackFields
	_ = json.Unmarshal(raw, &fields) // what cannot be read has no id, and is found by that
	return event{seq: seq, id: fields.Data.MessageID, chat: fields.Data.ChatID, hash: hash(raw)}
}

// subscribe reads all that the log holds over a stream that goes on behind gaps.
func (g *gateway) subscribe(ctx context.Context) (reading, error) {
	return g.follow(ctx, &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_LATEST}}, nil)
}

// follow reads from the oldest event to stop, and tells each of the events as it
// comes.
func (g *gateway) follow(ctx context.Context, stop *sluicev1.Position, each func(event)) (reading, error) {
	var r reading
	stream, err := sluicev1.NewEventServiceClient(g.dial()).Subscribe(ctx, &sluicev1.SubscribeRequest{
		Start:      &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}},
		Stop:       stop,
		OnGap:      sluicev1.OnGap_ON_GAP_SKIP,
		IncludeRaw: true,
	})
	if err != nil {
		return r, err
	}
	for {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if g.expires && len(r.events) > 0 {
				r.first = max(r.first, r.events[0].seq) // retention has gone on meanwhile
			}
			return r, nil
		}
		if err != nil {
			return r, err
		}
		if opened := frame.GetOpened(); opened != nil {
			r.first, r.last = opened.GetFirstSequence(), opened.GetLastSequence()
		}
		if lost := frame.GetGap(); lost != nil {
			r.gaps = append(r.gaps, gap{lost.GetFirstSequence(), lost.GetLastSequence(), lost.String()})
		}
		for _, e := range frame.GetEvents().GetEvents() {
			got := newEvent(e.GetSequence(), e.GetRaw())
			r.events = append(r.events, got)
			if each != nil {
				each(got)
			}
		}
	}
}

// damaged returns whether the stream said that a sequence is damaged.
func (r reading) damaged(seq uint64) bool {
	for _, g := range r.gaps {
		if g.first <= seq && seq <= g.last && strings.Contains(g.reason, "DAMAGED") {
			return true
		}
	}
	return false
}

// mustRead reads all over a stream and over lists, which must agree.
func (g *gateway) mustRead() reading {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	r, err := g.subscribe(ctx)
	if err != nil {
		g.t.Fatalf("subscribe: %v", err)
	}
	listed, err := g.list(ctx)
	if err != nil {
		g.t.Fatalf("list: %v", err)
	}
	streamed := r.events
	for r.first > 1 && len(streamed) > 0 && len(listed) > 0 && streamed[0].seq < listed[0].seq {
		streamed = streamed[1:] // retention has gone on meanwhile
	}
	if len(listed) != len(streamed) {
		g.t.Fatalf("a stream gives %d events, lists give %d", len(streamed), len(listed))
	}
	for i, e := range listed {
		if e != streamed[i] {
			g.t.Fatalf("a stream gives %+v where a list gives %+v", streamed[i], e)
		}
	}
	return r
}

// An apiError is an error of the HTTP API.
type apiError struct {
	status int
	body   string
}

func (e *apiError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.status, e.body) }

// isDamage returns whether err is how the API says that an event is damaged.
func isDamage(err error) bool {
	var e *apiError
	if errors.As(err, &e) {
		return e.status == http.StatusInternalServerError && strings.Contains(e.body, "EVENT_DAMAGED")
	}
	return status.Code(err) == codes.DataLoss && strings.Contains(fmt.Sprint(status.Convert(err).Details()), "EVENT_DAMAGED")
}

// list reads all that the log holds over HTTP.
func (g *gateway) list(ctx context.Context) ([]event, error) {
	var all []event
	token := ""
	for ctx.Err() == nil {
		code, body := get(g.api+"/v1/events?include_raw=true&page_size=1000&page_token="+url.QueryEscape(token), patience)
		if code != http.StatusOK {
			return all, &apiError{code, body}
		}
		var page struct {
			Events []struct {
				Sequence json.Number
				Raw      []byte
			}
			NextPageToken  string
			NextPageToken2 string `json:"next_page_token"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			return all, err
		}
		for _, e := range page.Events {
			seq, err := e.Sequence.Int64()
			if err != nil {
				return all, err
			}
			all = append(all, newEvent(uint64(seq), e.Raw))
		}
		if token = page.NextPageToken + page.NextPageToken2; token == "" {
			return all, nil
		}
	}
	return all, ctx.Err()
}

// quarantined returns how many entries the quarantine holds.
func (g *gateway) quarantined(ctx context.Context) (int, error) {
	res, err := sluicev1.NewQuarantineServiceClient(g.dial()).ListQuarantineEntries(ctx,
		&sluicev1.ListQuarantineEntriesRequest{PageSize: 1000})
	return len(res.GetEntries()), err
}

// A watcher is a subscriber that is there while the fault happens.
type watcher struct {
	mu     sync.Mutex
	events []event
	cancel context.CancelFunc
	done   chan struct{}
}

// watch follows the log until the gateway ends, or the test.
func (g *gateway) watch() *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		_, _ = g.follow(ctx, nil, func(e event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		}) // how it ended is not what is looked at
	}()
	g.t.Cleanup(cancel)
	return w
}

// close ends the subscription and returns what came.
func (w *watcher) close() []event {
	w.cancel()
	<-w.done
	return w.events
}

// A prober asks for /readyz all the time.
type prober struct {
	t       *testing.T
	mu      sync.Mutex
	slowest time.Duration
	reds    int
	firstAt time.Time // when it was red first
	cause   string
	stop    chan struct{}
	done    chan struct{}
}

func (g *gateway) probe() *prober {
	p := &prober{t: g.t, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
			}
			began := time.Now()
			code, text := g.ready()
			if !g.alive() {
				return
			}
			p.mu.Lock()
			p.slowest = max(p.slowest, time.Since(began))
			if code == http.StatusServiceUnavailable {
				if p.reds++; p.reds == 1 {
					p.firstAt, p.cause = time.Now(), text
				}
			}
			p.mu.Unlock()
		}
	}()
	return p
}

// close ends the asking; no answer may have taken a second.
func (p *prober) close() {
	p.t.Helper()
	close(p.stop)
	<-p.done
	if p.slowest > time.Second {
		p.t.Errorf("/readyz took %v, want at most 1s", p.slowest)
	}
}
