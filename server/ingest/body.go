package ingest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// smallBody is how many bytes of a body may be read without asking for room.
	// Ordinary messages have one or two KiB: large bodies do not keep them waiting.
	smallBody = 16 << 10

	// firstRead is the least memory for a body in bytes.
	firstRead = 4 << 10

	// maxRoom is the room in bytes for large bodies, all together. Decoding one
	// can take fifteen times its length: 800 bodies of 1 MB at once, of numbers,
	// took a process to 360 MB with a room of 8 MiB and to 710 MB with 32.
	maxRoom = 8 << 20
)

// errNoRoom reports that there was no room for a large body in time.
var errNoRoom = errors.New("ingest: no room for the body")

// A body is that of one request, whole, and what the gateway gets with it. All
// of it goes to another request when it is freed.
type body struct {
	data []byte
	room int64 // that it holds, in bytes
	call call
}

// Bodies reads bodies into memory, which grows with what arrives, whatever a
// request announces. It is safe for concurrent use.
type bodies struct {
	limit   int64 // of one, in bytes
	room    *semaphore.Weighted
	timeout time.Duration // how long a body waits for room
	unused  sync.Pool     // of *body, with smallBody of memory at most
}

func newBodies(limit, room int64, timeout time.Duration) *bodies {
	return &bodies{
		limit: limit, room: semaphore.NewWeighted(max(room, limit)), timeout: timeout,
		unused: sync.Pool{New: func() any { return &body{data: make([]byte, 0, firstRead), call: newCall()} }},
	}
}

// read returns the body of r, which must be freed. The error is
// *http.MaxBytesError when it is over the limit, errNoRoom, or that of reading.
func (bs *bodies) read(r *http.Request) (*body, error) {
	if r.ContentLength > bs.limit {
		return nil, &http.MaxBytesError{Limit: bs.limit}
	}
	b, _ := bs.unused.Get().(*body)
	err := bs.fill(b, r)
	if err != nil {
		bs.free(b)
		return nil, err
	}
	return b, nil
}

func (bs *bodies) fill(b *body, r *http.Request) error {
	for {
		if len(b.data) == cap(b.data) {
			if err := bs.grow(b, r); err != nil {
				return err
			}
		}
		n, err := r.Body.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		switch {
		case int64(len(b.data)) > bs.limit:
			return &http.MaxBytesError{Limit: bs.limit}
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// grow doubles the memory of b. Before it is more than smallBody, room is taken
// for the whole body at once: so nobody waits who holds a part of it, and two
// large bodies cannot wait for each other.
func (bs *bodies) grow(b *body, r *http.Request) error {
	size := 2 * int64(cap(b.data))
	if size > smallBody && b.room == 0 {
		whole := r.ContentLength
		if whole < 0 {
			whole = bs.limit
		}
		ctx, cancel := context.WithTimeout(r.Context(), bs.timeout)
		defer cancel()
		if bs.room.Acquire(ctx, whole) != nil {
			return errNoRoom
		}
		b.room = whole
	}
	data := make([]byte, len(b.data), min(size, bs.limit+1)) // one more byte shows a body that is too large
	copy(data, b.data)
	b.data = data
	return nil
}

// free gives back what b holds. Nothing may refer to any of it any more.
func (bs *bodies) free(b *body) {
	if b.room > 0 {
		bs.room.Release(b.room)
	}
	if cap(b.data) <= smallBody {
		b.data, b.room = b.data[:0], 0
		bs.unused.Put(b)
	}
}
