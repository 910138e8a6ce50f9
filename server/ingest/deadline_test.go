package ingest

import (
	"testing"
	"time"
)

// Nobody waits longer than the timeout, and nobody much less.
func TestDeadlines(t *testing.T) {
	const timeout = 16 * time.Hour
	d := deadlines{timeout: timeout}
	began := time.Now()
	for minutes := range 200 {
		now := began.Add(time.Duration(minutes) * time.Minute)
		at, bounded := d.within(now).Deadline()
		if left := at.Sub(now); !bounded || left > timeout || left < timeout-time.Hour {
			t.Errorf("after %d minutes a callback has %v, want %v or up to an hour less", minutes, left, timeout)
		}
	}
	d = deadlines{timeout: time.Nanosecond}
	<-d.within(time.Now()).Done()
}
