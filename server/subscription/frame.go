package subscription

import (
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluicegate/sluice/server/eventlog"
)

// The numbers of the fields of which a frame with events is made.
const (
	eventField  protowire.Number = 1  // EventBatch.events
	eventsField protowire.Number = 2  // SubscribeResponse.events
	cursorField protowire.Number = 15 // SubscribeResponse.cursor
)

// A frame is a SubscribeResponse with events in its wire form: what stands before
// the batch, and the batch.
type frame mem.BufferSlice

// newFrame returns the frame with that cursor whose EventBatch is batch in its
// wire form. The batch goes back to batches once it is on the wire.
func newFrame(cursor string, batch *[]byte) frame {
	head := make([]byte, 0, 64)
	head = protowire.AppendTag(head, cursorField, protowire.BytesType)
	head = protowire.AppendString(head, cursor)
	head = protowire.AppendTag(head, eventsField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(*batch)))
	return frame{mem.SliceBuffer(head), mem.NewBuffer(batch, &batches)}
}

// A codec is gRPC's codec for protobuf, but that a frame passes as it is.
type codec struct{ encoding.CodecV2 }

// Codec returns the codec that a gRPC server must have that serves a Service. On
// the wire it is protobuf.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(frame); ok {
		return mem.BufferSlice(f), nil
	}
	return c.CodecV2.Marshal(v)
}

const (
	// eventRoom is what an event takes in a frame besides its record, in bytes:
	// where it stands in the log, and how long it is.
	eventRoom = 64

	// batchRoom is how many bytes a batch that is used again has room for: what
	// one read of the log returns. minPooled is the fewest for which one is.
	batchRoom = eventlog.MaxReadBytes + maxBatch*eventRoom
	minPooled = 16 << 10
)

// batches keeps the memory of batches for the next ones.
var batches batchPool

// A batchPool is memory for batches. It implements mem.BufferPool.
type batchPool struct{ pool sync.Pool }

// Get implements mem.BufferPool. What it returns is empty, and has that room.
func (p *batchPool) Get(room int) *[]byte {
	if minPooled <= room && room <= batchRoom {
		if b, ok := p.pool.Get().(*[]byte); ok {
			return b
		}
		room = batchRoom
	}
	b := make([]byte, 0, room)
	return &b
}

// Put implements mem.BufferPool.
func (p *batchPool) Put(b *[]byte) {
	if cap(*b) == batchRoom {
		*b = (*b)[:0]
		p.pool.Put(b)
	}
}
