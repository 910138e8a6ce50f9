package subscription

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// maxValues is the most values that a repeated field of a filter may have.
const maxValues = 1000

// A set holds the values that a field of a filter admits. The nil set admits
// every value.
type set[T comparable] map[T]struct{}

func setOf[T comparable](values []T) set[T] {
	if len(values) == 0 {
		return nil
	}
	s := make(set[T], len(values))
	for _, v := range values {
		s[v] = struct{}{}
	}
	return s
}

func (s set[T]) admits(v T) bool {
	if s == nil {
		return true
	}
	_, ok := s[v]
	return ok
}

// A Filter selects events. It is safe for concurrent use. Those who use the same
// one share the time that its expression may take; see Bounded.
type Filter struct {
	kinds    set[string]
	types    set[sluicev1.MessageType]
	sources  set[string]
	bots     set[string]
	chats    set[string]
	rooms    set[string]
	isSelf   *bool
	mentions *bool

	expression *expression // nil without one
	budget     *budget     // of the expression

	// What a record tells without its data.
	chatKeys     []string // sorted, each once; nil for all
	keyHashes    set[eventlog.KeyHash]
	sourceTokens set[string]
	botTokens    set[string]
	messages     bool // only messages can match
	selective    bool // anything is asked for
	decodes      bool // more than that is asked for
}

// Compile returns the Filter that f describes; an f that is nil or empty
// selects all. A wrong f is an *apierror.Error with the reason INVALID_FILTER
// and the Field that is wrong, as in "filter.kinds[1]".
func Compile(f *sluicev1.EventFilter) (*Filter, error) {
	kinds := record.Kinds()
	for i, kind := range f.GetKinds() {
		if !slices.Contains(kinds, kind) {
			return nil, invalidFilter(fmt.Sprintf("filter.kinds[%d]", i), "must be one of "+strings.Join(kinds, ", "))
		}
	}
	for _, field := range []struct {
		name   string
		values []string
	}{
		{"filter.sources", f.GetSources()},
		{"filter.bot_ids", f.GetBotIds()},
		{"filter.chat_ids", f.GetChatIds()},
		{"filter.chat_keys", f.GetChatKeys()},
		{"filter.room_wxids", f.GetRoomWxids()},
		{"filter.kinds", f.GetKinds()},
	} {
		if len(field.values) > maxValues {
			return nil, invalidFilter(field.name, fmt.Sprintf("must not have more than %d values", maxValues))
		}
		if i := slices.Index(field.values, ""); i >= 0 {
			return nil, invalidFilter(fmt.Sprintf("%s[%d]", field.name, i), "must not be empty")
		}
	}
	if len(f.GetMessageTypes()) > maxValues {
		return nil, invalidFilter("filter.message_types", fmt.Sprintf("must not have more than %d values", maxValues))
	}
	compiled := &Filter{
		kinds:        setOf(f.GetKinds()),
		types:        setOf(f.GetMessageTypes()),
		sources:      setOf(f.GetSources()),
		bots:         setOf(f.GetBotIds()),
		chats:        setOf(f.GetChatIds()),
		rooms:        setOf(f.GetRoomWxids()),
		chatKeys:     slices.Compact(slices.Sorted(slices.Values(f.GetChatKeys()))),
		keyHashes:    setOf(hashes(f.GetChatKeys())),
		sourceTokens: setOf(tokens(f.GetSources())),
		botTokens:    setOf(tokens(f.GetBotIds())),
		budget:       &budget{},
	}
	if f != nil {
		compiled.isSelf, compiled.mentions = f.IsSelf, f.MentionSelf
	}
	compiled.messages = compiled.types != nil || compiled.isSelf != nil || compiled.mentions != nil
	if source := f.GetExpression(); source != "" {
		x, err := compileExpression(source)
		if err != nil {
			return nil, err
		}
		compiled.expression = x
	}
	compiled.decodes = compiled.chats != nil || compiled.rooms != nil || compiled.isSelf != nil || compiled.mentions != nil ||
		compiled.expression != nil
	compiled.selective = compiled.decodes || compiled.messages ||
		compiled.kinds != nil || compiled.sources != nil || compiled.bots != nil || compiled.keyHashes != nil
	return compiled, nil
}

// ByRecord returns whether f selects the event that rec holds, as far as that can
// be said without looking at its data. Unless it is decided, Match must say.
func (f *Filter) ByRecord(rec eventlog.Record) (match, decided bool) {
	if !f.selective {
		return true, true
	}
	if !f.keyHashes.admits(rec.KeyHash) {
		return false, true
	}
	labels, ok := record.ParseSubject(rec.Subject)
	if !ok {
		return false, false
	}
	if !f.matchLabels(labels) {
		return false, true
	}
	return true, !f.decodes
}

// matchLabels returns false when no event under a subject that says l can match.
func (f *Filter) matchLabels(l record.Labels) bool {
	if f.messages && l.Kind != kindMessage {
		return false
	}
	return f.kinds.admits(l.Kind) &&
		f.types.admits(l.MessageType) &&
		f.sourceTokens.admits(l.Source) &&
		f.botTokens.admits(l.Bot)
}

// Bounded returns f with a bound: its Match returns ErrTooExpensive once the
// expression has taken tolerance longer than a millisecond for each event, of
// which 10 ms are forgiven each second. f has none: it is only slowed down.
func (f *Filter) Bounded(tolerance time.Duration) *Filter {
	bounded := *f
	bounded.budget = &budget{tolerance: tolerance}
	return &bounded
}

// Spent returns how long Match of f has taken, in all.
func (f *Filter) Spent() time.Duration { return time.Duration(f.budget.spent.Load()) }

// Match returns whether f selects the event that decode returns, which must be
// without raw, for the expression must not see it. Decoding it and looking at it is
// a turn, for which it waits: callbacks come first. A message that does not say
// whether it is the account's own matches neither value of is_self, and so with
// mention_self.
//
// The error is that of decode, the cause of the end of ctx, ErrTooExpensive, or
// ErrEvaluation when the expression failed: then the event does not match.
func (f *Filter) Match(ctx context.Context, decode func() (*sluicev1.Event, error)) (bool, error) {
	return f.budget.turn(ctx, func() (bool, error) {
		e, err := decode()
		if err != nil {
			return false, err
		}
		return f.match(ctx, e)
	})
}

// matchInTurn is match, for which it waits when there is an expression.
func (f *Filter) matchInTurn(ctx context.Context, e *sluicev1.Event) (bool, error) {
	if f.expression == nil {
		return f.match(ctx, e)
	}
	return f.budget.turn(ctx, func() (bool, error) { return f.match(ctx, e) })
}

// match returns whether f selects e. The error is ErrEvaluation when the
// expression failed, or the cause of the end of ctx.
func (f *Filter) match(ctx context.Context, e *sluicev1.Event) (bool, error) {
	switch {
	case !f.sources.admits(e.GetSource()),
		f.kinds != nil && !f.kinds.admits(record.Kind(e)),
		f.bots != nil && !f.bots.admits(record.BotID(record.Bot(e))),
		f.chats != nil && !f.chats.admits(record.ChatID(e)),
		f.chatKeys != nil && !contains(f.chatKeys, e.GetChatKey()),
		f.rooms != nil && !f.rooms.admits(record.RoomWxid(e)),
		f.messages && !f.matchMessage(e.GetMessage()):
		return false, nil
	case f.expression == nil:
		return true, nil
	}
	return f.expression.eval(ctx, e)
}

// matchMessage returns whether the fields that only messages have select m, nil
// for any other event.
func (f *Filter) matchMessage(m *sluicev1.Message) bool {
	return m != nil && f.types.admits(m.GetType()) && is(m.IsSelf, f.isSelf) && is(m.MentionSelf, f.mentions)
}

// is returns whether value is as wanted: nil wants nothing.
func is(value, want *bool) bool {
	return want == nil || value != nil && *value == *want
}

const kindMessage = "message"

func tokens(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = record.Token(v)
	}
	return out
}

// contains is whether a sorted list holds value.
func contains(sorted []string, value string) bool {
	_, found := slices.BinarySearch(sorted, value)
	return found
}

func hashes(keys []string) []eventlog.KeyHash {
	out := make([]eventlog.KeyHash, len(keys))
	for i, key := range keys {
		out[i] = eventlog.HashKey(key)
	}
	return out
}

func invalidFilter(field, message string) *apierror.Error {
	return &apierror.Error{
		Code:    codes.InvalidArgument,
		Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER,
		Message: field + ": " + message,
		Field:   field,
	}
}
