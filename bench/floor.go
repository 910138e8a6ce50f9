package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/record"
)

// A floor is the least that can keep a typed event: what the limit does, and
// decodes the body, encodes the event once, and writes it with its identity and
// its chat, all as long as the local engine writes them. It has no gateway, no
// tokens, no look for duplicates, no metrics and no readers. How far Sluice stays
// below it is what those cost; how far it stays below the limit is what typing
// costs, half of which is bytes.
type floor struct {
	db   *pebble.DB
	last atomic.Uint64 // the newest sequence given out
}

const (
	floorSource = "default"
	floorHead   = 4 + 8 + 8 + 1 // checksum, time, total, flags
	floorHash   = 16            // bytes of a hash that stand for an identity or a chat
)

// ServeHTTP answers one callback. It is safe for concurrent use.
func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	batch := f.db.NewBatch()
	decoded := callback.Decode(body)
	for _, e := range decoded.GetEvents() {
		if err := f.put(batch, e, decoded.GetRaw()); err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
	}
	if batch.Empty() {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		http.Error(w, "", http.StatusServiceUnavailable)
		return
	}
	answerOK(w)
}

// put adds an event to a batch: its record, its identity and its chat.
func (f *floor) put(batch *pebble.Batch, e *sluicev1.Event, raw []byte) error {
	m := e.GetMessage()
	e.Source, e.Path, e.Raw = floorSource, "/message", raw
	e.ReceiveTime, e.DecoderVersion = timestamppb.Now(), callback.Version
	e.Key = floorSource + "/" + m.GetBot().GetId() + "/" + m.GetMessageId()
	e.ChatKey = floorSource + "/" + m.GetChatId()
	data, err := record.Encode(e)
	if err != nil {
		return err
	}
	subject := "message." + strconv.Itoa(int(m.GetType())) + "." + floorSource + "." + m.GetBot().GetId() + ".plain"
	id, chat := sha256.Sum256([]byte(e.GetKey())), sha256.Sum256([]byte(e.GetChatKey()))
	sequence, now := f.last.Add(1), uint64(time.Now().UnixNano())

	set := batch.SetDeferred(1+4+8, floorHead+2*floorHash+1+len(subject)+len(data))
	floorKey(set.Key, 'r', sequence)
	v := set.Value[4:]
	binary.BigEndian.PutUint64(v, now)
	binary.BigEndian.PutUint64(v[8:], sequence)
	v[16] = 3
	v = v[17:]
	v = v[copy(v, id[:floorHash]):]
	v = v[copy(v, chat[:floorHash]):]
	v[0] = byte(len(subject)) //nolint:gosec // short
	v = v[1:]
	v = v[copy(v, subject):]
	copy(v, data)
	binary.BigEndian.PutUint32(set.Value, crc32.Checksum(set.Value[4:], castagnoli))
	if err := set.Finish(); err != nil {
		return err
	}

	var key [1 + 4 + 8 + floorHash + 8]byte
	floorKey(key[:], 'i', now>>46) // a bucket of hours
	copy(key[13:], id[:floorHash])
	var at [16]byte
	binary.BigEndian.PutUint64(at[:], sequence)
	binary.BigEndian.PutUint64(at[8:], now)
	if err := batch.Set(key[:13+floorHash], at[:], nil); err != nil {
		return err
	}
	floorKey(key[:], 'k', sequence>>20)
	copy(key[13:], chat[:floorHash])
	binary.BigEndian.PutUint64(key[13+floorHash:], sequence)
	return batch.Set(key[:], nil, nil)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// floorKey writes what a key begins with: its kind, the number of the log, and a
// sequence or bucket.
func floorKey(key []byte, kind byte, n uint64) {
	key[0] = kind
	binary.BigEndian.PutUint32(key[1:], 1)
	binary.BigEndian.PutUint64(key[5:], n)
}

// runFloor serves the floor server until ctx is done.
func runFloor(ctx context.Context, args []string, _ io.Writer) error {
	return serveOwn(ctx, "floor", args, func(db *pebble.DB) http.Handler { return &floor{db: db} })
}
