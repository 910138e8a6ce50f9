package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A selection is which events a command reads: the flags that tail and list
// share.
type selection struct {
	filter
	from, to string
}

// A filter is the flags that say which events match.
type filter struct {
	fields  sluicev1.EventFilter
	types   []string
	self    bool
	notSelf bool
	mention bool
}

// typePrefix is what the names of message types have in common.
const typePrefix = "MESSAGE_TYPE_"

// addSelectionFlags gives cmd the flags of a selection, and returns what they
// set.
func addSelectionFlags(cmd *cobra.Command) *selection {
	s := &selection{}
	flags := cmd.Flags()
	flags.StringVar(&s.from, "from", "", "where to begin: "+positionHelp)
	flags.StringVar(&s.to, "to", "", "where to end, likewise")
	complete(cmd, "from", []string{"earliest", "latest"})
	complete(cmd, "to", []string{"latest"})
	s.addFlags(cmd)
	return s
}

// addFlags gives cmd the flags that set f.
func (f *filter) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.fields.Sources, "source", nil, "only from these sources")
	flags.StringSliceVar(&f.fields.BotIds, "bot", nil, "only of these hosted accounts, by id")
	flags.StringSliceVar(&f.fields.ChatIds, "chat", nil, "only of these conversations, by id")
	flags.StringArrayVar(&f.fields.ChatKeys, "chat-key", nil, "only of this chat, by its chat_key; can be repeated")
	flags.StringSliceVar(&f.fields.RoomWxids, "room", nil, "only of these rooms, by wxid")
	flags.StringSliceVar(&f.types, "type", nil, "only messages of these types: names such as text,image or the vendor's numbers")
	flags.StringSliceVar(&f.fields.Kinds, "kind", nil, "only these kinds of event: message, send_result, ...")
	flags.BoolVar(&f.self, "self", false, "only messages that the hosted account sent")
	flags.BoolVar(&f.notSelf, "not-self", false, "only messages that it did not send")
	flags.BoolVar(&f.mention, "mention", false, "only messages that mention it")
	flags.StringVar(&f.fields.Expression, "expr", "", `only where this CEL expression holds, such as 'event.message.text.text.contains("hello")'`)
	cmd.MarkFlagsMutuallyExclusive("self", "not-self")
	complete(cmd, "kind", kindNames())
	complete(cmd, "type", typeNames())
}

// complete makes the shell offer words for a flag of cmd.
func complete(cmd *cobra.Command, flag string, words []string) {
	// The only error is a flag that cmd does not have.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// kindNames returns the kinds of event.
func kindNames() []string {
	fields := (*sluicev1.Event)(nil).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = string(fields.Get(i).Name())
	}
	return names
}

// typeNames returns the names that parseType takes.
func typeNames() []string {
	values := sluicev1.MessageType(0).Descriptor().Values()
	names := make([]string, values.Len())
	for i := range names {
		names[i] = strings.ToLower(strings.TrimPrefix(string(values.Get(i).Name()), typePrefix))
	}
	return names
}

// parseType returns the message type that s is the name or the number of.
func parseType(s string) (sluicev1.MessageType, error) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return sluicev1.MessageType(n), nil
	}
	name := typePrefix + strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
	if n, ok := sluicev1.MessageType_value[name]; ok {
		return sluicev1.MessageType(n), nil
	}
	return 0, usagef("--type: %q is neither a number nor one of %s", s, strings.Join(typeNames(), ", "))
}

// positions returns where to begin and to end; nil where not said.
func (s *selection) positions(now time.Time) (from, to *sluicev1.Position, err error) {
	if from, err = parsePosition(s.from, now); err != nil {
		return nil, nil, usagef("--from: %w", err)
	}
	if to, err = parsePosition(s.to, now); err != nil {
		return nil, nil, usagef("--to: %w", err)
	}
	return from, to, nil
}

// eventFilter returns the filter that the flags describe.
func (f *filter) eventFilter() (*sluicev1.EventFilter, error) {
	e := proto.CloneOf(&f.fields)
	for _, name := range f.types {
		t, err := parseType(name)
		if err != nil {
			return nil, err
		}
		e.MessageTypes = append(e.MessageTypes, t)
	}
	if f.self || f.notSelf {
		e.IsSelf = proto.Bool(f.self)
	}
	if f.mention {
		e.MentionSelf = proto.Bool(true)
	}
	return e, nil
}
