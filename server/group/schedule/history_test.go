package schedule_test

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicegate/sluice/server/group/schedule"
)

// TestModel runs random histories of a group against the model. A failure is
// minimised, and printed with the seed that repeats it.
func TestModel(t *testing.T) {
	steps, seen := 0, map[string]int{}
	for _, kind := range []struct {
		name string
		edit func(*schedule.Config)
	}{
		{"any", func(*schedule.Config) {}},
		{"chat", func(c *schedule.Config) { c.Order, c.Turn.Quiet = schedule.ByChat, 0 }},
		{"none", func(c *schedule.Config) { c.Order = schedule.None }},
		{"total", func(c *schedule.Config) { c.Order = schedule.Total }},
		{"turns", func(c *schedule.Config) { c.Order, c.Turn.Quiet = schedule.ByChat, time.Second }},
		{"dead-letter", func(c *schedule.Config) { c.Retry.MaxAttempts, c.Retry.OnExhausted = 2, schedule.DeadLetterEvent }},
		{"divert", func(c *schedule.Config) { c.Retry.MaxAttempts, c.Retry.OnExhausted = 1, schedule.DivertChat }},
		{"block", func(c *schedule.Config) { c.Retry.MaxAttempts, c.Retry.OnExhausted = 1, schedule.BlockChat }},
	} {
		t.Run(kind.name, rapid.MakeCheck(func(t *rapid.T) {
			h := newHistory(t, kind.edit, seen)
			t.Repeat(map[string]func(*rapid.T){"step": func(t *rapid.T) {
				steps++
				h.step(t)
			}})
		}))
	}
	t.Logf("%d steps: %v", steps, seen)
	if testing.Short() || t.Failed() {
		return
	}
	if steps < 100_000 {
		t.Errorf("%d steps, want 100000: raise -rapid.checks", steps)
	}
	// What the rules are about must happen, and not once in a while.
	for _, what := range []string{
		"first attempt", "later attempt", "second lease of a chat", "turn", "from a seek", "from a redrive",
		"revoked", "silent", "done", "already done", "lease lost", "unknown lease", "refused by two", "diverted", "blocked", "dead letter",
		"crash, nothing lost", "crash, journal lost", "crash, output lost", "with leases", "clock set back",
		"damaged, read", "damaged, out", "damaged, a part of a turn", "damaged, no room", "no room to read on", "readable again",
	} {
		if seen[what] < 100 {
			t.Errorf("%q happened %d times in %d steps, want 100", what, seen[what], steps)
		}
	}
}

// TestMain makes histories long enough to be interesting, unless told
// otherwise.
func TestMain(m *testing.M) {
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"rapid.steps": "200", "rapid.checks": "250"} {
		if !given[name] {
			_ = flag.Set(name, value)
		}
	}
	m.Run()
}

// A history is a scheduler, the model of it, the log, and what was made
// durable.
type history struct {
	s    *schedule.Scheduler
	m    *model
	edit func(*schedule.Config)
	seen map[string]int // what has happened how often
	now  int64

	log    []schedule.Event
	first  uint64 // oldest that the log holds
	filter filter

	damaged map[uint64]bool // what the log cannot read now

	issued []uint64 // leases that members know of

	// What survives a crash, and what it must come to.
	snapshots [][]byte // nil is the beginning
	entries   [][]entry
	committed *model
	image     []byte // Snapshot at the last flush
	begin     schedule.Config
}

// An entry is a batch of the journal and the filter in force in it.
type entry struct {
	batch  []byte
	filter filter
}

// A filter drops the events of one chat; 0 drops none.
type filter uint64

func (f filter) match(e schedule.Event) bool { return f == 0 || e.Chat != uint64(f) }

const chats = 4

var memberNames = []string{"ann", "bob", "cat"}

func newHistory(t *rapid.T, edit func(*schedule.Config), seen map[string]int) *history {
	h := &history{edit: edit, seen: seen, now: int64(1_700_000_000 * time.Second), first: 1, damaged: map[uint64]bool{}}
	h.begin = h.config(t)
	h.s, h.m = schedule.New(h.begin, 0, 1), newModel(h.begin)
	h.snapshots, h.entries = [][]byte{nil}, [][]entry{nil}
	h.s.Start(time.Unix(0, h.now))
	h.m.start(h.now)
	h.flush(t)
	return h
}

// config draws a configuration with small numbers, so that limits are met.
func (h *history) config(t *rapid.T) schedule.Config {
	duration := func(name string, values ...time.Duration) time.Duration {
		return rapid.SampledFrom(values).Draw(t, name)
	}
	number := func(name string, values ...int) int { return rapid.SampledFrom(values).Draw(t, name) }
	c := schedule.Config{
		Order: schedule.Order(number("order", 0, 0, 0, 1, 2)),
		Lease: schedule.Lease{
			Duration:             duration("lease", time.Second, 5*time.Second),
			MaxTotal:             duration("max_total", 5*time.Second, 12*time.Second),
			ReconnectGrace:       duration("grace", 0, 2*time.Second),
			ExtendWhileConnected: rapid.Bool().Draw(t, "extend_while_connected"),
		},
		Retry: schedule.Retry{
			Backoff:     rapid.SampledFrom([][]time.Duration{nil, {time.Second}, {100 * time.Millisecond, 3 * time.Second}}).Draw(t, "backoff"),
			MaxAttempts: number("max_attempts", 0, 1, 2, 3),
			OnExhausted: schedule.OnExhausted(number("on_exhausted", 0, 1, 2)),
		},
		Turn: schedule.Turn{
			Quiet:     duration("quiet", 0, 0, time.Second),
			MaxWait:   duration("max_wait", 0, 3*time.Second),
			MaxEvents: number("max_events", 1, 2, 3, 100),
			MaxBytes:  number("max_bytes", 3, 1000),
		},
		Limits: schedule.Limits{
			MaxOutstanding:  number("max_outstanding", 1, 3, 100),
			MaxPerChat:      number("max_per_chat", 1, 2, 3),
			MaxPerSecond:    number("max_per_second", 0, 0, 0, 1, 20),
			MaxBlockedChats: number("max_blocked_chats", 1, 2, 100),
			MaxDeadLetters:  number("max_dead_letters", 1, 3, 100),
			MaxPending:      number("max_pending", 5, 1000),
		},
	}
	h.edit(&c)
	return c
}

// flush makes what has happened durable, and lets it out.
func (h *history) flush(t *rapid.T) {
	out := h.s.Flush()
	if err := h.m.flush(out); err != nil {
		t.Fatal(err)
	}
	if err := h.m.check(h.s); err != nil {
		t.Fatal(err)
	}
	if len(out.Journal) > 0 {
		for i := range h.entries {
			h.entries[i] = append(h.entries[i], entry{slices.Clone(out.Journal), h.filter})
		}
	}
	for i := range out.Deliveries {
		h.issued = append(h.issued, out.Deliveries[i].Lease)
	}
	h.note(out)
	h.committed = h.m.clone()
	h.image = h.s.Snapshot()
}

// note counts what has happened.
func (h *history) note(out *schedule.Output) {
	for _, d := range out.Deliveries {
		h.seen[map[bool]string{true: "first attempt", false: "later attempt"}[d.Attempt == 1]]++
		h.seen[[]string{"from the log", "from a seek", "from a redrive"}[d.Origin]]++
		if len(d.Sequences) > 1 {
			h.seen["turn"]++
		}
		if d.Fence != d.Lease {
			h.seen["second lease of a chat"]++
		}
	}
	h.seen["revoked"] += len(out.Revoked)
	h.seen["silent"] += len(out.Silent)
	for key := range h.m.chats {
		refused := func(name string) bool { return h.m.refused(key, name) }
		if len(slices.DeleteFunc(slices.Clone(memberNames), refused)) < 2 {
			h.seen["refused by two"]++
		}
	}
	for _, l := range h.s.DeadLetters(0, chats, nil) {
		h.seen[[]string{"dead letter", "", "diverted", "blocked"}[l.State]]++
	}
}

// crash loses what is in memory. What was flushed must come back as it was,
// from whichever snapshot.
func (h *history) crash(t *rapid.T) {
	how := rapid.SampledFrom([]string{"nothing", "journal", "output"}).Draw(t, "lost")
	switch how {
	case "journal": // before it is on stable storage
		h.s.Flush()
	case "output": // after that, and before anybody is told
		known := len(h.issued)
		h.flush(t)
		h.issued = h.issued[:known]
	}
	h.seen["crash, "+how+" lost"]++
	if len(h.committed.leases) > 0 {
		h.seen["with leases"]++
	}
	from := rapid.IntRange(0, len(h.snapshots)-1).Draw(t, "from")
	s, err := h.restore(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range h.between(s.Position(), h.committed.position) {
		if h.filter.match(e) {
			s.Append(e)
		}
	}
	s.Advance(h.committed.position)
	s.Tick(time.Unix(0, h.committed.now))
	if !bytes.Equal(s.Snapshot(), h.image) {
		t.Fatalf("the state that came back is not the one that went\n%x\n%x\n%v", s.Snapshot(), h.image, h.committed)
	}
	h.s, h.m = s, h.committed.clone()
	h.s.Start(time.Unix(0, h.now))
	h.m.start(h.now)
	h.flush(t)
}

// restore repeats the journal from a snapshot on.
func (h *history) restore(from int) (*schedule.Scheduler, error) {
	s := schedule.New(h.begin, 0, 1)
	if h.snapshots[from] != nil {
		var err error
		if s, err = schedule.Restore(h.snapshots[from]); err != nil {
			return nil, err
		}
	}
	for i, e := range h.entries[from] {
		err := s.Replay(e.batch, func(upTo uint64) error {
			for _, ev := range h.between(s.Position(), upTo) {
				if e.filter.match(ev) {
					s.Append(ev)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("batch %d: %w", i, err)
		}
	}
	return s, nil
}
