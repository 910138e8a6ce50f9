package eventlog

import (
	"context"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// End returns the sequence at which the log ends, by what the storage itself
// says: records of other gateways are among those, however new. When it returns,
// readers are shown all of them, and AppendAt of the next sequence fails when
// there are others by then, or some on their way.
//
// It returns ErrUnavailable when the storage cannot be asked.
func (l *Log) End(ctx context.Context) (uint64, error) {
	n, err := l.engine.running(ctx)
	if err != nil {
		return 0, err
	}
	durable := l.Durable()
	stream, err := n.js.Stream(ctx, l.cfg.Name)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	last := stream.CachedInfo().State.LastSeq
	switch {
	case last <= durable:
		return durable, nil
	case l.engine.dir == nil:
		l.mu.Lock()
		l.tail = tail{} // others may have trimmed it
		l.mu.Unlock()
		l.reach(last)
		return last, nil
	}
	// What was rolled back left its numbers behind, but nothing else.
	under, err := n.fetches.request(ctx, l.cfg.Name, server.JSApiMsgGetRequest{Seq: durable + 1, Batch: 1})
	if err != nil || len(under) > 0 {
		return durable, err
	}
	return last, nil
}
