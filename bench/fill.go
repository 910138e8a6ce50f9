package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
)

// fillers is how many callers append at once: as many as a group commit takes.
const fillers = 1024

// runFill fills a data directory.
func runFill(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("fill", flag.ContinueOnError)
	dir := flags.String("dir", "", "the data directory of a gateway that does not run; made when missing")
	rows := flags.Int("rows", 10_000_000, "how many events it is to hold")
	chats := flags.Int("chats", groupChats, "how many conversations they are in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *chats < 1 || *chats > maxChats {
		return fmt.Errorf("-dir must be set, and -chats be 1 to %d", maxChats)
	}
	parent := filepath.Dir(filepath.Clean(*dir))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	r, err := newRig(ctx, setup{dir: parent}, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return r.fill(ctx, out, *dir, *rows, *chats)
}

// fill has a data directory hold at least so many events. It goes past the
// gateway, straight to the log: each event is one that the gateway has stored
// itself, with another message id, chat and text.
func (r *rig) fill(ctx context.Context, out io.Writer, dir string, rows, chats int) error {
	s, err := r.sluice[0].startOn(ctx, dir)
	if err != nil {
		return err
	}
	if err := s.end(); err != nil {
		return err
	}
	begin := time.Now()
	n, err := fillLog(ctx, dir, rows, chats)
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	size, err := sizeOf(dir)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Fprintf(out, "%d events appended in %.1f s (%.0f/s); the directory has %.2f GB\n", n, took.Seconds(), float64(n)/took.Seconds(), size/1e9)
	return nil
}

// fillLog appends to the log of events until it holds rows, and returns how many
// it has appended.
func fillLog(ctx context.Context, dir string, rows, chats int) (n int64, err error) {
	engine, err := local.Open(ctx, local.Config{Dir: dir})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, engine.Close(context.WithoutCancel(ctx))) }()
	events, err := engine.Log(ctx, eventlog.LogConfig{Name: "EVENTS", DedupeWindow: 24 * time.Hour, MaxAge: 7 * 24 * time.Hour}) // as the gateway does
	if err != nil {
		return 0, err
	}
	pattern, err := newPattern(ctx, events, chats)
	if err != nil {
		return 0, err
	}
	first := int64(events.Durable())                     //nolint:gosec // what a disk holds
	missing := int64(rows) - int64(events.State().Count) //nolint:gosec // as above
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range fillers {
		g.Go(func() error {
			for i := next.Add(1); i <= missing; i = next.Add(1) {
				if _, err := events.Append(ctx, pattern.record(uint64(first+i))); err != nil { //nolint:gosec // positive
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return max(0, missing), err
}

// A pattern is a stored event of which others are made. What takes the place of
// its ids and its text is as long, so that its bytes are otherwise the same.
type pattern struct {
	subject, key, chatKey string
	data                  []byte
	message, chat         string // the ids within
	writer                uint64 // the first half of the message ids
	chats                 uint64
}

// newPattern takes the newest event of the log for a pattern: the one with which
// the gateway was greeted.
func newPattern(ctx context.Context, events *eventlog.Log, chats int) (*pattern, error) {
	rec, err := events.Get(ctx, events.Durable())
	if err != nil {
		return nil, err
	}
	e, err := record.Decode(rec.Data, rec.Sequence, events.Epoch(), true)
	if err != nil {
		return nil, err
	}
	p := &pattern{
		subject: rec.Subject, key: e.GetKey(), chatKey: e.GetChatKey(), data: bytes.Clone(rec.Data),
		message: e.GetMessage().GetMessageId(), chat: e.GetMessage().GetChatId(), chats: uint64(chats), //nolint:gosec // positive
	}
	if len(p.message) != len(blankMessage) || len(p.chat) != len(blankChat) || !strings.Contains(p.key, p.message) || !strings.Contains(p.chatKey, p.chat) {
		return nil, fmt.Errorf("the newest event is not one of this program's: %q in %q", p.key, p.chatKey)
	}
	p.writer = newRequest("", 1).writer
	made, err := record.Decode(p.record(1).Data, 1, events.Epoch(), true)
	if err != nil {
		return nil, err
	}
	if got := made.GetMessage().GetMessageId(); got == p.message || !strings.HasSuffix(made.GetKey(), got) || !bytes.Contains(made.GetRaw(), []byte(got)) {
		return nil, errors.New("an event made of a stored one does not say its own message id everywhere")
	}
	return p, nil
}

// record returns the i-th event, from 1.
func (p *pattern) record(i uint64) eventlog.Record {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], p.writer)
	binary.BigEndian.PutUint64(id[8:], i)
	message, chat := hex.EncodeToString(id[:]), chatID(i%p.chats)
	data := bytes.ReplaceAll(p.data, []byte(p.message), []byte(message))
	data = bytes.ReplaceAll(data, []byte(p.chat), []byte(chat))
	data = bytes.ReplaceAll(data, []byte(phrase), textOf(i)) // or all of them would be compressed to nearly nothing
	return eventlog.Record{
		Subject: p.subject,
		Key:     strings.ReplaceAll(p.chatKey, p.chat, chat),
		ID:      record.ID(strings.ReplaceAll(p.key, p.message, message)),
		Data:    data,
	}
}

// textOf returns a text for the i-th event, as long as phrase.
func textOf(i uint64) []byte {
	random := rand.New(rand.NewPCG(i, 1)) //nolint:gosec // a text, not a secret
	text := make([]byte, 0, len(phrase))
	for len(text) < len(phrase) {
		text = utf8.AppendRune(text, '一'+random.Int32N(3000))
	}
	return text
}

// sizeOf returns the bytes of all files below dir.
func sizeOf(dir string) (total float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		total += float64(info.Size())
		return nil
	})
	return total, err
}
