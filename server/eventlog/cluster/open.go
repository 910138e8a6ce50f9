package eventlog

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// epochKey is the stream's metadata under which its epoch stands.
const epochKey = "sluice-epoch"

// open finds or makes the stream and checks what it holds.
func (l *Log) open(ctx context.Context, n *node) error {
	mark, marked := l.engine.dir.mark(l.cfg.Name)
	l.epoch = cmp.Or(mark.Epoch, newEpoch())
	stream, err := n.js.Stream(ctx, l.cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		// The server passes over a stream whose description is damaged, and
		// takes up its records again when the stream is made anew. The check
		// below says whether they are all there.
		stream, err = n.js.CreateStream(ctx, l.config())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another gateway was faster
			stream, err = n.js.Stream(ctx, l.cfg.Name)
		}
	}
	if err != nil {
		return fmt.Errorf("find or create the stream: %w", err)
	}
	l.epoch = cmp.Or(stream.CachedInfo().Config.Metadata[epochKey], l.epoch)
	state := stream.CachedInfo().State
	if marked {
		if err := l.check(ctx, n, mark, state); err != nil {
			var loss *DataLossError
			if !errors.As(err, &loss) || !l.engine.cfg.AcceptDataLoss {
				return err
			}
			l.engine.logger.Warn("going on without the lost records, as told", "log", l.cfg.Name, "err", err)
			l.epoch = newEpoch()
		} else {
			l.sums = mark.Sums
		}
	}
	if _, err = n.js.UpdateStream(ctx, l.config()); err != nil {
		return fmt.Errorf("update the stream: %w", err)
	}
	// What was recovered may be in the system's cache only: it was written, but
	// perhaps never synced.
	if err := l.engine.dir.sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	l.durable.Store(state.LastSeq)
	l.moved = true
	if l.engine.dir == nil && !l.cfg.Exclusive {
		return l.follow(ctx, n)
	}
	return nil
}

// config returns the stream's configuration.
func (l *Log) config() jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:        l.cfg.Name,
		Subjects:    []string{l.cfg.Name + ".>"},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		MaxAge:      l.cfg.MaxAge,
		MaxBytes:    -1,
		Duplicates:  cmp.Or(l.cfg.DedupeWindow, 2*time.Minute),
		AllowDirect: true,
		Replicas:    1,
		Metadata:    map[string]string{epochKey: l.epoch},
	}
	if l.cfg.MaxBytes > 0 {
		cfg.MaxBytes = l.cfg.MaxBytes
	}
	if l.cfg.DropOldest {
		cfg.Discard = jetstream.DiscardOld
	}
	if l.cfg.MaxAge > 0 {
		cfg.Duplicates = min(cfg.Duplicates, l.cfg.MaxAge)
	}
	if l.engine.dir == nil {
		cfg.Replicas = l.engine.cfg.Replicas
	}
	return cfg
}

func newEpoch() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// check holds what was recovered against the high-water mark.
func (l *Log) check(ctx context.Context, n *node, mark highWater, state jetstream.StreamState) error {
	loss := &DataLossError{Log: l.cfg.Name, Want: mark.Sequence, Have: state.LastSeq}
	if state.LastSeq < mark.Sequence {
		return loss
	}
	for _, want := range mark.Sums {
		records, err := n.fetches.request(ctx, l.cfg.Name, server.JSApiMsgGetRequest{Seq: want.Sequence})
		if err != nil {
			return err
		}
		switch {
		case len(records) == 0 && !l.mayBeGone(want, state):
			loss.Have = want.Sequence - 1
			return loss
		case len(records) == 1 && crcOf(records[0]) != want.Sum:
			loss.Corrupted = true
			return loss
		}
	}
	return nil
}

// mayBeGone reports whether retention can have removed a record since the
// high-water mark was written.
func (l *Log) mayBeGone(r checksum, state jetstream.StreamState) bool {
	return l.cfg.MaxAge > 0 && time.Since(time.UnixMilli(r.Millis)) > l.cfg.MaxAge ||
		l.cfg.DropOldest && r.Sequence < state.FirstSeq
}

// rollback removes the records that n recovered beyond what was durable when
// its predecessor failed, and returns how many there were.
func (l *Log) rollback(ctx context.Context, n *node) (removed int, err error) {
	if l.engine.dir == nil {
		if l.cfg.Exclusive {
			return 0, nil // another gateway may have removed it
		}
		return 0, l.follow(ctx, n)
	}
	stream, err := n.js.Stream(ctx, l.cfg.Name)
	if err != nil {
		return 0, err
	}
	durable, last := l.durable.Load(), stream.CachedInfo().State.LastSeq
	if last < durable {
		return 0, &DataLossError{Log: l.cfg.Name, Want: durable, Have: last}
	}
	for seq := durable + 1; seq <= last; seq++ {
		switch err := n.remove(l.cfg.Name, seq); {
		case err == nil:
			removed++
		case !errors.Is(err, ErrNotFound):
			return removed, fmt.Errorf("remove record %d: %w", seq, err)
		}
	}
	return removed, nil
}

// follow keeps durable up with what other gateways append to the same cluster,
// for as long as n lives: they tell of it, and askEnd finds what is not told.
//
// Only what the stream's leader has acknowledged is told. A consumer would hear
// of records sooner, from a replica that is ahead of the leader; then the
// leader could still say that there is no such record.
func (l *Log) follow(ctx context.Context, n *node) error {
	_, err := n.read.Subscribe(l.endSubject(), func(m *nats.Msg) {
		if last, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
			l.reach(last)
		}
	})
	if err != nil {
		return fmt.Errorf("follow the log's end: %w", err)
	}
	// What came between the look at the stream and the subscription.
	stream, err := n.js.Stream(ctx, l.cfg.Name)
	if err != nil {
		return err
	}
	l.reach(stream.CachedInfo().State.LastSeq)
	return nil
}

// endSubject is where gateways of a cluster tell each other how far the log
// goes: the newest sequence, in decimal.
func (l *Log) endSubject() string { return "sluice.end." + l.cfg.Name + "." + l.epoch }
