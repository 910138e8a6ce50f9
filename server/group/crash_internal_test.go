package group

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/eventlogtest"
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
			journal := f.journalOf()
			f.faults.Set(journal, eventlogtest.Fault{NoAppends: true})
			if o, err := settled(t, f.Service, first); !errors.Is(err, eventlog.ErrUnavailable) {
				t.Fatalf("Settle() = %v, %v, want ErrUnavailable", o, err)
			}
			return func() { f.faults.Set(journal, eventlogtest.Fault{}) }
		}, done, false},
		"group: verdict stored, not answered": {func(f *fragile) func() {
			settle(f)
			return func() {}
		}, already, false},
		"group: snapshot half stored": {func(f *fragile) func() {
			settle(f)
			journal := f.journalOf()
			return func() { f.append(journal, eventlog.Record{Subject: kindSnapshot + ".1.2", Data: []byte("half")}) }
		}, already, false},
		"group: snapshot stored, journal not trimmed": {func(f *fragile) func() {
			settle(f)
			journal := f.journalOf()
			before := f.logOf(f.faults, journal).State()
			f.faults.Set(journal, eventlogtest.Fault{NoTrims: true})
			f.restart()
			for f.logOf(f.faults, journal).State().Last == before.Last { // until it has written its state anew
			}
			return func() {
				f.faults.Set(journal, eventlogtest.Fault{})
				if st := f.logOf(f.faults, journal).State(); st.First != before.First {
					t.Errorf("the journal was trimmed to %d", st.First)
				}
			}
		}, already, false},
		"group: deleted, journal not removed": {func(f *fragile) func() {
			journal := f.journalOf()
			f.faults.Set(journal, eventlogtest.Fault{NoRemoval: true})
			if _, err := f.DeleteConsumerGroup(t.Context(), &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "w"}); err != nil {
				t.Fatal(err)
			}
			return func() {
				f.faults.Set(journal, eventlogtest.Fault{})
				if !f.has(journal) {
					t.Error("the journal was removed")
				}
			}
		}, 0, true},
	}
}

// has says whether there is a log of that name.
func (f *fragile) has(log string) bool {
	f.t.Helper()
	names, err := f.faults.Logs(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return slices.Contains(names, log)
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
			journal := f.journalOf()
			leave := row.before(f)
			f.restart(leave)
			if row.deleted {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for end := time.Now().Add(20 * time.Second); f.has(journal); <-tick.C {
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
