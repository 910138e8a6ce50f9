package schedule_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// show prints what a Flush lets out.
func show(out *schedule.Output) {
	for _, r := range out.Revoked {
		fmt.Printf("%s loses lease %d\n", r.Member, r.Lease)
	}
	for _, d := range out.Deliveries {
		fmt.Printf("%s gets %v as lease %d, attempt %d, fence %d\n", d.Member, d.Sequences, d.Lease, d.Attempt, d.Fence)
	}
}

func Example() {
	cfg := plain()
	cfg.Limits.MaxPerChat = 2
	now := time.Unix(1_700_000_000, 0)
	s := schedule.New(cfg, 0, 1)
	s.Start(now)

	chat := schedule.ChatID("acme/chat-1")
	for sequence := uint64(1); sequence <= 3; sequence++ {
		s.Append(schedule.Event{Sequence: sequence, Chat: chat, Received: now, Size: 100})
	}
	s.Join("ann", 15*time.Second)
	s.Grant("ann", schedule.Credits{Events: 10, Bytes: 1 << 20})
	show(s.Flush()) // the journal is stored before anybody is told

	s.Settle(2, schedule.Verdict{Kind: schedule.Ack}) // the second before the first
	s.Settle(1, schedule.Verdict{Kind: schedule.Nack, Reason: "database is down"})
	show(s.Flush()) // nothing: the chat waits for its retry

	s.Tick(now.Add(cfg.Retry.Backoff[0]))
	show(s.Flush())
	fmt.Println(s.Settle(1, schedule.Verdict{Kind: schedule.Ack}) == schedule.LeaseLost)

	// Output:
	// ann gets [1] as lease 1, attempt 1, fence 1
	// ann gets [2] as lease 2, attempt 1, fence 1
	// ann gets [1] as lease 3, attempt 2, fence 3
	// ann gets [3] as lease 4, attempt 1, fence 3
	// true
}

// TestReplayAfterRetention replays a journal over a log that has lost its
// beginning meanwhile: what is gone stays away, and the rest is as it was.
func TestReplayAfterRetention(t *testing.T) {
	s := group(plain())
	feed(s, 0, 10, 5) // chats 1 2 3 4 0 1 2 3 4 0
	first := s.Flush()
	s.Settle(first.Deliveries[1].Lease, schedule.Verdict{Kind: schedule.Ack})  // 2
	s.Settle(first.Deliveries[2].Lease, schedule.Verdict{Kind: schedule.Nack}) // 3
	batches := [][]byte{slices.Clone(first.Journal), slices.Clone(s.Flush().Journal)}

	restored := schedule.New(plain(), 0, 1)
	for _, batch := range batches {
		err := restored.Replay(batch, func(upTo uint64) error {
			feed(restored, 3, int(upTo)-3, 5) // 1 to 3 are gone
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	restored.Start(epoch)
	// 4 and 5 are out, as before; 7, which followed 2, went out when 2 was acked.
	if got, want := restored.Waiting(), []uint64{6, 8, 9, 10}; !slices.Equal(got, want) {
		t.Errorf("Waiting() = %v, want %v", got, want)
	}
	if got := restored.Status().Outstanding; got != 3 {
		t.Errorf("%d events are out, want 4, 5 and 7", got)
	}
	// Leases on what is gone were issued all the same: their numbers do not
	// come again.
	restored.Grant("late", schedule.Credits{Events: 1, Bytes: 1})
	out := restored.Flush()
	if len(out.Deliveries) != 1 || out.Deliveries[0].Lease != 7 || out.Deliveries[0].Sequences[0] != 6 {
		t.Errorf("next delivery is %+v, want 6 as lease 7", out.Deliveries)
	}
}

// TestReplayError returns what read returned, and refuses what is no journal.
func TestReplayError(t *testing.T) {
	s := group(plain())
	feed(s, 0, 1, 1)
	batch := slices.Clone(s.Flush().Journal)
	broken := errors.New("broken")
	if err := schedule.New(plain(), 0, 1).Replay(batch, func(uint64) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Replay = %v, want the error of read", err)
	}
	for name, batch := range map[string][]byte{
		"cut off":           batch[:len(batch)-1],
		"unknown operation": {0xff},
		"zeros":             make([]byte, 8),
	} {
		s := schedule.New(plain(), 0, 1)
		err := s.Replay(batch, func(upTo uint64) error { feed(s, s.Position(), int(upTo-s.Position()), 1); return nil })
		if !errors.Is(err, schedule.ErrCorrupt) {
			t.Errorf("%s: Replay = %v, want ErrCorrupt", name, err)
		}
	}
}

// TestOutputStaysValid keeps an Output while the next one is made.
func TestOutputStaysValid(t *testing.T) {
	s := group(plain())
	last := feed(s, 0, 100, 100)
	out := s.Flush()
	journal, sequences := slices.Clone(out.Journal), slices.Clone(out.Deliveries[0].Sequences)
	for i := range out.Deliveries {
		s.Settle(out.Deliveries[i].Lease, schedule.Verdict{Kind: schedule.Ack})
	}
	feed(s, last, 100, 100)
	if !bytes.Equal(out.Journal, journal) || !slices.Equal(out.Deliveries[0].Sequences, sequences) {
		t.Error("the Output has changed before the next Flush")
	}
}

// TestEndingsAreBounded fails more leases than are remembered: the newest are
// still told apart, the oldest are unknown.
func TestEndingsAreBounded(t *testing.T) {
	cfg := plain()
	cfg.Retry.Backoff, cfg.Retry.MaxAttempts = nil, 0
	s := group(cfg)
	feed(s, 0, 1, 1)
	nack, ack := schedule.Verdict{Kind: schedule.Nack}, schedule.Verdict{Kind: schedule.Ack}
	var lease uint64
	for range 70_000 {
		lease = s.Flush().Deliveries[0].Lease
		s.Settle(lease, nack)
	}
	for _, want := range []struct {
		lease   uint64
		verdict schedule.Verdict
		outcome schedule.Outcome
	}{
		{1, nack, schedule.UnknownLease},
		{lease, nack, schedule.AlreadyDone},
		{lease, ack, schedule.LeaseLost},
		{lease - 60_000, ack, schedule.LeaseLost},
		{lease + 1, ack, schedule.UnknownLease},
	} {
		if got := s.Settle(want.lease, want.verdict); got != want.outcome {
			t.Errorf("Settle(%d, %v) = %d, want %d", want.lease, want.verdict.Kind, got, want.outcome)
		}
	}
	if n := len(s.Snapshot()); n > 300_000 {
		t.Errorf("the snapshot has %d bytes", n)
	}
}

// TestReasonIsCut keeps the beginning of a long reason, in whole characters.
func TestReasonIsCut(t *testing.T) {
	s := group(plain())
	feed(s, 0, 1, 1)
	lease := s.Flush().Deliveries[0].Lease
	s.Settle(lease, schedule.Verdict{Kind: schedule.Park, Reason: strings.Repeat("客", 1000)})
	got := s.DeadLetters(0, 1, nil)[0].Failure.Reason
	if len(got) != 255 || !utf8.ValidString(got) {
		t.Errorf("the reason has %d bytes, valid %v; want 85 characters", len(got), utf8.ValidString(got))
	}
}

// TestRefusals has one member after the other refuse a chat: each gets it once,
// up to as many as are remembered, and then nobody before the first refusal is
// over.
func TestRefusals(t *testing.T) {
	for members, want := range map[int]int{1: 1, 2: 2, 3: 3, 40: 32} {
		s := schedule.New(plain(), 0, 1)
		s.Start(epoch)
		feed(s, 0, 1, 1)
		for i := range members {
			s.Grant(fmt.Sprint("m", i), schedule.Credits{Events: 1, Bytes: 1 << 20})
		}
		got := map[string]bool{}
		now, out := epoch, s.Flush()
		for len(out.Deliveries) == 1 && len(got) <= want {
			d := out.Deliveries[0]
			if got[d.Member] {
				t.Errorf("%d members: %s gets the chat that it has refused", members, d.Member)
			}
			got[d.Member] = true
			s.Settle(d.Lease, schedule.Verdict{Kind: schedule.Release, NotMe: true})
			now = now.Add(time.Millisecond)
			s.Tick(now)
			out = s.Flush()
		}
		over := epoch.Add(plain().Lease.Duration)
		if len(got) != want || !out.Wake.Equal(over) {
			t.Errorf("%d members: %d got the chat, and it wakes at %v, want %d and %v", members, len(got), out.Wake, want, over)
		}
		s.Tick(over)
		if out := s.Flush(); len(out.Deliveries) != 1 {
			t.Errorf("%d members: nobody gets the chat when the first refusal is over", members)
		}
	}
}

// TestLimitsReached names what holds a group back.
func TestLimitsReached(t *testing.T) {
	cfg := plain()
	cfg.Limits.MaxOutstanding, cfg.Limits.MaxPending = 2, 3
	s := group(cfg)
	if got := s.LimitsReached(); got != nil {
		t.Errorf("LimitsReached() = %v before anything happens", got)
	}
	feed(s, 0, 3, 3)
	s.Flush()
	if got, want := s.LimitsReached(), []string{"max_outstanding_events", "max_pending_events"}; !slices.Equal(got, want) {
		t.Errorf("LimitsReached() = %v, want %v", got, want)
	}
}

// seedBatches are journals that hold every operation.
func seedBatches() [][]byte {
	cfg := plain()
	cfg.Turn.Quiet = time.Second
	cfg.Retry.MaxAttempts = 1
	s := group(cfg)
	now := epoch
	var batches [][]byte
	flush := func(d time.Duration) *schedule.Output {
		now = now.Add(d)
		s.Tick(now)
		out := s.Flush()
		batches = append(batches, slices.Clone(out.Journal))
		return out
	}
	feed(s, 0, 40, 4)
	for i, d := range flush(time.Minute).Deliveries {
		kinds := []schedule.VerdictKind{schedule.Ack, schedule.Nack, schedule.Release, schedule.Extend}
		s.Settle(d.Lease, schedule.Verdict{Kind: kinds[i%len(kinds)], Reason: "no", NotMe: true})
	}
	flush(0)
	s.Redrive(schedule.Selection{Sequences: []uint64{2, 6}}, 5, false)
	flush(-time.Hour)
	s.Discard(schedule.Selection{All: true}, false)
	s.Drop([]uint64{3})
	s.SeekChats([]uint64{0}, 4, []schedule.Event{{Sequence: 4, Received: now}})
	s.Truncate(3)
	flush(0)
	cfg.Order = schedule.Total
	s.Configure(cfg)
	s.Seek(5)
	flush(time.Hour)
	return append(batches, s.Snapshot())
}

// FuzzReplay replays anything: it is taken or refused, and what is taken can be
// gone on with.
func FuzzReplay(f *testing.F) {
	seeds := seedBatches()
	for _, batch := range seeds[:len(seeds)-1] {
		f.Add(batch)
	}
	f.Add(bytes.Join(seeds[:len(seeds)-1], nil))
	f.Fuzz(func(t *testing.T, batch []byte) {
		s := schedule.New(plain(), 0, 1)
		err := s.Replay(batch, func(upTo uint64) error {
			feed(s, s.Position(), int(min(upTo-s.Position(), 100)), 4)
			return nil
		})
		if err != nil {
			if !errors.Is(err, schedule.ErrCorrupt) {
				t.Fatalf("Replay = %v, want ErrCorrupt", err)
			}
			return
		}
		goOn(t, s)
	})
}

// FuzzRestore restores anything, with its checksum made right: it is taken or
// refused. What is taken need not make sense then, so it is not gone on with.
func FuzzRestore(f *testing.F) {
	seeds := seedBatches()
	f.Add(seeds[len(seeds)-1])
	s := group(plain())
	feed(s, 0, 20, 4)
	s.Flush()
	f.Add(s.Snapshot())
	f.Fuzz(func(t *testing.T, snapshot []byte) {
		s, err := schedule.Restore(withChecksum(snapshot))
		if err != nil {
			if !errors.Is(err, schedule.ErrCorrupt) {
				t.Fatalf("Restore = %v, want ErrCorrupt", err)
			}
			return
		}
		s.Snapshot()
		s.Status()
	})
}

// withChecksum returns a snapshot whose last four bytes are right.
func withChecksum(snapshot []byte) []byte {
	body := snapshot[:max(0, len(snapshot)-4)]
	return binary.LittleEndian.AppendUint32(slices.Clone(body), crc32.ChecksumIEEE(body))
}

// goOn lets a scheduler that was restored work for a while. It need not make
// sense, but it must not fail, and what it saves must be restored as it was.
func goOn(t *testing.T, s *schedule.Scheduler) {
	t.Helper()
	s.Start(epoch)
	s.Grant("ann", schedule.Credits{Events: 100, Bytes: 1 << 20})
	for i := range 3 {
		s.Tick(epoch.Add(time.Duration(i) * time.Minute))
		for j, d := range s.Flush().Deliveries {
			s.Settle(d.Lease, schedule.Verdict{Kind: schedule.VerdictKind(1 + j%5)})
		}
	}
	s.Status()
	s.TroubledChats(10)
	s.DeadLetters(0, 10, nil)
	snapshot := s.Snapshot()
	again, err := schedule.Restore(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Snapshot(), snapshot) {
		t.Fatal("the state changes by being saved and restored")
	}
}
