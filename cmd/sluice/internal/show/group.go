package show

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Group writes every field of a group that is set, as Detail does.
func Group(out io.Writer, g *sluicev1.ConsumerGroup, zone *time.Location) error {
	return whole(out, g, nil, zone)
}

// GroupLine writes a group on one line: name, order, and what is particular
// about it.
func GroupLine(out io.Writer, g *sluicev1.ConsumerGroup) error {
	line := fmt.Sprintf("%-20s  %-5s", Visible(g.GetName()), enumName(g.GetOrder()))
	if quiet := g.GetTurn().GetQuiet().AsDuration(); quiet > 0 {
		line += fmt.Sprintf("  turns after %v", quiet)
	}
	switch {
	case g.GetPauseReason() != sluicev1.PauseReason_PAUSE_REASON_UNSPECIFIED:
		line += "  paused: " + enumName(g.GetPauseReason())
	case g.GetPaused():
		line += "  paused"
	}
	_, err := fmt.Fprintln(out, strings.TrimRight(line, " "))
	return err
}

// GroupStatus writes how a group works and how it stands at now, whose zone is
// that of all times.
func GroupStatus(out io.Writer, g *sluicev1.ConsumerGroup, s *sluicev1.ConsumerGroupStatus, now time.Time) error {
	if err := Group(out, g, now.Location()); err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\npending\t%d\n", s.GetPending())
	fmt.Fprintf(t, "outstanding\t%d\n", s.GetOutstanding())
	fmt.Fprintf(t, "lag\t%s\n", lag(s.GetLag()))
	fmt.Fprintf(t, "dead letters\t%d\n", s.GetDeadLetters())
	fmt.Fprintf(t, "read up to\t%d\n", s.GetPosition())
	if reason := s.GetPauseReason(); reason != sluicev1.PauseReason_PAUSE_REASON_UNSPECIFIED {
		fmt.Fprintf(t, "paused because\t%s; it reads no further until its filter changes, or it is resumed\n", enumName(reason))
	}
	if held := s.GetLimitsReached(); len(held) > 0 {
		fmt.Fprintf(t, "held back by\t%s\n", strings.Join(held, ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}

	fmt.Fprintf(t, "\nblocked chats\t%s\n", part(len(s.GetBlockedChats()), s.GetBlockedChatsTotal()))
	for _, c := range s.GetBlockedChats() {
		fmt.Fprintf(t, "  %s\t%s\tevent %d, %d waiting\t%s\n", orDash(c.GetChatKey()), state(c, now), c.GetSequence(), c.GetWaiting(),
			attempts(c.GetAttempts(), c.GetLastFailure()))
	}
	if err := t.Flush(); err != nil {
		return err
	}

	fmt.Fprintf(t, "\nmembers\t%s\n", part(len(s.GetMembers()), s.GetMembersTotal()))
	for _, m := range s.GetMembers() {
		connection := "not connected"
		if m.GetConnected() {
			connection = fmt.Sprintf("ready for %d", m.GetCredits().GetEvents())
		}
		fmt.Fprintf(t, "  %s\t%s\t%d outstanding\n", Visible(m.GetName()), connection, m.GetOutstanding())
	}
	return t.Flush()
}

// lag says how far a group is behind.
func lag(l *sluicev1.GroupLag) string {
	if l.GetEvents() == 0 {
		return "0 events"
	}
	return fmt.Sprintf("%d events, the oldest is %d, %v ago", l.GetEvents(), l.GetOldestSequence(), l.GetAge().AsDuration().Round(time.Millisecond))
}

// part says how much of a list is shown.
func part(shown int, total uint32) string {
	if uint64(shown) == uint64(total) { //nolint:gosec // a length is not negative
		return fmt.Sprint(total)
	}
	return fmt.Sprintf("%d, of which %d are shown", total, shown)
}

// state says why a chat does not go on, and until when.
func state(c *sluicev1.BlockedChat, now time.Time) string {
	text := fmt.Sprintf("%s for %v", enumName(c.GetState()), now.Sub(c.GetSince().AsTime()).Round(time.Second))
	if next := c.GetNextAttemptTime(); next != nil {
		text += fmt.Sprintf(", again in %v", next.AsTime().Sub(now).Round(time.Second))
	}
	return text
}

// attempts says how often an event was tried, and how that ended.
func attempts(n uint32, f *sluicev1.Failure) string {
	text := fmt.Sprintf("%d attempts", n)
	if n == 1 {
		text = "1 attempt"
	}
	if f == nil {
		return text
	}
	text += fmt.Sprintf(", %s by %s", enumName(f.GetCause()), orDash(f.GetMember()))
	if f.GetReason() != "" {
		text += ": " + Visible(f.GetReason())
	}
	return text
}

// DeadLetterLine writes a dead letter on one line: sequence, time, chat, what
// became of the chat, and the attempts.
func DeadLetterLine(out io.Writer, d *sluicev1.DeadLetter, zone *time.Location) error {
	stopped := "-"
	if d.GetChatState() != sluicev1.ChatState_CHAT_STATE_UNSPECIFIED {
		stopped = enumName(d.GetChatState())
	}
	_, err := fmt.Fprintf(out, "%*d  %s  %s  %-8s  %s\n", sequenceWidth, d.GetEvent().GetSequence(),
		d.GetDeadTime().AsTime().In(zone).Format(timeLayout), orDash(d.GetEvent().GetChatKey()), stopped,
		attempts(d.GetAttempts(), d.GetLastFailure()))
	return err
}

// orDash returns s as Visible does, and "-" for "".
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return Visible(s)
}
