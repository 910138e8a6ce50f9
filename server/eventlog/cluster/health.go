package cluster

import (
	"sync/atomic"
	"time"
)

// A health says for how long a log has been silent: since when something should
// have been acknowledged, and nothing was. It outlasts the appends that gave up.
type health struct {
	pending atomic.Int64 // appends under way
	since   atomic.Int64 // when the silence began, in nanoseconds since started; 0 when there is none
}

// started is when the process started, by the monotonic clock, less a little, so
// that no time after it is 0.
var started = time.Now().Add(-time.Second)

// expect takes down that an append is under way.
func (h *health) expect() {
	h.pending.Add(1)
	h.fail()
}

// done takes down that it is no more.
func (h *health) done() { h.pending.Add(-1) }

// fail takes down that something was not answered.
func (h *health) fail() { h.since.CompareAndSwap(0, int64(time.Since(started))) }

// answered takes down that an append was answered.
func (h *health) answered() {
	since := int64(0)
	if h.pending.Load() > 1 {
		since = int64(time.Since(started))
	}
	h.since.Store(since)
}

// idle takes down that the leader answers, unless appends say more.
func (h *health) idle() {
	since := h.since.Load()
	if h.pending.Load() == 0 {
		h.since.CompareAndSwap(since, 0)
	}
}

// silence returns for how long nothing has been answered.
func (h *health) silence() time.Duration {
	since := h.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(started) - time.Duration(since)
}
