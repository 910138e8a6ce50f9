package schedule_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// plain is a configuration as a service would fill it in.
func plain() schedule.Config {
	return schedule.Config{
		Lease: schedule.Lease{Duration: 30 * time.Second, MaxTotal: time.Hour, ReconnectGrace: 10 * time.Second},
		Retry: schedule.Retry{Backoff: []time.Duration{time.Second, 5 * time.Second}, MaxAttempts: 5},
		Turn:  schedule.Turn{MaxEvents: 100, MaxBytes: 3 << 20},
		Limits: schedule.Limits{
			MaxOutstanding: 10_000, MaxPerChat: 1, MaxBlockedChats: 1000, MaxDeadLetters: 100_000, MaxPending: 10_000_000,
		},
	}
}

var epoch = time.Unix(1_700_000_000, 0)

// group returns a group with eight members that take a lot.
func group(cfg schedule.Config) *schedule.Scheduler {
	s := schedule.New(cfg, 0, 1)
	s.Start(epoch)
	for i := range 8 {
		name := fmt.Sprintf("worker-%d", i)
		s.Join(name, 0)
		s.Grant(name, schedule.Credits{Events: 100, Bytes: 16 << 20})
	}
	return s
}

// feed appends n events over some chats, and returns the last sequence.
func feed(s *schedule.Scheduler, last uint64, n, chats int) uint64 {
	for range n {
		last++
		s.Append(schedule.Event{
			Sequence: last, Chat: last % uint64(chats) * 0x9E3779B97F4A7C15,
			Received: epoch.Add(time.Duration(last) * time.Microsecond), Size: 1000,
		})
	}
	return last
}

// run appends, hands out and acks n events in batches such as a service makes,
// and returns how many bytes of journal that took. A lease that skip selects is
// left alone.
func run(s *schedule.Scheduler, from uint64, n, chats int, skip func(*schedule.Delivery) bool) (journal int) {
	last := from
	for now, done := epoch, 0; done < n; {
		now = now.Add(time.Millisecond)
		s.Tick(now)
		if last < from+uint64(n) {
			last = feed(s, last, min(64, int(from)+n-int(last)), chats)
		}
		out := s.Flush()
		journal += len(out.Journal)
		settled := 0
		for i := range out.Deliveries {
			d := &out.Deliveries[i]
			if skip != nil && skip(d) {
				continue
			}
			s.Settle(d.Lease, schedule.Verdict{Kind: schedule.Ack})
			settled++
		}
		done += settled
		if settled == 0 && last == from+uint64(n) {
			break // what is left belongs to what was skipped
		}
	}
	return journal
}

// BenchmarkSettle appends, hands out and acks one event an iteration.
func BenchmarkSettle(b *testing.B) {
	for _, chats := range []int{1, 10_000} {
		for _, order := range []schedule.Order{schedule.ByChat, schedule.None} {
			b.Run(fmt.Sprintf("chats=%d/order=%d", chats, order), func(b *testing.B) {
				cfg := plain()
				cfg.Order = order
				s := group(cfg)
				b.ReportAllocs()
				journal := run(s, 0, b.N, chats, nil)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
				b.ReportMetric(float64(journal)/float64(b.N), "journal-B/event")
			})
		}
	}
}

// BenchmarkStuckChat is BenchmarkSettle with one chat of 10,000 whose first
// event is never settled.
func BenchmarkStuckChat(b *testing.B) {
	for _, stuck := range []bool{false, true} {
		b.Run(fmt.Sprintf("stuck=%v", stuck), func(b *testing.B) {
			s := group(plain())
			run(s, 0, b.N, 10_000, func(d *schedule.Delivery) bool { return stuck && d.Sequences[0] == 1 })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// pending returns a group with a million events that nobody takes, and how many
// bytes of heap each takes.
func pending(order schedule.Order, chats int) (*schedule.Scheduler, float64) {
	const n = 1_000_000
	before := heap()
	cfg := plain()
	cfg.Order = order
	s := schedule.New(cfg, 0, 1)
	s.Start(epoch)
	feed(s, 0, n, chats)
	return s, float64(heap()-before) / n
}

// TestMemory holds the promise that a pending event takes 64 bytes at most, in
// however many chats they are.
func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		order schedule.Order
		chats int
	}{
		{schedule.ByChat, 1},
		{schedule.ByChat, 110_000},
		{schedule.ByChat, 500_000},
		{schedule.ByChat, 800_000},
		{schedule.ByChat, 1_000_000},
		{schedule.None, 1},
	} {
		s, size := pending(tt.order, tt.chats)
		if size > 64 {
			t.Errorf("order %d, %d chats: %.1f bytes an event, want 64 at most", tt.order, tt.chats, size)
		}
		runtime.KeepAlive(s)
	}
}

// BenchmarkPending holds a million events that nobody takes.
func BenchmarkPending(b *testing.B) {
	const n = 1_000_000
	for _, bc := range []struct {
		order schedule.Order
		chats int
	}{{schedule.ByChat, 10_000}, {schedule.ByChat, n / 2}, {schedule.ByChat, n}, {schedule.None, n}} {
		b.Run(fmt.Sprintf("chats=%d/order=%d", bc.chats, bc.order), func(b *testing.B) {
			for b.Loop() {
				s, size := pending(bc.order, bc.chats)
				b.ReportMetric(size, "B/event")
				start := time.Now()
				snapshot := s.Snapshot()
				b.ReportMetric(float64(time.Since(start).Milliseconds()), "snapshot-ms")
				b.ReportMetric(float64(len(snapshot))/n, "snapshot-B/event")
				start = time.Now()
				restored, err := schedule.Restore(snapshot)
				if err != nil {
					b.Fatal(err)
				}
				restored.Start(epoch)
				b.ReportMetric(float64(time.Since(start).Milliseconds()), "restore-ms")
				runtime.KeepAlive(s)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkReplay repeats the journal of a million events that were handed out
// and acked, as after a crash without any snapshot.
func BenchmarkReplay(b *testing.B) {
	const n, chats = 1_000_000, 10_000
	s := group(plain())
	var batches [][]byte
	var last uint64
	for last < n {
		last = feed(s, last, 64, chats)
		out := s.Flush()
		batches = append(batches, append([]byte(nil), out.Journal...))
		for _, d := range out.Deliveries {
			s.Settle(d.Lease, schedule.Verdict{Kind: schedule.Ack})
		}
	}
	for b.Loop() {
		s := schedule.New(plain(), 0, 1)
		for _, batch := range batches {
			err := s.Replay(batch, func(upTo uint64) error {
				feed(s, s.Position(), int(upTo-s.Position()), chats)
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		if s.Position() != last {
			b.Fatalf("replayed up to %d, want %d", s.Position(), last)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkStatus asks how a group stands in which events wait, and one has been
// settled since the last time; and says that retention has removed nothing of them.
func BenchmarkStatus(b *testing.B) {
	for _, chats := range []int{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("chats=%d", chats), func(b *testing.B) {
			s := schedule.New(plain(), 0, 1)
			s.Start(epoch)
			s.Grant("ann", schedule.Credits{Events: 1, Bytes: 1})
			last := feed(s, 0, chats, chats)
			b.ReportAllocs()
			for b.Loop() {
				last = feed(s, last, 1, chats)
				for _, d := range s.Flush().Deliveries {
					s.Settle(d.Lease, schedule.Verdict{Kind: schedule.Ack})
				}
				s.Status()
				s.Truncate(s.Status().OldestSequence)
			}
		})
	}
}
