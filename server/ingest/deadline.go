package ingest

import (
	"context"
	"sync"
	"time"
)

// Deadlines gives callbacks their commit timeout. Those that come at about the
// same time share a context and its timer: one of its own cost each of them a
// tenth of what the handler does. It is safe for concurrent use.
type deadlines struct {
	timeout time.Duration

	mu     sync.Mutex
	shared context.Context    //nolint:containedctx // what is shared
	cancel context.CancelFunc // for nobody: the context ends by itself, while others may still use it
	until  time.Time          // who comes later gets another
}

// within returns a context that ends with the timeout, or up to a sixteenth of
// it earlier.
func (d *deadlines) within(now time.Time) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.After(d.until) {
		d.shared, d.cancel = context.WithDeadline(context.Background(), now.Add(d.timeout)) //nolint:gosec // it ends by itself
		d.until = now.Add(d.timeout / 16)
	}
	return d.shared
}
