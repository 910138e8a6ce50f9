package schedule_test

import (
	"slices"
	"testing"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// TestDamageWhileReplaying replays a journal over a log that cannot read events
// any more which it could: what the journal says of them holds, and all others
// become dead letters.
func TestDamageWhileReplaying(t *testing.T) {
	s := group(plain())
	feed(s, 0, 10, 5) // chats 1 2 3 4 0 1 2 3 4 0
	first := s.Flush()
	s.Settle(first.Deliveries[1].Lease, schedule.Verdict{Kind: schedule.Ack}) // 2
	batches := [][]byte{slices.Clone(first.Journal), slices.Clone(s.Flush().Journal)}

	restored := schedule.New(plain(), 0, 1)
	for _, batch := range batches {
		err := restored.Replay(batch, func(upTo uint64) error {
			if n := restored.Damage(1, 3); n != 3 {
				t.Errorf("Damage() = %d, want 3", n)
			}
			feed(restored, 3, int(upTo)-4, 5)
			restored.Damage(upTo, upTo)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	restored.Start(epoch)
	// 2 was acked, and 7 behind it is out, with 1, 3, 4 and 5; 10 was not handed out.
	if got := restored.Status().Outstanding; got != 5 {
		t.Errorf("%d events are out, want 1, 3, 4, 5 and 7", got)
	}
	letters := restored.DeadLetters(0, 10, nil)
	if len(letters) != 1 || letters[0].Sequence != 10 || letters[0].Failure.Cause != schedule.Damaged {
		t.Errorf("dead letters are %+v, want event 10", letters)
	}
	if got, want := restored.Waiting(), []uint64{6, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("Waiting() = %v, want %v", got, want)
	}
	// A restart that can read them again repeats what this one has stored.
	again, err := schedule.Restore(restored.Snapshot())
	if err != nil || len(again.DeadLetters(0, 10, nil)) != 1 {
		t.Errorf("Restore() = %v, want one dead letter", err)
	}
}

// TestDamageIsBounded holds that one step takes no more than it says, and that
// large ranges come in parts.
func TestDamageIsBounded(t *testing.T) {
	s := group(plain())
	for _, r := range [][2]uint64{{0, 0}, {2, 1}, {1, schedule.MaxDamage + 1}} {
		if n := s.Damage(r[0], r[1]); n != 0 || s.Position() != 0 {
			t.Errorf("Damage(%d, %d) = %d", r[0], r[1], n)
		}
	}
	const all = 10 * schedule.MaxDamage
	for n := uint64(0); n < all; n += schedule.MaxDamage {
		s.Damage(n+1, n+schedule.MaxDamage)
	}
	if got := len(s.Unread(schedule.Selection{All: true})); got != all || s.Position() != all {
		t.Errorf("%d dead letters, read up to %d, want %d", got, s.Position(), all)
	}
	if n := len(s.Flush().Journal); n > 1000 {
		t.Errorf("that takes %d bytes of journal", n)
	}
	if n := s.Discard(schedule.Selection{All: true}, false); n.Events != all || n.Chats != 0 {
		t.Errorf("Discard() = %+v, want %d of no chat", n, all)
	}
}
