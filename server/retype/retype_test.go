package retype_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// received is when the old events came.
var received = &timestamppb.Timestamp{Seconds: 1_700_000_000}

// body is the n-th message of a chat.
func body(n int, text string) string {
	return fmt.Sprintf(`{"data":{"messageId":"m-%d","chatId":"c","botId":"b","type":7,"payload":{"text":%q}}}`, n, text)
}

// old is an event with that body as a decoder that knew no messages has typed
// it.
func old(n int, text string) *sluicev1.Event {
	return &sluicev1.Event{
		Source: "default", Path: "/message", Key: fmt.Sprint("default/old-key-", n), ChatKey: "default/old-chat",
		ReceiveTime: received, Raw: []byte(body(n, text)),
		Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{Path: "/message"}},
	}
}

// history is a gateway whose log begins with the given events, in order.
func history(t *testing.T, events ...*sluicev1.Event) *servertest.Server {
	t.Helper()
	srv := servertest.Start(t)
	srv.Stop()
	engine, err := local.Open(t.Context(), local.Config{Dir: srv.Config.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	l, err := engine.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS", DedupeWindow: srv.Config.DedupeWindow})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		data, err := record.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), eventlog.Record{Subject: record.Subject(e), Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := engine.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv.Restart()
	return srv
}

// retype runs the call to its end.
func retype(t *testing.T, srv *servertest.Server, req *sluicev1.RetypeEventsRequest) ([]*sluicev1.RetypedEvent, *sluicev1.RetypeSummary) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if req.GetStart() == nil {
		req.Start = client.Earliest()
	}
	stream, err := sluicev1.NewEventServiceClient(srv.Conn()).RetypeEvents(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	var events []*sluicev1.RetypedEvent
	var summary *sluicev1.RetypeSummary
	for {
		frame, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return events, summary
		case err != nil:
			t.Fatal(err)
		case summary != nil:
			t.Errorf("%v comes after the summary", frame)
		case frame.GetEvent() != nil:
			events = append(events, frame.GetEvent())
		default:
			summary = frame.GetSummary()
		}
	}
}

// stored returns all events of the log.
func stored(t *testing.T, srv *servertest.Server) []*sluicev1.Event {
	t.Helper()
	var all []*sluicev1.Event
	for e, err := range client.New(srv.Conn()).ListEvents(t.Context(), &sluicev1.ListEventsRequest{IncludeRaw: true}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func wantSummary(t *testing.T, got, want *sluicev1.RetypeSummary) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

// TestRetype runs over a history in which each case stands once: first dry, then
// in earnest, then again, and again beyond the dedupe window's reach.
func TestRetype(t *testing.T) {
	same := old(2, "same")
	same.Body, same.Dialect = callback.Decode(same.GetRaw()).GetEvents()[0].GetBody(), sluicev1.Dialect_DIALECT_GROUP
	typed := old(3, "typed")
	typed.Raw = nil
	first, revision := old(4, "without URL"), old(4, "with URL")
	revision.RevisionOf = 4
	ahead := old(5, "by a newer decoder")
	ahead.DecoderVersion = callback.Version + 1
	srv := history(t, old(1, "hello"), same, typed, first, revision, ahead)
	srv.MustPost("/", body(6, "today")) // 7
	before := stored(t, srv)

	events, summary := retype(t, srv, &sluicev1.RetypeEventsRequest{DryRun: true})
	wantSummary(t, summary, &sluicev1.RetypeSummary{Read: 7, Changed: 2, Unchanged: 1, Current: 2, Superseded: 1, Undecodable: 1})
	want := &sluicev1.RetypedEvent{Sequence: 1, Changes: []*sluicev1.FieldChange{
		{Path: "dialect", After: "DIALECT_GROUP"},
		{Path: "message.message_id", After: "m-1"},
		{Path: "message.chat_id", After: "c"},
		{Path: "message.bot.id", After: "b"},
		{Path: "message.type", After: "MESSAGE_TYPE_TEXT"},
		{Path: "message.text.text", After: "hello"},
		{Path: "other.path", Before: "/message"},
	}}
	if len(events) != 2 || events[1].GetSequence() != 5 {
		t.Fatalf("changed: %v, want events 1 and 5", events)
	}
	if diff := cmp.Diff(want, events[0], protocmp.Transform()); diff != "" {
		t.Errorf("change (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, stored(t, srv), protocmp.Transform()); diff != "" {
		t.Errorf("a dry run changed the log:\n%s", diff)
	}

	events, summary = retype(t, srv, &sluicev1.RetypeEventsRequest{})
	wantSummary(t, summary, &sluicev1.RetypeSummary{Read: 7, Changed: 2, Unchanged: 1, Current: 2, Superseded: 1, Undecodable: 1})
	if len(events) != 2 || events[0].GetRevisionSequence() != 8 || events[1].GetRevisionSequence() != 9 {
		t.Fatalf("changed: %v, want the revisions 8 and 9", events)
	}
	after := stored(t, srv)
	if diff := cmp.Diff(before, after[:7], protocmp.Transform()); diff != "" {
		t.Errorf("old events changed:\n%s", diff)
	}
	revised := callback.Decode([]byte(body(1, "hello"))).GetEvents()[0]
	proto.Merge(revised, &sluicev1.Event{
		Sequence: 8, Cursor: after[7].GetCursor(), Source: "default", Path: "/message", Key: "default/old-key-1", RevisionOf: 1,
		ReceiveTime: received, ChatKey: "default/c", DecoderVersion: callback.Version,
	})
	if diff := cmp.Diff(revised, after[7], protocmp.Transform()); diff != "" {
		t.Errorf("revision (-want +got):\n%s", diff)
	}
	if got := after[8]; got.GetRevisionOf() != 4 || got.GetMessage().GetText().GetText() != "with URL" {
		t.Errorf("the revision of a revision is %v", got)
	}

	for range 2 {
		_, summary = retype(t, srv, &sluicev1.RetypeEventsRequest{})
		wantSummary(t, summary, &sluicev1.RetypeSummary{Read: 9, Unchanged: 1, Current: 4, Superseded: 3, Undecodable: 1})
		if n := len(stored(t, srv)); n != 9 {
			t.Errorf("%d events after another run, want 9", n)
		}
		srv.Restart()
	}
}

// TestRetypeOfAPart asks for less than the whole log.
func TestRetypeOfAPart(t *testing.T) {
	elsewhere := old(3, "c")
	elsewhere.Source = "elsewhere"
	srv := history(t, old(1, "a"), old(2, "b"), elsewhere, old(4, "d"))
	events, summary := retype(t, srv, &sluicev1.RetypeEventsRequest{
		Start: client.Sequence(2), Stop: client.Sequence(3),
		Filter: &sluicev1.EventFilter{Sources: []string{"default"}}, DryRun: true,
	})
	wantSummary(t, summary, &sluicev1.RetypeSummary{Read: 1, Changed: 1})
	if len(events) != 1 || events[0].GetSequence() != 2 {
		t.Errorf("changed: %v, want event 2", events)
	}
}

// TestRetypeTellsWithinBounds has an event with more changes than a frame tells
// of.
func TestRetypeTellsWithinBounds(t *testing.T) {
	e := old(1, "a")
	e.Unmapped = &structpb.Struct{Fields: make(map[string]*structpb.Value)}
	for n := range 300 {
		e.Unmapped.Fields[fmt.Sprint(n)] = structpb.NewBoolValue(true)
	}
	events, _ := retype(t, history(t, e), &sluicev1.RetypeEventsRequest{DryRun: true})
	if len(events) != 1 || len(events[0].GetChanges()) != 200 || events[0].GetChangesLeftOff() != 300+7-200 {
		t.Errorf("%d changes, %d left off, want 200 and 107", len(events[0].GetChanges()), events[0].GetChangesLeftOff())
	}
}

func TestRetypeRefused(t *testing.T) {
	srv := servertest.Start(t)
	for name, req := range map[string]*sluicev1.RetypeEventsRequest{
		"no start": {},
		"filter":   {Start: client.Earliest(), Filter: &sluicev1.EventFilter{Kinds: []string{"nonsense"}}},
		"stop":     {Start: client.Earliest(), Stop: client.Earliest()},
	} {
		stream, err := sluicev1.NewEventServiceClient(srv.Conn()).RetypeEvents(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want INVALID_ARGUMENT", name, err)
		}
	}
}
