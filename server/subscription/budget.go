package subscription

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

// Looking at events gives way to callbacks: who decodes an event for a filter, or
// evaluates an expression, does so in a turn.
//
// What that takes is counted in time, because CEL's cost says little of it: a unit
// takes from 20 ns (searching a long text) to 3 µs (times in a named zone). A usual
// expression takes 5 to 50 µs for an event, the worst some 200 ms.
const (
	// quantum is for how long a lane is used before it rests, for half as long: the
	// runtime sleeps for a millisecond at least.
	quantum = 2 * time.Millisecond

	// cheap is what an event may take, on average, without being held to be
	// expensive. What it takes beyond that is its excess, of which a hundredth of
	// the time that goes by is forgiven. The average of a usual expression stays far
	// below also where all processors are busy.
	cheap    = time.Millisecond
	forgiven = 100

	// callTime is how long one call of ListEvents may take where there is an
	// expression. The page ends then.
	callTime = 2 * time.Second
)

// A lane is where one reader at a time takes its turn.
type lane struct {
	used time.Duration // since it last rested
}

// lanes are the free ones, of half as many as there are processors. Because they
// rest, all turns together take a third of the processors' time.
//
// slowTurn has room for one of the readers whose last event took more than cheap, so
// that the others wait for one of them at most.
var (
	lanes = func() chan *lane {
		c := make(chan *lane, max(1, runtime.GOMAXPROCS(0)/2))
		for range cap(c) {
			c <- &lane{}
		}
		return c
	}()
	slowTurn = make(chan struct{}, 1)
)

// ErrTooExpensive is what a Filter that is Bounded returns once its expression has
// taken too long for an event, on average.
var ErrTooExpensive error = &apierror.Error{
	Code:   codes.ResourceExhausted,
	Reason: sluicev1.ErrorReason_ERROR_REASON_EXPRESSION_TOO_EXPENSIVE,
	Message: "filter.expression takes more than " + cheap.String() +
		" for an event on average: narrow the filter by its other fields, which are looked at first, or make the expression simpler",
}

// errBusy reports a call for whose expression there was no time.
var errBusy = &apierror.Error{
	Code:       codes.ResourceExhausted,
	Reason:     sluicev1.ErrorReason_ERROR_REASON_EXPRESSION_TOO_EXPENSIVE,
	Message:    "so many expressions are evaluated that there was no time for filter.expression: try again, or do without it",
	RetryAfter: 5 * time.Second,
}

// A budget is what the turns of one reader may take. It is safe for concurrent use.
type budget struct {
	tolerance time.Duration // the most excess; 0 is without a bound
	spent     atomic.Int64  // in nanoseconds
	slow      atomic.Bool   // the last event took more than cheap

	mu     sync.Mutex
	excess time.Duration // at the time at
	at     time.Time
}

// turn calls look in a turn. The error is that of look, ErrTooExpensive, or the cause
// of the end of ctx.
func (b *budget) turn(ctx context.Context, look func() (bool, error)) (ok bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if b.slow.Load() {
		select {
		case slowTurn <- struct{}{}:
			defer func() { <-slowTurn }()
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	var at *lane
	select {
	case at = <-lanes:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer func() { lanes <- at }()
	began := time.Now()
	defer func() {
		now := time.Now()
		if b.exceeds(now, now.Sub(began)) && (err == nil || errors.Is(err, ErrEvaluation)) {
			ok, err = false, ErrTooExpensive
		}
		at.rest(ctx, time.Since(began))
	}()
	return look()
}

// rest notes that a lane was used for so long, and lets it rest when it is time.
func (p *lane) rest(ctx context.Context, used time.Duration) {
	if p.used += used; p.used >= quantum {
		if eventlog.Pause(ctx, p.used/2) == nil { // else the next one waits for it
			p.used = 0
		}
	}
}

// exceeds counts that an event took so long until now, and says whether the excess
// is more than there may be.
func (b *budget) exceeds(now time.Time, took time.Duration) bool {
	b.spent.Add(int64(took))
	b.slow.Store(took > cheap)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.excess = max(0, b.excess+took-cheap-now.Sub(b.at)/forgiven)
	b.at = now
	return b.tolerance > 0 && b.excess > b.tolerance
}
