package group

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/subscription"
)

const (
	maxName     = 64
	maxMember   = 128
	maxBackoffs = 32

	// maxTurnBytes bounds a turn, so that it fits into a message.
	maxTurnBytes = 2 << 20

	day = 24 * time.Hour
)

// validName says whether a group can have that name.
func validName(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= maxName
}

// newIncarnation returns a number that no other group has.
func newIncarnation() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// complete checks the configuration of a group and returns it with all defaults
// filled in. The errors name fields as in "consumer_group.lease.duration".
func complete(in *sluicev1.ConsumerGroup) (*sluicev1.ConsumerGroup, error) {
	g := proto.CloneOf(in)
	if _, err := subscription.Compile(g.GetFilter()); err != nil {
		return nil, err
	}
	var f filler
	enum(&f, &g.Order, sluicev1.Order_ORDER_CHAT, sluicev1.Order_ORDER_TOTAL, "order")

	g.Lease = orNew(g.GetLease())
	l := g.Lease
	l.Duration = f.duration(l.Duration, 30*time.Second, 100*time.Millisecond, 12*time.Hour, "lease.duration")
	l.MaxTotal = f.duration(l.MaxTotal, defaultMaxTotal(l), l.Duration.AsDuration(), day, "lease.max_total")
	l.ReconnectGrace = f.duration(l.ReconnectGrace, 10*time.Second, 0, 12*time.Hour, "lease.reconnect_grace")

	g.Retry = orNew(g.GetRetry())
	r := g.Retry
	if len(r.GetBackoff()) == 0 {
		for _, d := range []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute} {
			r.Backoff = append(r.Backoff, durationpb.New(d))
		}
	}
	if len(r.Backoff) > maxBackoffs {
		f.refuse("retry.backoff", "must not have more than %d values", maxBackoffs)
	}
	for i, d := range r.Backoff {
		r.Backoff[i] = f.duration(d, 0, 0, day, "retry.backoff")
	}
	if r.MaxAttempts == 0 {
		r.MaxAttempts = 5
	}
	if r.MaxAttempts < -1 {
		f.refuse("retry.max_attempts", "must be -1 or more")
	}
	enum(&f, &r.OnExhausted, sluicev1.OnExhausted_ON_EXHAUSTED_DEAD_LETTER_EVENT, sluicev1.OnExhausted_ON_EXHAUSTED_BLOCK_CHAT, "retry.on_exhausted")

	if t := g.GetTurn(); t != nil {
		t.Quiet = f.duration(t.Quiet, 0, 0, time.Hour, "turn.quiet")
		t.MaxWait = f.duration(t.MaxWait, defaultMaxWait(t), t.Quiet.AsDuration(), day, "turn.max_wait")
		f.count(&t.MaxEvents, 100, 1000, "turn.max_events")
		if t.Quiet.AsDuration() > 0 && g.Order != sluicev1.Order_ORDER_CHAT {
			f.refuse("turn.quiet", "needs ORDER_CHAT")
		}
	}
	g.Limits = orNew(g.GetLimits())
	m := g.Limits
	f.count(&m.MaxOutstandingEvents, 10_000, 1_000_000, "limits.max_outstanding_events")
	f.count(&m.MaxOutstandingPerChat, 1, 1000, "limits.max_outstanding_per_chat")
	f.count(&m.MaxEventsPerSecond, 0, math.MaxInt32, "limits.max_events_per_second")
	f.count(&m.MaxBlockedChats, 1000, 100_000, "limits.max_blocked_chats")
	f.count(&m.MaxDeadLetters, 100_000, 1_000_000, "limits.max_dead_letters")
	f.count(&m.MaxPendingEvents, 1_000_000, 10_000_000, "limits.max_pending_events")
	if f.err != nil {
		return nil, f.err
	}
	return g, nil
}

// defaultMaxTotal is lease.max_total where it is unset.
func defaultMaxTotal(l *sluicev1.LeasePolicy) time.Duration {
	return max(time.Hour, l.GetDuration().AsDuration())
}

// defaultMaxWait is turn.max_wait where it is unset.
func defaultMaxWait(t *sluicev1.TurnPolicy) time.Duration { return 10 * t.GetQuiet().AsDuration() }

func orNew[T any](m *T) *T {
	if m == nil {
		return new(T)
	}
	return m
}

// A filler fills in defaults, and keeps the first field that is out of range.
type filler struct{ err error }

func (f *filler) refuse(field, format string, args ...any) {
	if f.err == nil {
		f.err = apierror.InvalidField("consumer_group."+field, format, args...)
	}
}

func (f *filler) duration(d *durationpb.Duration, unset, least, most time.Duration, field string) *durationpb.Duration {
	if d == nil {
		return durationpb.New(unset)
	}
	if v := d.AsDuration(); d.CheckValid() != nil || v < least || v > most {
		f.refuse(field, "must be from %v to %v", least, most)
	}
	return d
}

func (f *filler) count(n *uint32, unset, most uint32, field string) {
	if *n == 0 {
		*n = unset
	}
	if *n > most {
		f.refuse(field, "must not be more than %d", most)
	}
}

// enum fills in first, which is the default, and refuses what is beyond last.
func enum[T ~int32](f *filler, v *T, first, last T, field string) {
	if *v == 0 {
		*v = first
	}
	if *v < first || *v > last {
		f.refuse(field, "is not one of the values")
	}
}

// scheduleConfig is what a scheduler is told of a complete configuration.
func scheduleConfig(g *sluicev1.ConsumerGroup) schedule.Config {
	cfg := schedule.Config{
		Order: schedule.Order(g.GetOrder() - sluicev1.Order_ORDER_CHAT), //nolint:gosec // checked
		Lease: schedule.Lease{
			Duration:             g.GetLease().GetDuration().AsDuration(),
			MaxTotal:             g.GetLease().GetMaxTotal().AsDuration(),
			ReconnectGrace:       g.GetLease().GetReconnectGrace().AsDuration(),
			ExtendWhileConnected: g.GetLease().GetExtendWhileConnected(),
		},
		Retry: schedule.Retry{
			MaxAttempts: int(g.GetRetry().GetMaxAttempts()),
			OnExhausted: schedule.OnExhausted(g.GetRetry().GetOnExhausted() - sluicev1.OnExhausted_ON_EXHAUSTED_DEAD_LETTER_EVENT), //nolint:gosec // checked
		},
		Limits: schedule.Limits{
			MaxOutstanding:  int(g.GetLimits().GetMaxOutstandingEvents()),
			MaxPerChat:      int(g.GetLimits().GetMaxOutstandingPerChat()),
			MaxPerSecond:    int(g.GetLimits().GetMaxEventsPerSecond()),
			MaxBlockedChats: int(g.GetLimits().GetMaxBlockedChats()),
			MaxDeadLetters:  int(g.GetLimits().GetMaxDeadLetters()),
			MaxPending:      int(g.GetLimits().GetMaxPendingEvents()),
		},
		Paused: g.GetPaused(),
	}
	for _, d := range g.GetRetry().GetBackoff() {
		cfg.Retry.Backoff = append(cfg.Retry.Backoff, d.AsDuration())
	}
	if t := g.GetTurn(); t != nil {
		cfg.Turn = schedule.Turn{
			Quiet:     t.GetQuiet().AsDuration(),
			MaxWait:   t.GetMaxWait().AsDuration(),
			MaxEvents: int(t.GetMaxEvents()),
			MaxBytes:  maxTurnBytes,
		}
	}
	return cfg
}

// unprintable says whether c is a control or format character, a space but
// U+0020, or no character at all.
func unprintable(c rune) bool { return !unicode.IsPrint(c) || c == utf8.RuneError }

// checkMember reports a name that no member can have.
func checkMember(name, field string) error {
	if name == "" || len(name) > maxMember {
		return apierror.InvalidField(field, "must be 1 to %d bytes", maxMember)
	}
	if strings.ContainsFunc(name, unprintable) || strings.TrimSpace(name) == "" {
		return apierror.InvalidField(field, "must be printable text, and not only spaces")
	}
	return nil
}
