package subscription

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// selects is the filter as its documentation reads, without haste.
func selects(f *sluicev1.EventFilter, e *sluicev1.Event) bool {
	m := e.GetMessage()
	set := func(values []string, v string) bool { return len(values) == 0 || slices.Contains(values, v) }
	same := func(want, got *bool) bool { return want == nil || m != nil && got != nil && *want == *got }
	var isSelf, mentions *bool
	if m != nil {
		isSelf, mentions = m.IsSelf, m.MentionSelf
	}
	return set(f.GetSources(), e.GetSource()) &&
		set(f.GetBotIds(), record.BotID(record.Bot(e))) &&
		set(f.GetChatIds(), record.ChatID(e)) &&
		set(f.GetChatKeys(), e.GetChatKey()) &&
		set(f.GetRoomWxids(), record.RoomWxid(e)) &&
		set(f.GetKinds(), record.Kind(e)) &&
		(len(f.GetMessageTypes()) == 0 || m != nil && slices.Contains(f.GetMessageTypes(), m.GetType())) &&
		same(f.IsSelf, isSelf) && same(f.MentionSelf, mentions)
}

// Pages of any size, in either order, add up to what the log holds of a filter
// and a range: nothing twice, nothing left out.
func TestPagesAddUp(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.service.maxScan = 70 // so that pages end for that, too
	held := make(map[uint64]*sluicev1.Event)
	events := rapid.SliceOfN(rapid.Custom(drawEvent), 300, 300).Example(1)
	for _, e := range events {
		held[g.post(e)] = e
	}
	last := uint64(len(events))
	for n := range last { // and holes, at either end, too
		if n++; n <= 5 || n%7 == 0 || n > last-3 && n < last {
			if err := g.log.Delete(g.ctx, n); err != nil {
				t.Fatalf("delete %d: %v", n, err)
			}
			delete(held, n)
		}
	}

	rapid.Check(t, func(t *rapid.T) {
		g.service.minIndexed = rapid.SampledFrom([]uint64{0, 100, minIndexed}).Draw(t, "min_indexed")
		req := &sluicev1.ListEventsRequest{
			Filter:      drawFilter(t),
			PageSize:    int32(rapid.SampledFrom([]int{0, 1, 2, 7, 100, 1000}).Draw(t, "page_size")),
			NewestFirst: rapid.Bool().Draw(t, "newest_first"),
		}
		first, stop := uint64(1), last
		if rapid.Bool().Draw(t, "start") {
			first = rapid.Uint64Range(6, last+1).Draw(t, "first")
			req.Start = atSequence(first)
		}
		if rapid.Bool().Draw(t, "stop") {
			stop = rapid.Uint64Range(1, last+10).Draw(t, "last")
			req.Stop = atSequence(stop)
		}
		want := []uint64{}
		for n := first; n <= min(stop, last); n++ {
			if e := held[n]; e != nil && selects(req.GetFilter(), e) {
				want = append(want, n)
			}
		}
		if req.GetNewestFirst() {
			slices.Reverse(want)
		}

		got := []uint64{}
		for pages := 0; ; pages++ {
			resp, err := g.client.ListEvents(g.ctx, req)
			if err != nil {
				t.Fatalf("ListEvents: %v", err)
			}
			size := int(req.GetPageSize())
			if size == 0 {
				size = 100
			}
			if n := len(resp.GetEvents()); n > size {
				t.Fatalf("page of %d events, want at most %d", n, size)
			}
			got = append(got, sequences(resp.GetEvents())...)
			if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
			if pages > 1000 {
				t.Fatal("pages without end")
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("pages have %v, want %v", got, want)
		}
	})
}

func TestListEndsWithoutAToken(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	for _, want := range []int{0, 1, 2} {
		for _, newest := range []bool{false, true} {
			resp, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{NewestFirst: newest, PageSize: 2})
			if err != nil || len(resp.GetEvents()) != want || resp.GetNextPageToken() != "" {
				t.Errorf("ListEvents(newest_first: %v) = %v, %v, want %d events and no token", newest, resp, err, want)
			}
		}
		g.postTexts(1)
	}
}

// A call reads a bounded part of the log, whatever it is asked to find.
func TestListReadsABoundedPartOfTheLog(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.service.maxScan = 100
	g.postTexts(250)
	g.post(&sluicev1.Event{Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{}}})
	req := &sluicev1.ListEventsRequest{Filter: &sluicev1.EventFilter{Kinds: []string{"other"}}}
	for page := range 3 {
		resp, err := g.client.ListEvents(g.ctx, req)
		if err != nil {
			t.Fatalf("ListEvents: %v", err)
		}
		if last := page == 2; len(resp.GetEvents()) > 0 != last || (resp.GetNextPageToken() == "") != last {
			t.Errorf("page %d = %v", page, resp)
		}
		req.PageToken = resp.GetNextPageToken()
	}
}

// A page never outgrows what gRPC clients accept.
func TestPagesOfLargeEventsAreShort(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	for i := range 100 {
		g.post(large(i))
	}
	for _, newest := range []bool{false, true} {
		req := &sluicev1.ListEventsRequest{NewestFirst: newest, PageSize: 1000}
		got := []uint64{}
		for {
			resp, err := g.client.ListEvents(g.ctx, req)
			if err != nil {
				t.Fatalf("ListEvents: %v", err)
			}
			if size := proto.Size(resp); size > maxPageBytes+1<<16 {
				t.Errorf("page of %d bytes", size)
			}
			got = append(got, sequences(resp.GetEvents())...)
			if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
				break
			}
		}
		if newest {
			slices.Reverse(got)
		}
		if !slices.Equal(got, upTo(1, 100)) {
			t.Errorf("newest_first %v: pages have %v", newest, got)
		}
	}
}

// New events do not disturb who pages back through the old ones.
func TestPagesBackwardsWhilePostsGoOn(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(10)
	req := &sluicev1.ListEventsRequest{NewestFirst: true, PageSize: 3}
	got := []uint64{}
	for {
		resp, err := g.client.ListEvents(g.ctx, req)
		if err != nil {
			t.Fatalf("ListEvents: %v", err)
		}
		got = append(got, sequences(resp.GetEvents())...)
		if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
		g.postTexts(1)
	}
	slices.Reverse(got)
	if !slices.Equal(got, upTo(1, 10)) {
		t.Errorf("pages have %v, want 10 to 1", got)
	}
}

func TestListRefuses(t *testing.T) {
	g := newGate(t, eventlog.LogConfig{})
	g.postTexts(5)
	first := &sluicev1.ListEventsRequest{PageSize: 2}
	resp, err := g.client.ListEvents(g.ctx, first)
	if err != nil {
		t.Fatalf("ListEvents: %v", err)
	}
	token := resp.GetNextPageToken()
	type request = sluicev1.ListEventsRequest
	badToken := sluicev1.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN
	badRequest := sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST
	tests := map[string]struct {
		req    *request
		reason sluicev1.ErrorReason
		field  string
	}{
		"page too large":             {&request{PageSize: 1001}, badRequest, "page_size"},
		"page negative":              {&request{PageSize: -1}, badRequest, "page_size"},
		"stop at the earliest":       {&request{Stop: earliest()}, badRequest, "stop.anchor"},
		"not a filter":               {&request{Filter: &sluicev1.EventFilter{Kinds: []string{"x"}}}, sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER, "filter.kinds[0]"},
		"not a token":                {&request{PageSize: 2, PageToken: "x"}, badToken, "page_token"},
		"token cut short":            {&request{PageSize: 2, PageToken: token[:len(token)-1]}, badToken, "page_token"},
		"token of another page size": {&request{PageSize: 3, PageToken: token}, badToken, "page_token"},
		"token of another filter":    {&request{PageSize: 2, PageToken: token, Filter: &sluicev1.EventFilter{Sources: []string{"x"}}}, badToken, "page_token"},
		"token of another order":     {&request{PageSize: 2, PageToken: token, NewestFirst: true}, badToken, "page_token"},
		"token of another start":     {&request{PageSize: 2, PageToken: token, Start: atSequence(1)}, badToken, "page_token"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := g.client.ListEvents(g.ctx, tt.req)
			wantError(t, err, codes.InvalidArgument, tt.reason, map[string]string{"field": tt.field})
		})
	}
	first.PageToken = token
	if resp, err = g.client.ListEvents(g.ctx, first); err != nil || !slices.Equal(sequences(resp.GetEvents()), upTo(3, 4)) {
		t.Errorf("second page = %v, %v", resp, err)
	}
}

// A page token outlives what retention removes after it.
func TestPagesGoOnWhereRetentionHasPassed(t *testing.T) {
	g := newGate(t, small)
	g.postTexts(10)
	req := &sluicev1.ListEventsRequest{PageSize: 2, Start: atSequence(1)}
	resp, err := g.client.ListEvents(g.ctx, req)
	if err != nil {
		t.Fatalf("ListEvents: %v", err)
	}
	for i := range 200 {
		g.post(large(i))
	}
	req.PageToken = resp.GetNextPageToken()
	if resp, err = g.client.ListEvents(g.ctx, req); err != nil || len(resp.GetEvents()) != 2 {
		t.Fatalf("ListEvents = %v, %v, want 2 events", resp, err)
	}
	if n := resp.GetEvents()[0].GetSequence(); n < 11 {
		t.Errorf("page goes on with %d, want an event that is held", n)
	}
}

func TestPageTokenRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sequence := rapid.Uint64().Draw(t, "sequence")
		token := pageToken(sequence, binding{1})
		if got, err := parsePageToken(token, binding{1}); err != nil || got != sequence {
			t.Fatalf("parsePageToken(pageToken(%d)) = %d, %v", sequence, got, err)
		}
		if _, err := parsePageToken(token, binding{2}); err == nil {
			t.Fatal("a token is taken for another request")
		}
		at := rapid.IntRange(0, len(token)-1).Draw(t, "at")
		bent := token[:at] + string(token[at]^1) + token[at+1:]
		if got, err := parsePageToken(bent, binding{1}); err == nil {
			t.Fatalf("a bent token is taken, for %d", got)
		}
	})
}

func BenchmarkListEvents(b *testing.B) {
	g := newGate(b, eventlog.LogConfig{})
	fill(b, g, 20_000)
	for _, newest := range []bool{false, true} {
		b.Run(fmt.Sprintf("newest_first=%v", newest), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{NewestFirst: newest})
				if err != nil || len(resp.GetEvents()) != 100 {
					b.Fatalf("ListEvents: %d events, %v", len(resp.GetEvents()), err)
				}
			}
		})
	}
}
