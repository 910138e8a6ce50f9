package show

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/record"
)

// Widths of the columns before the text, in cells of a terminal. Kinds are
// words to filter by, so a long one is not cut: it pushes the text aside.
const (
	sequenceWidth = 6
	chatWidth     = 12
	senderWidth   = 10
	kindWidth     = 12

	// minTextWidth is what is left to the text of a narrow terminal, which then
	// wraps.
	minTextWidth = 16

	timeLayout = "01-02 15:04:05"
)

// A style is an SGR sequence.
type style string

const (
	plain  style = ""
	dim    style = "\x1b[2m"
	bold   style = "\x1b[1m"
	green  style = "\x1b[32m"
	yellow style = "\x1b[33m"
	cyan   style = "\x1b[36m"
	reset        = "\x1b[0m"
)

// Lines shows events as lines of columns: sequence, time of receipt, chat,
// sender, kind and text.
type Lines struct {
	out   io.Writer
	width func() int // of the terminal, in cells; nil, or 0 from it, cuts nothing
	color bool
	zone  *time.Location
	cells *runewidth.Condition // how wide a character is
}

// NewLines returns Lines on out. When that is a terminal, they fit its width
// and are in colour, unless NO_COLOR is set; else they are whole.
func NewLines(out io.Writer) *Lines {
	l := &Lines{out: out, zone: time.Local, cells: runewidth.NewCondition()}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return l
	}
	l.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	l.width = func() int {
		columns, _, err := term.GetSize(int(file.Fd()))
		if err != nil {
			return 0
		}
		return columns
	}
	return l
}

// Print writes the line of e.
func (l *Lines) Print(e *sluicev1.Event) error {
	width := 0
	if l.width != nil {
		width = l.width()
	}
	cut := width > 0

	from, fromStyle := sender(e), bold
	if e.GetMessage().GetIsSelf() {
		from, fromStyle = "> "+from, green
	}
	kindStyle := plain
	if e.GetMessage() == nil {
		kindStyle = yellow
	}
	columns := []struct {
		text  string
		width int
		cut   bool
		style style
	}{
		{text: fmt.Sprintf("%*d", sequenceWidth, e.GetSequence()), style: dim},
		{text: e.GetReceiveTime().AsTime().In(l.zone).Format(timeLayout), style: dim},
		{text: chat(e, cut), width: chatWidth, cut: cut, style: cyan},
		{text: from, width: senderWidth, cut: cut, style: fromStyle},
		{text: kind(e), width: kindWidth, style: kindStyle},
	}
	var line strings.Builder
	used := 0
	for _, c := range columns {
		cell := Visible(c.text)
		if c.cut {
			cell = l.cells.Truncate(cell, c.width, "…")
		}
		cell = l.cells.FillRight(cell, c.width)
		used += l.cells.StringWidth(cell) + 2
		line.WriteString(l.paint(cell, c.style) + "  ")
	}
	said := Visible(summary(e))
	if cut {
		said = l.cells.Truncate(said, max(width-used, minTextWidth), "…")
	}
	line.WriteString(said)
	_, err := io.WriteString(l.out, strings.TrimRight(line.String(), " ")+"\n")
	return err
}

func (l *Lines) paint(s string, with style) string {
	if !l.color || with == plain || s == "" {
		return s
	}
	return string(with) + s + reset
}

// chat names the conversation of e: the room's topic, or the id of the chat,
// of which the end tells one from another when it is to be short.
func chat(e *sluicev1.Event, short bool) string {
	if topic := room(e).GetTopic(); topic != "" {
		return topic
	}
	id := []rune(record.ChatID(e))
	if len(id) == 0 {
		id = []rune(room(e).GetWxid())
	}
	switch {
	case len(id) == 0:
		return "-"
	case short && len(id) > chatWidth:
		return "…" + string(id[len(id)-8:])
	}
	return string(id)
}

// room returns the room of e; nil when it names none.
func room(e *sluicev1.Event) *sluicev1.Room {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Message:
		return b.Message.GetRoom()
	case *sluicev1.Event_RoomMembersChanged:
		return b.RoomMembersChanged.GetRoom()
	case *sluicev1.Event_RoomTopicChanged:
		return b.RoomTopicChanged.GetRoom()
	}
	return nil
}

// sender names who e is from; "-" for nobody.
func sender(e *sluicev1.Event) string {
	switch b := e.GetBody().(type) {
	case *sluicev1.Event_Message:
		return name(b.Message.GetSender())
	case *sluicev1.Event_FriendRequest:
		return name(b.FriendRequest.GetContact())
	case *sluicev1.Event_FriendAdded:
		return name(b.FriendAdded.GetContact())
	case *sluicev1.Event_CustomerAdded:
		return name(b.CustomerAdded.GetContact())
	case *sluicev1.Event_FollowUpTimeout:
		return cmp.Or(b.FollowUpTimeout.GetName(), b.FollowUpTimeout.GetWxid(), "-")
	}
	return "-"
}

// name names a contact; "-" for one without name and id.
func name(c *sluicev1.Contact) string {
	return cmp.Or(c.GetName(), c.GetWxid(), c.GetExternalUserId(), "-")
}

// kind returns the kind of e: of a message, its payload's name.
func kind(e *sluicev1.Event) string {
	m := e.GetMessage()
	if m == nil {
		return member(e, "body")
	}
	switch payload := member(m, "payload"); payload {
	case "other":
		return fmt.Sprintf("type %d", m.GetType())
	case "":
		return "message"
	default:
		return payload
	}
}

// member returns the name of the field of a oneof of m that is set; "" for none.
func member(m proto.Message, oneof protoreflect.Name) string {
	r := m.ProtoReflect()
	if f := r.WhichOneof(r.Descriptor().Oneofs().ByName(oneof)); f != nil {
		return string(f.Name())
	}
	return ""
}
