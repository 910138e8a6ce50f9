package schedule_test

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// check compares what the scheduler says of itself.
func (m *model) check(s *schedule.Scheduler) error {
	var want schedule.Status
	var letters, waits []uint64
	first := uint64(math.MaxUint64)
	held := 0
	for _, e := range m.events {
		if e.state == settled {
			continue
		}
		held++
		switch {
		case m.isLetter(e):
			want.DeadLetters++
			letters = append(letters, e.Sequence)
		case e.state == out:
			want.Outstanding++
		default:
			want.Waiting++
			waits = append(waits, e.Sequence)
		}
		if e.state != dead && m.chats[m.key(e)].state != schedule.Diverted || e.state == out {
			if e.place < first {
				first, want.OldestSequence, want.OldestTime = e.place, e.Sequence, time.Unix(0, e.received)
			}
		}
	}
	for _, c := range m.chats {
		if c.state > schedule.Retrying {
			want.Stopped++
		}
		if c.state > schedule.Retrying || c.state == schedule.Retrying && c.until > m.now {
			want.Troubled++
		}
	}
	if got := s.Status(); got != want {
		return fmt.Errorf("Status() = %+v, want %+v\n%v", got, want, m)
	}
	slices.Sort(letters)
	slices.Sort(waits)
	var got []uint64
	for _, l := range s.DeadLetters(0, math.MaxInt, nil) {
		e := m.find(l.Sequence)
		if e == nil || (l.Failure == nil) != (e.failure == nil) || e.failure != nil && *l.Failure != *e.failure {
			return fmt.Errorf("dead letter %+v", l)
		}
		got = append(got, l.Sequence)
	}
	if !slices.Equal(got, letters) {
		return fmt.Errorf("DeadLetters() = %v, want %v", got, letters)
	}
	if got := s.Waiting(); !slices.Equal(got, waits) {
		return fmt.Errorf("Waiting() = %v, want %v", got, waits)
	}
	if got := len(s.TroubledChats(math.MaxInt)); got != want.Troubled {
		return fmt.Errorf("TroubledChats() has %d, want %d", got, want.Troubled)
	}
	if skipped, anyway := s.SeekCount(m.position, nil); skipped+anyway != want.Waiting+want.Outstanding {
		return fmt.Errorf("SeekCount() = %d, %d, want a sum of %d", skipped, anyway, want.Waiting+want.Outstanding)
	}
	for id, l := range m.leases {
		if got := s.Until(id); got.UnixNano() != l.until || !slices.Contains(s.Leases(l.member), id) {
			return fmt.Errorf("Until(%d) = %v, want %v, of %s", id, got, time.Unix(0, l.until), l.member)
		}
	}
	for _, got := range s.Members() {
		mb := m.members[got.Name]
		if got.Connected != mb.connected || got.Credits != mb.credits || got.Events != m.held(got.Name).Events {
			return fmt.Errorf("member %+v, want %+v", got, mb)
		}
	}
	if got := s.Full(); got != (held >= m.cfg.Limits.MaxPending) {
		return fmt.Errorf("Full() = %v with %d events", got, held)
	}
	if s.Position() != m.position {
		return fmt.Errorf("Position() = %d, want %d", s.Position(), m.position)
	}
	return nil
}
