package subscription

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/natstest"
)

// A storage that is gone for a while is waited for, with heartbeats, and nothing
// is lost or comes twice. Who comes meanwhile is told, and does not hang.
func TestOutageOfTheStorageIsWaitedOut(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	link := natstest.Start(t).Link(t)
	g := (&gate{tb: t, url: link.URL}).start(eventlog.LogConfig{})
	s := g.subscribe(&sluicev1.SubscribeRequest{HeartbeatInterval: durationpb.New(time.Second)})
	s.opened()
	s.caughtUp()
	const posts = 200
	for i := range posts { // more than is on the way or kept in memory
		g.post(large(i))
	}
	link.Cut()

	var got []uint64
	for checkpoints := 0; checkpoints < 2; {
		frame := s.next()
		got = append(got, sequences(frame.GetEvents().GetEvents())...)
		if c := frame.GetCheckpoint(); c != nil {
			if checkpoints++; c.GetCaughtUp() || c.GetSequence() != uint64(len(got)) {
				t.Errorf("heartbeat = %v after event %d", c, len(got))
			}
		}
	}
	if len(got) == posts {
		t.Fatal("everything was read: the test shows nothing")
	}
	unavailable := sluicev1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE
	_, err := g.client.ListEvents(g.ctx, &sluicev1.ListEventsRequest{})
	wantError(t, err, codes.Unavailable, unavailable, nil)
	_, err = g.client.GetEvent(g.ctx, &sluicev1.GetEventRequest{Sequence: 1})
	wantError(t, err, codes.Unavailable, unavailable, nil)

	link.Heal()
	for len(got) < posts {
		got = append(got, sequences(s.next().GetEvents().GetEvents())...)
	}
	if !slices.Equal(got, upTo(1, posts)) {
		t.Errorf("got %v", got)
	}
}
