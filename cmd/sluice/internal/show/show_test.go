package show

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-runewidth"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

var (
	shanghai = time.FixedZone("", 8*60*60)
	received = time.Date(2026, 3, 1, 1, 2, 3, 0, time.UTC)
	narrow   = &runewidth.Condition{}
)

// lines returns what a terminal of that width shows of es; 0 is no terminal.
func lines(t *testing.T, width int, color bool, es ...*sluicev1.Event) string {
	t.Helper()
	var out strings.Builder
	l := &Lines{out: &out, zone: shanghai, cells: narrow, color: color}
	if width > 0 {
		l.width = func() int { return width }
	}
	for _, e := range es {
		if err := l.Print(e); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func textMessage(from, topic, text string) *sluicev1.Event {
	m := &sluicev1.Message{
		ChatId:  "60aa00000000000000000c01",
		Sender:  &sluicev1.Contact{Name: from},
		Type:    sluicev1.MessageType_MESSAGE_TYPE_TEXT,
		Payload: &sluicev1.Message_Text{Text: &sluicev1.TextPayload{Text: text}},
	}
	if topic != "" {
		m.Room = &sluicev1.Room{Topic: topic}
	}
	return &sluicev1.Event{ReceiveTime: timestamppb.New(received), Body: &sluicev1.Event_Message{Message: m}}
}

// conversation is a log with something of everything that columns meet.
func conversation() []*sluicev1.Event {
	own := textMessage("小助手", "", "您好!请稍等")
	own.GetMessage().IsSelf = proto.Bool(true)
	answer := textMessage("王小明", "客户群1", "看这张")
	answer.GetMessage().GetText().Quote = &sluicev1.QuotedMessage{Nickname: "招募经理", Text: "图在哪里?"}
	image := textMessage("Alice", "Sales & Support Europe", "")
	image.GetMessage().Payload = &sluicev1.Message_Image{Image: &sluicev1.ImagePayload{
		Url: "https://example.com/p.jpg", Width: proto.Int32(640), Height: proto.Int32(480),
	}}
	image.RevisionOf = 3
	sent := &sluicev1.Event{ReceiveTime: timestamppb.New(received), Body: &sluicev1.Event_SendResult{SendResult: &sluicev1.SendResult{
		Sent: proto.Bool(false), Reason: "频率过高", ErrorCode: proto.Int64(-1), RequestId: "r-1", ChatId: "60aa00000000000000000c01",
	}}}
	joined := &sluicev1.Event{ReceiveTime: timestamppb.New(received), Body: &sluicev1.Event_RoomMembersChanged{
		RoomMembersChanged: &sluicev1.RoomMembersChanged{
			Change: sluicev1.RoomMembersChanged_CHANGE_JOINED, Room: &sluicev1.Room{Topic: "客户群1"},
			Members: []*sluicev1.RoomMember{{Name: "李四"}, {Wxid: "7881300000000002"}},
		},
	}}
	es := []*sluicev1.Event{
		textMessage("客户甲", "", "在吗"),
		own,
		textMessage("王小明", "客户群1", "@客服小王 在吗?我想问一下上周买的那个产品什么时候能够发货,已经等了很久很久了"),
		answer,
		textMessage("👨‍👩‍👧 family", "🎉🎉🎉🎉🎉🎉🎉🎉", "line one\nline two 👍🏽 done"),
		image,
		textMessage("a name longer than the column", "", ""),
		sent,
		joined,
		{ReceiveTime: timestamppb.New(received), Body: &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{
			Path:   "/new",
			Fields: &structpb.Struct{Fields: map[string]*structpb.Value{"b": structpb.NewNumberValue(1), "a": structpb.NewBoolValue(true)}},
		}}},
	}
	for i, e := range es {
		e.Sequence = uint64(i + 1)
	}
	return es
}

func TestLines(t *testing.T) {
	golden(t, "terminal-100.golden", lines(t, 100, false, conversation()...))
	golden(t, "terminal-color.golden", strings.ReplaceAll(lines(t, 100, true, conversation()...), "\x1b", "␛"))
	golden(t, "pipe.golden", lines(t, 0, false, conversation()...))
}

// TestColumnsAlign measures rather than compares: whatever the characters, the
// text begins in the same cell, and no line is wider than the terminal.
func TestColumnsAlign(t *testing.T) {
	for _, width := range []int{90, 100, 213} {
		for i, line := range strings.Split(strings.TrimSuffix(lines(t, width, false, conversation()...), "\n"), "\n") {
			if got := narrow.StringWidth(line); got > width {
				t.Errorf("line %d is %d cells wide, want at most %d: %s", i+1, got, width, line)
			}
		}
	}
	for _, from := range []string{"a", "客户", "客户甲乙丙丁戊己庚", "👨‍👩‍👧", "éé", "", "x客户甲乙丙丁戊己庚"} {
		line := lines(t, 100, false, textMessage(from, "客户群"+from, "TEXT"))
		before, _, found := strings.Cut(line, "TEXT")
		const want = sequenceWidth + len(timeLayout) + chatWidth + senderWidth + kindWidth + 5*2
		if got := narrow.StringWidth(before); !found || got != want {
			t.Errorf("text of %q begins in cell %d, want %d", from, got, want)
		}
	}
}

func TestWideAmbiguousCharacters(t *testing.T) {
	var out strings.Builder
	wide := &runewidth.Condition{EastAsianWidth: true}
	l := &Lines{out: &out, zone: shanghai, cells: wide, width: func() int { return 90 }}
	if err := l.Print(textMessage("“引号”……的人", "", strings.Repeat("“引号”", 30))); err != nil {
		t.Fatal(err)
	}
	if got := wide.StringWidth(strings.TrimSuffix(out.String(), "\n")); got < 88 || got > 90 {
		t.Errorf("the line is %d cells wide, want to the edge of 90", got)
	}
}

// hostile is what strangers write to take over a terminal or to deceive its
// reader.
var hostile = []string{
	"\x1b[2J\x1b]0;title\a", "\x9b31m", "\u009b31m", "\r\nforged line", "a\bb\x7f", "\u202egpj.exe", "\u2066x\u2069",
	"\u2028\u2029", "\ufeff\u200b\u00ad", "\U000e0041\U000e0042", "\xff\xfe", "\x00", "\x90q\x9c",
}

func TestNothingInjects(t *testing.T) {
	for _, s := range hostile {
		e := textMessage(s, s, s)
		e.GetMessage().ChatId = s
		e.Raw = []byte(s)
		e.Unmapped = &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.ToValidUTF8(s, ""))}}
		var full bytes.Buffer
		if err := Detail(&full, e, shanghai); err != nil {
			t.Fatal(err)
		}
		for form, shown := range map[string]string{
			"terminal": lines(t, 200, false, e), "pipe": lines(t, 0, false, e), "detail": full.String(),
		} {
			for _, r := range shown {
				if r != '\n' && !unicode.IsGraphic(r) || r == unicode.ReplacementChar && !strings.ContainsRune(strings.ToValidUTF8(s, "\ufffd"), r) {
					t.Errorf("%s of %q has %q:\n%s", form, s, r, shown)
				}
			}
			if n := strings.Count(shown, "\n"); form != "detail" && n != 1 {
				t.Errorf("%s of %q has %d lines, want 1", form, s, n)
			}
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"":         "",
		"你好 　全角空格": "你好 　全角空格",
		"👨‍👩‍👧 👍🏽 ❤️ 🇨🇳": "👨‍👩‍👧 👍🏽 ❤️ 🇨🇳",
		"a\nb\tc\r":             `a\nb\tc\r`,
		"\x1b[31mred":           `\x1b[31mred`,
		"\u202ex\U000e0041":     `\u202ex\U000e0041`,
		"\u009b0m":              `\u009b0m`,
		"bad \xff byte \x9b31m": "bad � byte �31m",
	} {
		if got := Visible(in); got != want {
			t.Errorf("Visible(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestJSONIsOneStableLine(t *testing.T) {
	e := textMessage("客户甲", "", "line one\nline \x1b two")
	e.Sequence = 7
	for range 20 { // protojson varies between runs of the program only; the loop costs nothing
		var out strings.Builder
		if err := JSON(&out, e); err != nil {
			t.Fatal(err)
		}
		const want = `{"sequence":"7","receiveTime":"2026-03-01T01:02:03Z","message":{"chatId":"60aa00000000000000000c01",` +
			`"sender":{"name":"客户甲"},"type":"MESSAGE_TYPE_TEXT","text":{"text":"line one\nline \u001b two"}}}` + "\n"
		if out.String() != want {
			t.Fatalf("JSON = %s, want %s", out.String(), want)
		}
	}
}

func TestDetail(t *testing.T) {
	e := textMessage("客户甲", "客户群1", "first line\n第二行 \x1b[31m")
	e.Sequence = 42
	e.Cursor = "AQIDBAUGBwgJKg"
	e.Anomalies = []string{"STRING_FOR_NUMBER", "TAB_IN_NAME"}
	e.Unmapped = &structpb.Struct{Fields: map[string]*structpb.Value{"data.new": structpb.NewStringValue("值")}}
	e.Raw = []byte(`{"data":{"type":7,"type":7}}`)
	e.Dialect = sluicev1.Dialect_DIALECT_GROUP
	m := e.GetMessage()
	m.IsSelf = proto.Bool(false)
	m.Source = sluicev1.Source(99).Enum()
	m.GetText().Mentions = []string{"1688850000000001", "@all"}
	m.GetText().Quote = &sluicev1.QuotedMessage{MessageId: "m-1", Content: structpb.NewStringValue("x\ny")}
	var out strings.Builder
	if err := Detail(&out, e, shanghai); err != nil {
		t.Fatal(err)
	}
	golden(t, "detail.golden", out.String())
	if e.GetRaw() == nil {
		t.Error("Detail changed the event")
	}
}
