package local

import (
	"context"
	"time"

	"github.com/sluicegate/sluice/server/failpoint"
)

const (
	sweepInterval = time.Second

	// A clock that goes ahead by more than jump at once is not believed for hold:
	// if it is wrong, everything that is kept would go.
	jump = 24 * time.Hour
	hold = time.Hour

	// slack is how much longer than MaxAge the oldest records may stay, as a part
	// of MaxAge, so that they go in ranges.
	slack = 1000
)

// A sweeper removes what is too old or too much. Only its goroutine uses it.
type sweeper struct {
	engine *Engine
	seen   time.Time // the latest time of the clock
	held   time.Time // until then the clock is not believed
}

// sweepSoon has the sweeper look at once.
func (e *Engine) sweepSoon() {
	select {
	case e.sweep <- struct{}{}:
	default: // it will look anyway
	}
}

// run sweeps until the engine closes or fails.
func (w *sweeper) run() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-w.engine.over:
			return
		case <-tick.C:
		case <-w.engine.sweep:
		}
		w.sweep()
	}
}

// believe reports whether the clock's time now can be one to remove records by.
func (w *sweeper) believe(now time.Time) bool {
	if ahead := now.Sub(w.seen); !w.seen.IsZero() && ahead > jump {
		w.held = now.Add(hold)
		w.engine.logger.Warn("the clock is far ahead of when the log was last written, so retention by age waits; stop the gateway if the clock is wrong",
			"ahead", ahead.Round(time.Second), "wait", hold)
	}
	w.seen = now
	return !now.Before(w.held)
}

// sweep looks at each log.
func (w *sweeper) sweep() {
	now := w.engine.cfg.Clock()
	believed := w.believe(now)
	for _, s := range w.engine.opened() {
		if err := w.sweepLog(s, now, believed); err != nil && w.engine.closedErr() == nil {
			w.engine.logger.Warn("retention is behind", "log", s.name, "err", err)
		}
	}
}

func (w *sweeper) sweepLog(s *store, now time.Time, believed bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), w.engine.cfg.CommitTimeout)
	defer cancel()
	l := s.opened()
	state, cfg := s.State(), l.Config()
	first := state.First
	if age := cfg.MaxAge; age > 0 && believed && !state.Since.IsZero() && now.Sub(state.Since) > age+age/slack {
		reached, err := read(ctx, w.engine, func() (uint64, error) {
			return s.search(func(r stored) bool { return now.Sub(r.Time) <= age })
		})
		if err != nil {
			return err
		}
		first = max(first, reached)
	}
	if most := cfg.MaxBytes; cfg.DropOldest && most > 0 && state.Bytes > uint64(most) {
		over := state.Bytes - uint64(most)
		reached, err := read(ctx, w.engine, func() (uint64, error) {
			oldest, found, err := s.firstFrom(state.First, state.Last)
			if err != nil || !found {
				return state.First, err
			}
			return s.search(func(r stored) bool { return r.total >= oldest.total+over })
		})
		if err != nil {
			return err
		}
		first = max(first, reached)
	}
	if first <= state.First {
		return nil
	}
	if err := failpoint.Hit("during-retention"); err != nil {
		return err
	}
	return l.Trim(ctx, first) // which lets go of what is in memory, too
}
