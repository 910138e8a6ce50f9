package main

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A groupConfig is the flags that say how a group works.
type groupConfig struct {
	filter
	order, onExhausted     string
	lease, maxLease, grace time.Duration
	backoff                []time.Duration
	quiet, maxWait         time.Duration
	group                  sluicev1.ConsumerGroup // what a flag can set by itself
	paths                  []groupFlag
}

// A groupFlag is a flag and the field of ConsumerGroup that it sets.
type groupFlag struct{ flag, path string }

// addGroupFlags gives cmd the flags of a groupConfig, and returns what they set.
func addGroupFlags(cmd *cobra.Command) *groupConfig {
	c := &groupConfig{group: sluicev1.ConsumerGroup{
		Lease: &sluicev1.LeasePolicy{}, Retry: &sluicev1.RetryPolicy{}, Turn: &sluicev1.TurnPolicy{}, Limits: &sluicev1.GroupLimits{},
	}}
	c.addFlags(cmd)
	for flag, path := range map[string]string{
		"source": "sources", "bot": "bot_ids", "chat": "chat_ids", "chat-key": "chat_keys", "room": "room_wxids", "type": "message_types", "kind": "kinds",
		"self": "is_self", "not-self": "is_self", "mention": "mention_self", "expr": "expression",
	} {
		c.sets(flag, "filter."+path)
	}
	flags, limits := cmd.Flags(), c.group.GetLimits()
	flags.StringVar(&c.order, "order", "chat", "what is kept in order: "+strings.Join(words(sluicev1.Order(0)), ", "))
	flags.DurationVar(&c.lease, "lease", 30*time.Second, "how long a delivery stays with a member that does not extend it")
	flags.DurationVar(&c.maxLease, "max-lease", time.Hour, "how long it stays with all extensions")
	flags.DurationVar(&c.grace, "reconnect-grace", 10*time.Second, "how long the deliveries of a member whose connection broke wait for it")
	flags.BoolVar(&c.group.Lease.ExtendWhileConnected, "extend", false, "extend leases while their member is connected")
	flags.DurationSliceVar(&c.backoff, "backoff", nil, "how long a chat waits after the first failure, the second, ...; the last repeats (default 1s,5s,30s,2m,10m)")
	flags.Int32Var(&c.group.Retry.MaxAttempts, "max-attempts", 5, "how often an event is tried; -1 is for ever")
	flags.StringVar(&c.onExhausted, "on-exhausted", "dead-letter-event", "what happens then: "+strings.Join(words(sluicev1.OnExhausted(0)), ", "))
	flags.DurationVar(&c.quiet, "quiet", 0, "collect what a chat says until it was quiet for so long; 0 delivers each event by itself")
	flags.DurationVar(&c.maxWait, "max-wait", 0, "end such a turn so long after its first event (default 10 times --quiet)")
	flags.Uint32Var(&c.group.Turn.MaxEvents, "max-turn", 100, "end it at so many events")
	flags.Uint32Var(&limits.MaxOutstandingEvents, "max-outstanding", 10_000, "the most events that are handed out at once")
	flags.Uint32Var(&limits.MaxOutstandingPerChat, "max-outstanding-per-chat", 1, "the most deliveries of one chat that are handed out at once")
	flags.Uint32Var(&limits.MaxEventsPerSecond, "max-rate", 0, "the most events that are handed out a second; 0 is without bound")
	flags.Uint32Var(&limits.MaxBlockedChats, "max-blocked-chats", 1000, "the most chats that may be blocked or diverted")
	flags.Uint32Var(&limits.MaxDeadLetters, "max-dead-letters", 100_000, "the most dead letters that are kept")
	flags.Uint32Var(&limits.MaxPendingEvents, "max-pending", 1_000_000, "how many events the group reads ahead")
	complete(cmd, "order", words(sluicev1.Order(0)))
	complete(cmd, "on-exhausted", words(sluicev1.OnExhausted(0)))
	for flag, path := range map[string]string{
		"order": "order",
		"lease": "lease.duration", "max-lease": "lease.max_total", "reconnect-grace": "lease.reconnect_grace", "extend": "lease.extend_while_connected",
		"backoff": "retry.backoff", "max-attempts": "retry.max_attempts", "on-exhausted": "retry.on_exhausted",
		"quiet": "turn.quiet", "max-wait": "turn.max_wait", "max-turn": "turn.max_events",
		"max-outstanding": "limits.max_outstanding_events", "max-outstanding-per-chat": "limits.max_outstanding_per_chat",
		"max-rate": "limits.max_events_per_second", "max-blocked-chats": "limits.max_blocked_chats",
		"max-dead-letters": "limits.max_dead_letters", "max-pending": "limits.max_pending_events",
	} {
		c.sets(flag, path)
	}
	return c
}

// sets takes note of the field that a flag sets.
func (c *groupConfig) sets(flag, path string) { c.paths = append(c.paths, groupFlag{flag, path}) }

// read returns the group that the flags of cmd describe, where one that was not
// given leaves its field unset, and the fields that they set.
func (c *groupConfig) read(cmd *cobra.Command) (*sluicev1.ConsumerGroup, *fieldmaskpb.FieldMask, error) {
	var err error
	if c.group.Filter, err = c.eventFilter(); err != nil {
		return nil, nil, err
	}
	order, err := parseWord(sluicev1.Order(0), "order", c.order)
	if err != nil {
		return nil, nil, err
	}
	onExhausted, err := parseWord(sluicev1.OnExhausted(0), "on-exhausted", c.onExhausted)
	if err != nil {
		return nil, nil, err
	}
	c.group.Order, c.group.Retry.OnExhausted = sluicev1.Order(order), sluicev1.OnExhausted(onExhausted)
	c.group.Lease.Duration, c.group.Lease.MaxTotal = durationpb.New(c.lease), durationpb.New(c.maxLease)
	c.group.Lease.ReconnectGrace = durationpb.New(c.grace)
	c.group.Turn.Quiet, c.group.Turn.MaxWait = durationpb.New(c.quiet), durationpb.New(c.maxWait)
	for _, d := range c.backoff {
		c.group.Retry.Backoff = append(c.group.Retry.Backoff, durationpb.New(d))
	}

	given, mask := &sluicev1.ConsumerGroup{}, &fieldmaskpb.FieldMask{}
	for _, p := range c.paths {
		if cmd.Flags().Changed(p.flag) && !slices.Contains(mask.GetPaths(), p.path) {
			mask.Paths = append(mask.Paths, p.path)
			copyField(given.ProtoReflect(), c.group.ProtoReflect(), p.path)
		}
	}
	slices.Sort(mask.Paths)
	return given, mask, nil
}

// copyField copies the field at path from one message to another of its type.
func copyField(to, from protoreflect.Message, path string) {
	name, rest, nested := strings.Cut(path, ".")
	f := to.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch {
	case nested:
		copyField(to.Mutable(f).Message(), from.Get(f).Message(), rest)
	case from.Has(f):
		to.Set(f, from.Get(f))
	}
}

// words returns what parseWord takes for an enum.
func words(e protoreflect.Enum) []string {
	values, names := e.Descriptor().Values(), []string{}
	for i := 1; i < values.Len(); i++ { // without "unspecified"
		names = append(names, word(values.Get(i).Name(), values.Get(0).Name()))
	}
	return names
}

// word returns the name of an enum's value as a flag has it, where zero is the
// name of its zero value.
func word(name, zero protoreflect.Name) string {
	prefix := strings.TrimSuffix(string(zero), "UNSPECIFIED")
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(string(name), prefix), "_", "-"))
}

// parseWord returns the value of an enum that s names.
func parseWord(e protoreflect.Enum, flag, s string) (protoreflect.EnumNumber, error) {
	if i := slices.Index(words(e), s); i >= 0 {
		return e.Descriptor().Values().Get(i + 1).Number(), nil
	}
	return 0, usagef("--%s: %q is none of %s", flag, s, strings.Join(words(e), ", "))
}
