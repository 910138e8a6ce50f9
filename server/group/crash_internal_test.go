package group

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// A crash is what one leaves of the logs of a group that has delivered two events
// of four, and settled the first, or was deleted.
type crash struct {
	before  func(f *fragile) (leave func()) // what happens, and what of it is left
	want    sluicev1.Outcome                // of settling the first event now
	deleted bool
}

const (
	done    = sluicev1.Outcome_OUTCOME_DONE
	already = sluicev1.Outcome_OUTCOME_ALREADY_DONE
)

// crashes are the rows of the table in DESIGN.md that begin with "group: ".
func crashes(t *testing.T, first *sluicev1.Delivery) map[string]crash {
	settle := func(f *fragile) {
		if o, err := settled(t, f.Service, first); err != nil || o != done {
			t.Fatalf("Settle() = %v, %v", o, err)
		}
	}
	return map[string]crash{
		"group: verdict not stored": {func(f *fragile) func() {
			l := f.journalOf()
			var stored []eventlog.Record
			l.edit(func() { stored = slices.Clone(l.records) })
			settle(f)
			return func() { l.edit(func() { l.records = stored }) }
		}, done, false},
		"group: verdict stored, not answered": {func(f *fragile) func() {
			settle(f)
			return func() {}
		}, already, false},
		"group: snapshot half stored": {func(f *fragile) func() {
			settle(f)
			l := f.journalOf()
			return func() {
				l.edit(func() {
					half := eventlog.Record{Sequence: l.last() + 1, Subject: kindSnapshot + ".1.2", Data: []byte("half")}
					l.records = append(l.records, half)
				})
			}
		}, already, false},
		"group: snapshot stored, journal not trimmed": {func(f *fragile) func() {
			settle(f)
			l := f.journalOf()
			var first uint64
			l.edit(func() { first = l.first })
			f.restart(f.memory.epoch, func() {})
			f.standing() // it has read its state, and written it anew
			return func() {
				l.edit(func() {
					if l.first == first {
						t.Error("nothing was trimmed")
					}
					l.first = first
				})
			}
		}, already, false},
		"group: deleted, journal not removed": {func(f *fragile) func() {
			l := f.journalOf()
			if _, err := f.DeleteConsumerGroup(t.Context(), &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "w"}); err != nil {
				t.Fatal(err)
			}
			return func() {
				f.memory.mu.Lock()
				defer f.memory.mu.Unlock()
				f.memory.logs[l.name] = l
			}
		}, 0, true},
	}
}

// TestCrash has a group start from what a crash leaves at each step.
func TestCrash(t *testing.T) {
	for name := range crashes(t, nil) {
		t.Run(name, func(t *testing.T) {
			f := openFragile(t)
			f.create(&sluicev1.ConsumerGroup{})
			f.write("a", "b", "c", "d")
			got := take(t, f.Service, 2)
			row := crashes(t, got[0])[name]
			journal := f.journalOf().name
			leave := row.before(f)
			f.restart(f.memory.epoch, leave)
			if row.deleted {
				for end := time.Now().Add(20 * time.Second); f.memory.get(journal) != nil; {
					if time.Now().After(end) {
						t.Fatal("the journal is still there")
					}
				}
				return
			}
			for i, want := range []sluicev1.Outcome{row.want, done} {
				if o, err := settled(t, f.Service, got[i]); err != nil || o != want {
					t.Errorf("settling delivery %d: %v, %v, want %v", i, o, err, want)
				}
			}
			if rest := f.takeAll(2); !slices.Equal(rest, []uint64{3, 4}) {
				t.Errorf("delivered %d, want 3 and 4", rest)
			}
			if st := f.standing(); st.GetLag().GetEvents() != 0 {
				t.Errorf("status = %v, want no lag", st)
			}
		})
	}
}

// TestCrashTable holds that the table in DESIGN.md has these rows.
func TestCrashTable(t *testing.T) {
	design, err := os.ReadFile("../../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := crashes(t, nil)
	for line := range strings.Lines(string(design)) {
		cells := strings.Split(line, "|")
		if len(cells) < 2 || !strings.HasPrefix(strings.TrimSpace(cells[1]), "group: ") {
			continue
		}
		row := strings.TrimSpace(cells[1])
		if _, ok := rows[row]; !ok {
			t.Errorf("nothing tests the row %q", row)
		}
		delete(rows, row)
	}
	for row := range rows {
		t.Errorf("DESIGN.md has no row %q", row)
	}
}
