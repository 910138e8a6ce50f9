package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/sluicegate/sluice/server/eventlog"
)

// Faults is an engine over a real one: its logs are those of the real one, and
// fail as a test says. It is safe for concurrent use.
type Faults struct {
	eventlog.Engine // the real one

	options eventlog.Options

	mu     sync.Mutex
	faults map[string]Fault // by log
	logs   map[string]*broken
}

// A Fault is what is wrong with a log. The zero value is nothing.
type Fault struct {
	First, Last uint64 // these records are damaged; 0 and 0 are none
	Down        bool   // the log cannot be read, and nobody knows its end
	Flaky       int    // each so many appends one fails, and every other one of those is stored; 0 is none
	NoAppends   bool   // appends fail, and nothing is stored
	NoTrims     bool   // Trim fails, and nothing is removed
	NoRemoval   bool   // Engine.Remove fails, and nothing is removed
}

var errDamaged = errors.New("the test has damaged it")

// errFault is what fails when the test says so.
var errFault = fmt.Errorf("%w: the test has it fail", eventlog.ErrUnavailable)

// Break returns an engine over engine, without a fault.
func Break(engine eventlog.Engine) *Faults {
	metrics, _ := eventlog.NewMetrics(nil) // only to register them can fail
	return &Faults{
		Engine:  engine,
		options: eventlog.Options{Metrics: metrics, Logger: slog.New(slog.DiscardHandler)},
		faults:  map[string]Fault{}, logs: map[string]*broken{},
	}
}

// Over has f be over engine, once the one before was closed. Faults stay.
func (f *Faults) Over(engine eventlog.Engine) { f.Engine = engine }

// Set has a log fail like that from now on, whether it is there yet or not.
func (f *Faults) Set(log string, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[log] = fault
}

// of returns what is wrong with a log.
func (f *Faults) of(log string) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults[log]
}

// Log implements eventlog.Engine.
func (f *Faults) Log(ctx context.Context, cfg eventlog.LogConfig) (*eventlog.Log, error) {
	l, err := f.Engine.Log(ctx, cfg)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.logs[cfg.Name]
	if b == nil || b.Log != l {
		b = &broken{Log: l, faults: f}
		b.shown = eventlog.NewLog(l.Config(), l.Epoch(), l.Durable(), b, f.options)
		f.logs[cfg.Name] = b
	}
	return b.shown, nil
}

// Remove implements eventlog.Engine.
func (f *Faults) Remove(ctx context.Context, name string) error {
	if f.of(name).NoRemoval {
		return errFault
	}
	err := f.Engine.Remove(ctx, name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.logs[name]; b != nil && err == nil {
		b.shown.Close()
		delete(f.logs, name)
	}
	return err
}

// Close implements eventlog.Engine.
func (f *Faults) Close(ctx context.Context) error {
	err := f.Engine.Close(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.logs {
		b.shown.Close()
	}
	clear(f.logs)
	return err
}

// A broken is a log of Faults. It implements eventlog.Store with the real log.
// Nothing is kept in memory of what it shows, so that each read is one of it.
type broken struct {
	*eventlog.Log // the real one

	faults *Faults
	shown  *eventlog.Log // what is over it

	mu      sync.Mutex
	appends int
}

// Append implements eventlog.Store.
func (b *broken) Append(ctx context.Context, r eventlog.Record) (eventlog.Appended, error) {
	fault := b.faults.of(b.Name())
	fails, stored := b.draw(fault.Flaky)
	if fault.NoAppends || fails && !stored {
		return eventlog.Appended{}, errFault
	}
	a := eventlog.Appended{Sequence: r.Sequence}
	var err error
	if r.Sequence > 0 {
		err = b.AppendAt(ctx, r.Sequence, r)
	} else {
		a, err = b.Log.Append(ctx, r)
	}
	b.shown.Advance(nil, b.Durable())
	switch {
	case err != nil:
		return eventlog.Appended{}, err
	case fails:
		return eventlog.Appended{}, errFault
	}
	return a, nil
}

// draw says whether the next append fails, and whether it is stored then.
func (b *broken) draw(flaky int) (fails, stored bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.appends++
	return flaky > 0 && b.appends%flaky == 0, flaky > 0 && b.appends/flaky%2 == 1
}

// Fetch implements eventlog.Store.
func (b *broken) Fetch(ctx context.Context, from, to uint64, limit int) ([]eventlog.Record, uint64, error) {
	fault := b.faults.of(b.Name())
	switch {
	case fault.Down:
		return nil, 0, errFault
	case from < fault.First:
		to = min(to, fault.First-1)
	case from <= fault.Last && from >= b.State().First:
		return nil, 0, &eventlog.DamagedError{Log: b.Name(), First: from, Last: min(to, fault.Last), Err: errDamaged}
	}
	reader := b.Read(from)
	records, err := reader.Next(ctx, int(min(uint64(limit), to-from+1))) //nolint:gosec // limit is small, and positive
	if err != nil {
		return nil, 0, err
	}
	records = slices.DeleteFunc(records, func(r eventlog.Record) bool { return r.Sequence > to })
	return records, min(reader.Position(), to), nil
}

// Trim implements eventlog.Store.
func (b *broken) Trim(ctx context.Context, sequence uint64) error {
	if b.faults.of(b.Name()).NoTrims {
		return errFault
	}
	return b.Log.Trim(ctx, sequence)
}

// End implements eventlog.Store.
func (b *broken) End(ctx context.Context) (uint64, error) {
	if b.faults.of(b.Name()).Down {
		return 0, errFault
	}
	end, err := b.Log.End(ctx)
	if err == nil {
		b.shown.Advance(nil, end)
	}
	return end, err
}
