package eventlogtest_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/eventlogtest"
	"github.com/sluicegate/sluice/server/eventlog/local"
)

// TestFaultsWithoutAny holds that an engine without a fault is the real one.
func TestFaultsWithoutAny(t *testing.T) {
	eventlogtest.Run(t, func(t testing.TB) eventlogtest.Harness {
		var ahead atomic.Int64
		cfg := local.Config{Dir: t.TempDir(), Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
		var faults *eventlogtest.Faults
		shut := func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := faults.Close(ctx); err != nil {
				t.Errorf("Close() = %v", err)
			}
		}
		open := func() eventlog.Engine {
			engine, err := local.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if faults == nil {
				faults = eventlogtest.Break(engine)
			}
			faults.Over(engine)
			return faults
		}
		t.Cleanup(shut)
		return eventlogtest.Harness{
			Engine:  open(),
			Reopen:  func() eventlog.Engine { shut(); return open() },
			Advance: func(d time.Duration) { ahead.Add(int64(d)) },
		}
	})
}
