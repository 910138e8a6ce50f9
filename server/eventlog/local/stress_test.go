package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A ledger is what the engine has answered about one log.
type ledger struct {
	mu      sync.Mutex
	data    map[uint64]string // records that were acknowledged, and not removed for sure
	tried   map[string]bool   // contents that were handed over
	ids     map[string]uint64 // sequences, by ID
	maybe   map[uint64]bool   // a removal whose outcome is unknown
	trimmed uint64            // every sequence before it may be gone
}

// stressLogs are logs of every kind.
var stressLogs = []eventlog.LogConfig{
	{Name: "EVENTS", DedupeWindow: time.Hour},
	{Name: "DROPS", DedupeWindow: time.Hour, MaxBytes: 60_000, DropOldest: true},
	{Name: "REFUSES", DedupeWindow: time.Hour, MaxBytes: 200_000, Deletes: true},
	{Name: "JOURNAL", Deletes: true},
}

// TestStress has many callers use several logs in every way, ends the process at
// a random moment, and holds what is there afterwards against what was answered.
func TestStress(t *testing.T) {
	rounds, seed := 3, uint64(time.Now().UnixNano())
	if s := os.Getenv("ROUNDS"); s != "" {
		fmt.Sscan(s, &rounds)
	}
	if s := os.Getenv("SEED"); s != "" {
		fmt.Sscan(s, &seed)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	cfg := Config{Dir: t.TempDir(), tune: small}
	ledgers := map[string]*ledger{}
	for _, c := range stressLogs {
		ledgers[c.Name] = &ledger{data: map[uint64]string{}, tried: map[string]bool{}, ids: map[string]uint64{}, maybe: map[uint64]bool{}}
	}
	for round := range rounds {
		e, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatalf("round %d: Open() = %v", round, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, c := range stressLogs {
			l, err := e.Log(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			w := &stress{t: t, ctx: ctx, log: l, ledger: ledgers[c.Name], round: round}
			w.check()
			for i := range 6 {
				r := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
				wg.Go(func() { w.write(r) })
			}
			wg.Go(w.follow)
			wg.Go(func() { w.read(rand.New(rand.NewPCG(seed, uint64(round)))) })
		}
		<-time.After(time.Duration(200+random.IntN(800)) * time.Millisecond)
		if random.IntN(4) == 0 {
			closeEngine(t, e)
		} else {
			cfg.Dir = kill(t, e)
		}
		cancel()
		wg.Wait()
		if t.Failed() {
			return
		}
	}
	e := openAt(t, cfg)
	for _, c := range stressLogs {
		w := &stress{t: t, ctx: t.Context(), log: openLog(t, e, c), ledger: ledgers[c.Name]}
		w.check()
		w.twins()
		if problems, err := e.Audit(t.Context(), c.Name); err != nil || len(problems) > 0 {
			t.Errorf("Audit(%s) = %q, %v", c.Name, problems, err)
		}
	}
}

// A stress uses one log.
type stress struct {
	t      *testing.T
	ctx    context.Context
	log    *eventlog.Log
	ledger *ledger
	round  int
}

// over reports whether err is one that the end of the engine may bring.
func (w *stress) over(err error) bool {
	return errors.Is(err, eventlog.ErrClosed) || errors.Is(err, eventlog.ErrUnavailable) || errors.Is(err, context.Canceled)
}

// write changes the log until the engine ends.
func (w *stress) write(random *rand.Rand) {
	for n := 0; ; n++ {
		var err error
		switch p := random.IntN(100); {
		case p < 70:
			err = w.append(random, n)
		case p < 80:
			err = w.appendAt(random)
		case p < 85 && w.log.Config().Deletes:
			err = w.remove(w.log.State().First+uint64(random.IntN(20)), false)
		case p < 86 && w.log.Config().Deletes:
			err = w.remove(w.log.State().First+uint64(random.IntN(60)), true)
		}
		switch {
		case w.over(err):
			return
		case errors.Is(err, eventlog.ErrFull):
			<-time.After(time.Millisecond)
		case err != nil && !errors.Is(err, eventlog.ErrConflict) && !errors.Is(err, eventlog.ErrNotFound):
			w.t.Errorf("%s: %v", w.log.Name(), err)
			return
		}
	}
}

// content returns a record's content, and notes that it may be stored.
func (w *stress) content(random *rand.Rand, id string) string {
	data := fmt.Sprintf("%s %d %s", id, random.Uint64(), bytes.Repeat([]byte("y"), random.IntN(1500)))
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	w.ledger.tried[data] = true
	return data
}

// stored notes that a record was acknowledged.
func (w *stress) stored(sequence uint64, data string) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	if was, ok := w.ledger.data[sequence]; ok && was != data {
		w.t.Errorf("%s: %d was given to %.40q and %.40q", w.log.Name(), sequence, was, data)
	}
	w.ledger.data[sequence] = data
	if d := w.log.Durable(); d < sequence {
		w.t.Errorf("%s: %d is acknowledged, and readers are shown %d", w.log.Name(), sequence, d)
	}
}

// append appends a record, sometimes several times at once.
func (w *stress) append(random *rand.Rand, n int) error {
	id := fmt.Sprint(w.round, ".", n, ".", random.IntN(4)) // other callers use the same
	data := w.content(random, id)
	twins := 1 + random.IntN(2)
	errs := make([]error, twins)
	var wg sync.WaitGroup
	for i := range twins {
		wg.Go(func() {
			a, err := w.log.Append(w.ctx, eventlog.Record{Subject: "s", ID: id, Key: id[:3], Data: []byte(data)})
			if errs[i] = err; err != nil {
				return
			}
			if !a.Duplicate {
				w.stored(a.Sequence, data)
			} else if d := w.log.Durable(); d < a.Sequence {
				w.t.Errorf("%s: the twin of %d is answered, and readers are shown %d", w.log.Name(), a.Sequence, d)
			}
			w.ledger.mu.Lock()
			defer w.ledger.mu.Unlock()
			if was, ok := w.ledger.ids[id]; ok && was != a.Sequence {
				w.t.Errorf("%s: ID %s is at %d and %d", w.log.Name(), id, was, a.Sequence)
			}
			w.ledger.ids[id] = a.Sequence
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *stress) appendAt(random *rand.Rand) error {
	sequence, data := w.log.Durable()+1, w.content(random, "at")
	err := w.log.AppendAt(w.ctx, sequence, eventlog.Record{Subject: "s", Key: "at", Data: []byte(data)})
	if err == nil {
		w.stored(sequence, data)
	}
	return err
}

// remove deletes a record, or trims the log.
func (w *stress) remove(sequence uint64, trim bool) error {
	w.ledger.mu.Lock()
	if trim {
		w.ledger.trimmed = max(w.ledger.trimmed, min(sequence, w.log.Durable()+1))
	} else {
		w.ledger.maybe[sequence] = true
	}
	w.ledger.mu.Unlock()
	if trim {
		return w.log.Trim(w.ctx, min(sequence, w.log.Durable()+1))
	}
	err := w.log.Delete(w.ctx, sequence)
	if err == nil {
		if r, err := w.log.Get(w.ctx, sequence); !errors.Is(err, eventlog.ErrNotFound) && !w.over(err) {
			w.t.Errorf("%s: Get(%d) after its removal = %d, %v", w.log.Name(), sequence, r.Sequence, err)
		}
	}
	return err
}

// seen holds a record that was read against the ledger.
func (w *stress) seen(r eventlog.Record) error {
	if d := w.log.Durable(); d < r.Sequence {
		w.t.Errorf("%s: record %d is shown, durable is %d", w.log.Name(), r.Sequence, d)
	}
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	if data, ok := w.ledger.data[r.Sequence]; ok && data != string(r.Data) || !w.ledger.tried[string(r.Data)] {
		w.t.Errorf("%s: record %d is %.40q, was %.40q", w.log.Name(), r.Sequence, r.Data, data)
	}
	return nil
}

func (w *stress) follow() {
	position := uint64(0)
	err := w.log.Follow(w.ctx, 1, func(step eventlog.Step) error {
		if step.Damaged != nil {
			return step.Damaged
		}
		for _, r := range step.Records {
			if r.Sequence <= position {
				w.t.Errorf("%s: record %d after %d", w.log.Name(), r.Sequence, position)
			}
			position = r.Sequence
			_ = w.seen(r)
		}
		position = max(position, step.Position)
		return nil
	})
	if !w.over(err) {
		w.t.Errorf("%s: Follow() = %v", w.log.Name(), err)
	}
}

// read reads the log in every way until the engine ends.
func (w *stress) read(random *rand.Rand) {
	for {
		var err error
		state := w.log.State()
		switch random.IntN(5) {
		case 0:
			w.log.Forget()
			err = w.log.Scan(w.ctx, state.First, state.Last, w.seen)
		case 1:
			var records []eventlog.Record
			records, err = w.log.ReadKey(w.ctx, []string{"at", fmt.Sprint(w.round, ".1")}[random.IntN(2)], 0, 50, random.IntN(2) == 0)
			for _, r := range records {
				_ = w.seen(r)
			}
		case 2:
			_, err = w.log.Get(w.ctx, state.First+uint64(random.IntN(30)))
		case 3:
			_, err = w.log.SequenceAt(w.ctx, time.Now().Add(-time.Duration(random.IntN(1000))*time.Millisecond))
		case 4:
			_, err = w.log.Last(w.ctx, 30)
		}
		if w.over(err) {
			return
		}
		if err != nil && !errors.Is(err, eventlog.ErrNotFound) {
			w.t.Errorf("%s: a read = %v", w.log.Name(), err)
			return
		}
		if after := w.log.State(); after.Last < state.Last || after.First < state.First || after.Count > after.Last+1-after.First {
			w.t.Errorf("%s: State() = %+v after %+v", w.log.Name(), after, state)
		}
	}
}

// check holds all that the log has against the ledger.
func (w *stress) check() {
	w.t.Helper()
	state := w.log.State()
	want := maps.Clone(w.ledger.data)
	count, size := uint64(0), uint64(0)
	err := w.log.Scan(w.ctx, 1, w.log.Durable(), func(r eventlog.Record) error {
		delete(want, r.Sequence)
		w.ledger.data[r.Sequence] = string(r.Data) // what was not answered may be there
		count++
		size += uint64(len(r.Data))
		return w.seen(r)
	})
	if err != nil {
		w.t.Errorf("%s: Scan() = %v", w.log.Name(), err)
	}
	if state.Count != count || state.Bytes < size {
		w.t.Errorf("%s: State() = %+v, and %d records of %d bytes are there", w.log.Name(), state, count, size)
	}
	maps.DeleteFunc(want, func(sequence uint64, _ string) bool {
		return sequence < w.ledger.trimmed || w.ledger.maybe[sequence] ||
			w.log.Config().DropOldest && sequence < state.First
	})
	if len(want) > 0 {
		w.t.Errorf("%s: %d acknowledged records are gone, the first is %d of %d to %d", w.log.Name(), len(want),
			slices.Min(slices.Collect(maps.Keys(want))), state.First, state.Last)
	}
	for key, reverse := range map[string]bool{"at": true, "0.1": false} {
		records, err := w.log.ReadKey(w.ctx, key, 0, 1000, reverse)
		if err != nil {
			w.t.Errorf("%s: ReadKey(%s) = %v", w.log.Name(), key, err)
		}
		for _, r := range records {
			_ = w.seen(r)
		}
	}
}

// twins appends what was acknowledged again: nothing of it is stored.
func (w *stress) twins() {
	n := 0
	for id, sequence := range w.ledger.ids {
		if n++; n > 100 || w.log.Config().DedupeWindow < time.Hour {
			return
		}
		a, err := w.log.Append(w.ctx, eventlog.Record{Subject: "s", ID: id})
		if err != nil || !a.Duplicate || a.Sequence != sequence {
			w.t.Errorf("%s: the twin of %d = %+v, %v", w.log.Name(), sequence, a, err)
		}
	}
}
