package local

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A stop is how far a change has come when the crash is.
type stop int

const (
	unwritten  stop = iota // its batch is not in the write-ahead log
	unsynced               // it is, and not synced
	unmarked               // it is synced, and the mark does not say so
	torn                   // half of the mark is written
	unanswered             // the mark is written, and nobody was told
	answered               // everybody was told, and the mark is not synced
)

// crashes are the rows of the table in DESIGN.md.
var crashes = map[string]struct {
	change *operation
	stop   stop
}{
	"append: not written":                   {&appending, unwritten},
	"append: written, not synced":           {&appending, unsynced},
	"append: synced, not marked":            {&appending, unmarked},
	"append: mark half written":             {&appending, torn},
	"append: marked, not answered":          {&appending, unanswered},
	"append: answered, mark not synced":     {&appending, answered},
	"twin: the first not synced":            {&twins, unsynced},
	"twin: answered":                        {&twins, answered},
	"journal: written, not synced":          {&journal, unsynced},
	"journal: synced, not answered":         {&journal, unanswered},
	"delete: written, not synced":           {&deleting, unsynced},
	"delete: synced, not marked":            {&deleting, unmarked},
	"trim: written, not synced":             {&trimming, unsynced},
	"trim: synced, not marked":              {&trimming, unmarked},
	"retention: not written":                {&retaining, unwritten},
	"retention: written, not synced":        {&retaining, unsynced},
	"retention: synced, not marked":         {&retaining, unmarked},
	"create log: written, not synced":       {&creating, unsynced},
	"create log: synced, not marked":        {&creating, unmarked},
	"create log: answered, mark not synced": {&filling, answered},
	"remove log: flagged, not written":      {&removing, unwritten},
	"remove log: written, not synced":       {&removing, unsynced},
	"remove log: synced, mark not cleared":  {&removing, unmarked},
	"remove log: answered, mark not synced": {&removing, answered},
}

// An operation is a change and what the logs are before and after it.
type operation struct {
	log           string // the one that is looked into
	do            func(*rig) error
	batch         int // which of its batches meets the crash, from 1
	before, after extent
}

// An extent is what logs there are and what that one holds.
type extent struct {
	logs []string
	held []uint64
	last uint64
}

var (
	both  = []string{"EVENTS", "GROUP_1"}
	whole = extent{both, []uint64{1, 2, 3, 4, 5}, 5}
	six   = extent{both, []uint64{1, 2, 3, 4, 5, 6}, 6}

	appending = operation{"EVENTS", func(r *rig) error { return r.append(6) }, 1, whole, six}
	twins     = operation{"EVENTS", func(r *rig) error {
		second := make(chan error, 1)
		go func() { second <- r.append(6) }()
		return errors.Join(r.append(6), <-second)
	}, 1, whole, six}
	journal   = operation{"GROUP_1", func(r *rig) error { return r.append(6) }, 1, whole, six}
	deleting  = operation{"EVENTS", func(r *rig) error { return r.log.Delete(r.t.Context(), 3) }, 1, whole, extent{both, []uint64{1, 2, 4, 5}, 5}}
	trimming  = operation{"EVENTS", func(r *rig) error { return r.log.Trim(r.t.Context(), 4) }, 1, whole, extent{both, []uint64{4, 5}, 5}}
	retaining = operation{"EVENTS", func(r *rig) error {
		r.clock.Advance(20 * time.Minute) // record 3 is older than max_age now
		r.engine.sweepSoon()
		eventually(r.t, func() bool { return r.log.State().First == 4 })
		return nil
	}, 1, whole, extent{both, []uint64{4, 5}, 5}}
	creating = operation{"EVENTS", func(r *rig) error {
		_, err := r.engine.Log(r.t.Context(), eventlog.LogConfig{Name: "NEW"})
		return err
	}, 1, whole, extent{append(slices.Clone(both), "NEW"), whole.held, 5}}
	filling = operation{"EVENTS", func(r *rig) error {
		l, err := r.engine.Log(r.t.Context(), eventlog.LogConfig{Name: "NEW"})
		if err != nil {
			return err
		}
		r.keepMark()
		_, err = l.Append(r.t.Context(), eventlog.Record{Subject: "s"})
		return err
	}, 1, whole, extent{append(slices.Clone(both), "NEW"), whole.held, 5}}
	removing = operation{"GROUP_1", func(r *rig) error { return r.engine.Remove(r.t.Context(), "GROUP_1") }, 2, whole, extent{both[:1], nil, 0}}
)

func (x extent) is(other *extent) bool {
	return slices.Equal(x.logs, other.logs) && slices.Equal(x.held, other.held) && x.last == other.last
}

// TestCrash crashes at each step of each change: by a kill, after which all that
// was written is there, and by a power cut, after which no more than what was
// synced need be. No start may be refused, nothing that was answered may be
// missing, and who was not answered can do it again.
func TestCrash(t *testing.T) {
	for name, row := range crashes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, row.change.log)
			for _, i := range r.crash(row.change, row.stop) {
				next := r.start(i)
				found := next.extent()
				if !slices.ContainsFunc(i.want, found.is) {
					t.Fatalf("found %+v, want %+v", found, i.want[0])
				}
				next.check(found)
				again(next, row.change)
				if found = next.extent(); !found.is(&row.change.after) {
					t.Errorf("done again it is %+v, want %+v", found, row.change.after)
				}
				next.check(found)
				next.audit()
			}
		})
	}
}

// again makes a change that nobody answered once more.
func again(r *rig, c *operation) {
	r.t.Helper()
	err := c.do(r)
	if err != nil && !errors.Is(err, eventlog.ErrNotFound) && !errors.Is(err, eventlog.ErrConflict) {
		r.t.Errorf("the same again: %v", err)
	}
}

// TestCrashTable holds that the table in DESIGN.md is of these rows.
func TestCrashTable(t *testing.T) {
	design, err := os.ReadFile("../../../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(design), "### What a crash leaves")
	table, _, _ = strings.Cut(table, "\n#")
	rows := map[string]bool{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.Contains(cells[1], ": ") {
			rows[strings.TrimSpace(cells[1])] = true
		}
	}
	maps.DeleteFunc(rows, func(row string, _ bool) bool { return strings.HasPrefix(row, "group: ") }) // package group's
	for row := range crashes {
		if !rows[row] {
			t.Errorf("DESIGN.md has no row %q", row)
		}
		delete(rows, row)
	}
	for row := range crashedStarts {
		if !rows[row] {
			t.Errorf("DESIGN.md has no row %q", row)
		}
		delete(rows, row)
	}
	if len(rows) > 0 {
		t.Errorf("nothing tests the rows %q", slices.Sorted(maps.Keys(rows)))
	}
}
