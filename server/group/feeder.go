package group

import (
	"context"
	"errors"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/group/schedule"
	"github.com/sluicegate/sluice/server/subscription"
)

// retryDelay is how long to wait before a storage is asked again that could not
// be used.
const retryDelay = 100 * time.Millisecond

// A feed is a part of the log as a filter sees it.
type feed struct {
	events   []schedule.Event
	records  []eventlog.Record // those of events
	position uint64            // up to here there are no others
	first    uint64            // the oldest event held; 0 is no news
}

// A feeder reads the log for a group, in a goroutine of its own.
type feeder struct {
	feeds chan feed // without a buffer: it reads one feed ahead
	stop  context.CancelFunc
	done  chan struct{}
}

// feed starts a feeder that begins after position.
func (s *Service) feed(ctx context.Context, filter *subscription.Filter, position uint64) *feeder {
	ctx, stop := context.WithCancel(ctx)
	f := &feeder{feeds: make(chan feed), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		f.run(ctx, s, filter, position)
	}()
	return f
}

// close ends the feeder, and waits for it.
func (f *feeder) close() {
	f.stop()
	<-f.done
}

func (f *feeder) run(ctx context.Context, s *Service, filter *subscription.Filter, position uint64) {
	r := s.events.Read(position + 1)
	for {
		records, err := r.Next(ctx, maxRead)
		var gone *eventlog.TruncatedError
		var out feed
		switch {
		case err == nil:
			out.position = r.Position()
			for _, rec := range records {
				if e, ok := s.selectEvent(rec, filter); ok {
					out.events = append(out.events, e)
					out.records = append(out.records, rec)
				}
			}
		case errors.As(err, &gone):
			r.Seek(gone.First)
			out.position, out.first = gone.First-1, gone.First
		case ctx.Err() != nil, errors.Is(err, eventlog.ErrClosed):
			return
		default:
			if pause(ctx, retryDelay) != nil {
				return
			}
			continue
		}
		select {
		case f.feeds <- out:
		case <-ctx.Done():
			return
		}
	}
}

// pause waits for d, or returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
