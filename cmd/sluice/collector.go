package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is how many bytes of garbage may gather at most before it is
	// collected. Go's own rule, as much garbage as there is that lives, would have
	// a gateway, in which some 10 MB live, collect dozens of times a second under
	// load. Events that wait in consumer groups live for long: about 60 bytes each.
	headroom = 512 << 20

	// lowestPercent and highestPercent bound that in percent of what lives.
	lowestPercent, highestPercent = 100, 400

	tuneInterval = time.Second
)

// tuneCollector keeps the garbage collector at headroom until ctx is done. What
// lives changes slowly: it is mostly the events that wait in consumer groups.
func tuneCollector(ctx context.Context) {
	tick := time.NewTicker(tuneInterval)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := 0; ; {
		metrics.Read(live)
		if percent := collectorPercent(live[0].Value.Uint64()); percent != now {
			now = percent
			debug.SetGCPercent(percent)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// collectorPercent returns what GOGC is to be when so many bytes live, in steps
// that a heap which grows passes seldom.
func collectorPercent(live uint64) int {
	const step = 20
	percent := headroom * 100 / max(live, 1) / step * step
	return int(min(max(percent, lowestPercent), highestPercent))
}
