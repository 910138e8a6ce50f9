package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/record"
)

// identify returns the stable identity of an event whose source and path are
// set: source, bot and message id, or source and a hash of the content where
// there is no message id. hashed says which.
func identify(e *sluicev1.Event) (key string, hashed bool, err error) {
	if m := e.GetMessage(); m.GetMessageId() != "" {
		return join(e.GetSource(), record.BotID(m.GetBot()), m.GetMessageId()), false, nil
	}
	content, err := contentHash(e)
	return join(e.GetSource(), content), true, err
}

// chatKey returns what order is kept by, for an event whose source and key are
// set: the chat, else the bot and its counterpart, else the event itself.
func chatKey(e *sluicev1.Event) string {
	if id := record.ChatID(e); id != "" {
		return join(e.GetSource(), id)
	}
	other := record.RoomWxid(e)
	if other == "" {
		other = record.Contact(e)
	}
	if other == "" {
		return e.GetKey()
	}
	return join(e.GetSource(), record.BotID(record.Bot(e)), other)
}

// maxPart is the longest part of a key in bytes that is kept readable. The
// vendor's ids have 36 at most.
const maxPart = 128

var escapePart = strings.NewReplacer("%", "%25", "/", "%2F", "\n", "%0A")

// join puts the parts of a key together, so that no two lists of parts make the
// same key.
func join(parts ...string) string {
	for i, part := range parts {
		switch {
		case len(part) > maxPart:
			parts[i] = "~" + record.ID(part)
		case strings.ContainsAny(part, "%/\n"):
			parts[i] = escapePart.Replace(part)
		}
	}
	return strings.Join(parts, "/")
}

// contentHash returns a hash, in hex, of what an event says. Of a body as the
// vendor sent it, the order of names, the white space and the token do not
// count. The path does: bodies that look alike mean different things on
// different paths, and a retry comes on the path of the first attempt.
func contentHash(e *sluicev1.Event) (string, error) {
	var said [sha256.Size]byte
	if len(e.GetRaw()) > 0 {
		said = callback.Canonical(e.GetRaw())
	} else { // it came typed
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(&sluicev1.Event{Body: e.GetBody()})
		if err != nil {
			return "", fmt.Errorf("encode the body: %w", err)
		}
		said = sha256.Sum256(body)
	}
	sum := sha256.Sum256(append([]byte(e.GetPath()+"\n"), said[:]...))
	return hex.EncodeToString(sum[:]), nil
}

// sameContent reports whether two events with one key say the same, as
// contentHash has it.
func sameContent(a, b *sluicev1.Event) bool {
	switch {
	case a.GetPath() != b.GetPath():
		return false
	case len(a.GetRaw()) == 0 || len(b.GetRaw()) == 0: // one came typed
		return proto.Equal(&sluicev1.Event{Body: a.GetBody()}, &sluicev1.Event{Body: b.GetBody()})
	}
	return bytes.Equal(a.GetRaw(), b.GetRaw()) || callback.Canonical(a.GetRaw()) == callback.Canonical(b.GetRaw())
}
