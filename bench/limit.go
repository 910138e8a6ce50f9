package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// A limit is the least that can keep the promise of errcode 0: it reads the
// body, appends it to a write-ahead log that commits in groups, and answers
// once that is synced. It knows no JSON, no tokens, no duplicates and no
// readers: what those cost is how far Sluice stays below it.
type limit struct {
	db   *pebble.DB
	keys atomic.Uint64 // the newest key given out
}

// ServeHTTP answers one callback. It is safe for concurrent use.
func (l *limit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	key := binary.BigEndian.AppendUint64(nil, l.keys.Add(1))
	if err := l.db.Set(key, body, pebble.Sync); err != nil {
		http.Error(w, "", http.StatusServiceUnavailable)
		return
	}
	answerOK(w)
}

// readBody returns the body of a callback, or answers that there is none.
func readBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	if r.ContentLength < 0 || r.ContentLength > 1<<20 {
		http.Error(w, "", http.StatusRequestEntityTooLarge)
		return nil, false
	}
	body = make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, "", http.StatusBadRequest)
		return nil, false
	}
	return body, true
}

func answerOK(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, okAnswer) // an error is the client's: it left
}

// runLimit serves the limit server until ctx is done.
func runLimit(ctx context.Context, args []string, _ io.Writer) error {
	return serveOwn(ctx, "limit", args, func(db *pebble.DB) http.Handler { return &limit{db: db} })
}

// serveOwn serves the limit or the floor server, on a new database, until ctx is
// done.
func serveOwn(ctx context.Context, name string, args []string, handler func(*pebble.DB) http.Handler) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "where to listen")
	dir := flags.String("dir", "", "data directory, empty or missing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	db, err := pebble.Open(*dir, &pebble.Options{
		MemTableSize:       64 << 20, // bytes; only the log counts here, so flush the rest seldom
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             quiet{pebble.DefaultLogger},
		ErrorIfExists:      true,
	})
	if err != nil {
		return fmt.Errorf("open %q: %w", *dir, err)
	}
	server := &http.Server{Addr: *addr, Handler: handler(db), ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1) // holds the one outcome
	context.AfterFunc(ctx, func() { stopped <- server.Shutdown(context.WithoutCancel(ctx)) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(err, db.Close())
	}
	return errors.Join(<-stopped, db.Close())
}

// quiet drops what Pebble says while all is well.
type quiet struct{ pebble.Logger }

// Infof implements pebble.Logger.
func (quiet) Infof(string, ...any) {}
