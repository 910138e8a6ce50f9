package group

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/eventlogtest"
	"github.com/sluicegate/sluice/server/eventlog/local"
)

// journalOf returns the name of the log of the group "w".
func (f *fragile) journalOf() string {
	f.t.Helper()
	r, err := f.group(f.t.Context(), "w")
	if err != nil {
		f.t.Fatal(err)
	}
	return journalLog(r.incarnation)
}

// TestDamagedJournal holds that a group whose journal does not say all does not
// begin anew: it says what is wrong and what to do, and disturbs nobody. Deleting
// it, or restoring the journal, helps.
func TestDamagedJournal(t *testing.T) {
	remove := func(f *fragile, l *eventlog.Log, sequence uint64) {
		if err := l.Delete(f.t.Context(), sequence); err != nil {
			f.t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		spoil func(f *fragile, l *eventlog.Log) // its last record is a batch
		known bool                              // the snapshot can be read
	}{
		"a batch cannot be read": {func(f *fragile, l *eventlog.Log) {
			f.faults.Set(l.Name(), eventlogtest.Fault{First: l.Durable(), Last: l.Durable()})
		}, true},
		"nothing can be read": {func(f *fragile, l *eventlog.Log) {
			f.faults.Set(l.Name(), eventlogtest.Fault{First: 1, Last: l.Durable()})
		}, false},
		"the snapshot does not decode": {func(f *fragile, l *eventlog.Log) {
			r, err := l.Get(f.t.Context(), l.State().First)
			if err != nil {
				f.t.Fatal(err)
			}
			r.Data = append(slices.Clone(r.Data[:len(r.Data)-1]), r.Data[len(r.Data)-1]^1)
			f.append(l.Name(), r)
		}, false},
		"a batch does not decode": {func(f *fragile, l *eventlog.Log) {
			f.append(l.Name(), eventlog.Record{Subject: kindBatch + ".1.1", Data: []byte{0xff}})
		}, true},
		"a subject is another": {func(f *fragile, l *eventlog.Log) {
			f.append(l.Name(), eventlog.Record{Subject: "other"})
		}, true},
		"a record is missing":      {func(f *fragile, l *eventlog.Log) { remove(f, l, l.Durable()-1) }, true},
		"the snapshot was removed": {func(f *fragile, l *eventlog.Log) { remove(f, l, l.State().First) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := openFragile(t)
			f.create(&sluicev1.ConsumerGroup{})
			create(t, f.Service, "other")
			f.write("a", "b")
			f.takeAll(2)
			journal := f.journalOf()
			before := f.backup()
			f.restart(func() { tt.spoil(f, f.logOf(f.faults, journal)) })

			_, err := f.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "m"})
			f.wantDamaged(err, tt.known)
			_, err = f.GetConsumerGroupStatus(t.Context(), &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "w"})
			f.wantDamaged(err, tt.known)
			if n, v := f.log.count("journal of a consumer group is damaged", "group=w"), f.metric("sluice_group_journal_damaged"); n != 1 || v != "1" {
				t.Errorf("%d lines, metric %s, want 1 and 1", n, v)
			}
			if _, err := f.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "other", Member: "m"}); err != nil {
				t.Errorf("Pull() of another group = %v", err)
			}

			f.stop()
			f.config.Dir = before
			f.faults.Set(journal, eventlogtest.Fault{})
			f.restart()
			f.write("c")
			if got := f.takeAll(1); !slices.Equal(got, []uint64{3}) {
				t.Errorf("with the journal restored it delivers %v, want 3", got)
			}
			f.restart(func() {
				f.faults.Set(journal, eventlogtest.Fault{First: 1, Last: f.logOf(f.faults, journal).Durable()})
			})
			if _, err := f.DeleteConsumerGroup(t.Context(), &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "w"}); err != nil {
				t.Fatal(err)
			}
			f.create(&sluicev1.ConsumerGroup{})
			if got := f.takeAll(3); len(got) != 3 {
				t.Errorf("made anew it delivers %v, want all", got)
			}
		})
	}
}

// wantDamaged wants an error that says what is damaged and what to do.
func (f *fragile) wantDamaged(err error, known bool) {
	f.t.Helper()
	var e *apierror.Error
	if status.Code(apierror.Status(err)) != codes.DataLoss || !errors.As(err, &e) {
		f.t.Fatalf("got %v, want DATA_LOSS", err)
	}
	if !strings.Contains(e.Message, e.Metadata["log"]) || !strings.Contains(e.Message, e.Metadata["first_sequence"]) || !strings.Contains(e.Message, "delete the group") {
		f.t.Errorf("the message is %q, of %v", e.Message, e.Metadata)
	}
	if got := e.Metadata["position"] != ""; got != known {
		f.t.Errorf("the position is known: %v, want %v", got, known)
	}
}

// TestFolding holds what entries a journal comes to.
func TestFolding(t *testing.T) {
	const damaged = "damaged"
	for name, tt := range map[string]struct {
		subjects []string // of records 1, 2, ...; "" is missing
		snapshot string   // its records
		batches  string
		damage   string
	}{
		"nothing":                      {nil, "", "", ""},
		"plain":                        {[]string{"snapshot.1.2", "snapshot.2.2", "journal.1.1", "journal.1.2", "journal.2.2"}, "1-2", "3-3 4-5", ""},
		"an end that was given up":     {[]string{"snapshot.1.1", "journal.1.2"}, "1-1", "", ""},
		"the end of a late write":      {[]string{"snapshot.1.1", "journal.2.2"}, "1-1", "", ""},
		"a snapshot mends":             {[]string{"snapshot.1.1", damaged, "journal.1.1", "", "snapshot.1.1", "journal.1.1"}, "5-5", "6-6", ""},
		"a snapshot that was given up": {[]string{"snapshot.1.1", "journal.1.1", "snapshot.1.2"}, "1-1", "2-2", ""},
		"damaged":                      {[]string{"snapshot.1.1", damaged, "journal.1.1"}, "1-1", "3-3", "2-2"},
		"damaged before":               {[]string{"snapshot.1.2", damaged, "journal.1.1"}, "", "3-3", "2-2"},
		"missing":                      {[]string{"snapshot.1.1", "", "", "journal.1.1"}, "1-1", "4-4", "2-3"},
		"not whole":                    {[]string{"snapshot.1.1", "journal.1.2", "journal.1.1"}, "1-1", "3-3", "2-2"},
		"mixed":                        {[]string{"snapshot.1.1", "journal.1.2", "snapshot.2.2", "journal.1.1"}, "1-1", "4-4", "2-3"},
		"another record":               {[]string{"snapshot.1.1", "journal.x.1"}, "1-1", "", "2-2"},
	} {
		var f folding
		for i, subject := range tt.subjects {
			n := uint64(i + 1)
			switch subject {
			case "":
			case damaged:
				f.lose(n, n, errMissing)
				f.next = n + 1
			default:
				if err := f.add(eventlog.Record{Sequence: n, Subject: subject, Data: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
		}
		show := func(s stored) string { return fmt.Sprintf("%d-%d", s.first, s.last) }
		var snapshot, damage string
		if f.out.snapshot.data != nil {
			snapshot = show(f.out.snapshot)
		}
		if f.damage != nil {
			damage = show(stored{first: f.damage.First, last: f.damage.Last})
		}
		var batches []string
		for _, b := range f.out.batches {
			batches = append(batches, show(b))
		}
		if got := strings.Join(batches, " "); snapshot != tt.snapshot || got != tt.batches || damage != tt.damage {
			t.Errorf("%s: snapshot %s, batches %s, damage %s, want %q, %q, %q", name, snapshot, got, damage, tt.snapshot, tt.batches, tt.damage)
		}
	}
}

// TestLostEndOfAJournal holds that a group whose journal has lost its end, which
// the operator has accepted, goes on with what is left, and says so.
func TestLostEndOfAJournal(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{})
	f.write("a")
	f.takeAll(1)
	journal := f.journalOf()
	older := f.backup()
	f.openLogs()
	f.append(journal, eventlog.Record{Subject: kindBatch + ".1.1", Data: []byte("lost")})
	f.stop()
	mark, err := os.ReadFile(filepath.Join(f.config.Dir, "mark"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(older, "mark"), mark, 0o600); err != nil {
		t.Fatal(err)
	}
	f.config = local.Config{Dir: older, AcceptDataLoss: true}
	f.restart()
	if st := f.standing(); st.GetPosition() != 1 || st.GetLag().GetEvents() != 0 {
		t.Errorf("status = %v, want that of before the loss", st)
	}
	if n := f.log.count("end of a consumer group's journal is gone", "group=w"); n != 1 {
		t.Errorf("%d lines say so, want 1\n%s", n, f.log.text.String())
	}
}

// TestDamagedCatalog holds that a start is refused that does not know which groups
// there are.
func TestDamagedCatalog(t *testing.T) {
	for name, spoil := range map[string]func(f *fragile, l *eventlog.Log){
		"cannot be read": func(f *fragile, l *eventlog.Log) {
			f.faults.Set(l.Name(), eventlogtest.Fault{First: l.Durable(), Last: l.Durable()})
		},
		"does not decode": func(f *fragile, l *eventlog.Log) {
			f.append(l.Name(), eventlog.Record{Subject: "set.1.1.epoch", Data: []byte{0xff}})
		},
		"is another": func(f *fragile, l *eventlog.Log) { f.append(l.Name(), eventlog.Record{Subject: "other"}) },
	} {
		f := openFragile(t)
		f.create(&sluicev1.ConsumerGroup{})
		f.stop()
		f.openLogs()
		l := f.logOf(f.faults, CatalogLog)
		spoil(f, l)
		err := f.open()
		if record := fmt.Sprint("record ", l.Durable()); err == nil || !strings.Contains(err.Error(), "catalog") || !strings.Contains(err.Error(), record) {
			t.Errorf("%s: New() = %v, want an error that names %s of the catalog", name, err, record)
		}
	}
}

// TestAcceptedLoss holds that a group whose log goes on after a loss keeps all
// that the log still holds, and takes what comes in the place of what was lost.
func TestAcceptedLoss(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{})
	f.write("a", "b", "c", "d", "e")
	older := f.backup()
	f.restart()
	f.write("f", "g", "h")
	got := take(t, f.Service, 7)
	if _, err := settled(t, f.Service, got[0]); err != nil {
		t.Fatal(err)
	}
	res, err := f.Settle(t.Context(), &sluicev1.SettleRequest{ConsumerGroupId: "w", Items: []*sluicev1.Settlement{
		{Lease: got[1].GetLease(), Verdict: &sluicev1.Settlement_Park{Park: &sluicev1.Park{}}},
		{Lease: got[6].GetLease(), Verdict: &sluicev1.Settlement_Park{Park: &sluicev1.Park{}}},
		{Lease: got[3].GetLease(), Verdict: &sluicev1.Settlement_Release{Release: &sluicev1.Release{}}},
		{Lease: got[4].GetLease(), Verdict: &sluicev1.Settlement_Release{Release: &sluicev1.Release{}}},
	}})
	if err != nil {
		t.Fatal(res, err)
	}
	// 6 and what followed are lost, and 4 was known to be acknowledged, and is lost, too.
	if err := os.Remove(filepath.Join(older, "mark")); err != nil { // where it is, no sequence is given twice
		t.Fatal(err)
	}
	f.apart = local.Config{Dir: older, AcceptDataLoss: true}
	f.restart(func() {
		if err := f.stored.Delete(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
	})
	f.write("x", "y") // new ones, 6 and 7
	f.wantLetters("2 FAILURE_CAUSE_PARKED b")
	if o, err := settled(t, f.Service, got[2]); err != nil || o != sluicev1.Outcome_OUTCOME_DONE {
		t.Errorf("settling what is out and still held: %v, %v, want DONE", o, err)
	}
	if o, err := settled(t, f.Service, got[5]); err != nil || o == sluicev1.Outcome_OUTCOME_DONE {
		t.Errorf("settling what was out and is lost: %v, %v", o, err)
	}
	again := f.takeAll(3)
	slices.Sort(again)
	if !slices.Equal(again, []uint64{5, 6, 7}) {
		t.Errorf("delivered %v, want 5, and the new 6 and 7", again)
	}
	if st := f.standing(); st.GetPosition() != 7 || st.GetLag().GetEvents() != 0 || st.GetDeadLetters() != 1 {
		t.Errorf("status = %v", st)
	}
	if n := f.log.count("the group keeps what the log still holds"); n != 1 {
		t.Errorf("%d lines tell of the loss, want 1", n)
	}
	f.restart() // it knows of it now
	f.wantLetters("2 FAILURE_CAUSE_PARKED b")
	if n := f.log.count("the group keeps what the log still holds"); n != 1 {
		t.Errorf("%d lines after another restart", n)
	}
}

// TestEntriesInParts stores a snapshot that is larger than a record, and another that
// is cut off behind any of its parts: what is whole is read.
func TestEntriesInParts(t *testing.T) {
	f := openFragile(t)
	stored := f.logOf(f.faults, "GROUP_X")
	j := journal{log: stored}
	whole := bytes.Repeat([]byte("whole"), stored.MaxRecord()/2) // which is two and a half records
	if err := j.replace(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	if st := stored.State(); st.Count != 3 {
		t.Errorf("a snapshot of %d bytes is %d records, want 3", len(whole), st.Count)
	}
	if err := j.batch(t.Context(), []byte("batch")); err != nil {
		t.Fatal(err)
	}
	f.append("GROUP_X", eventlog.Record{Subject: kindSnapshot + ".1.3", Data: []byte("cut")})
	for part := 2; ; part++ {
		read, err := (&journal{log: stored}).load(t.Context())
		if err != nil || !bytes.Equal(read.snapshot.data, whole) || len(read.batches) != 1 || string(read.batches[0].data) != "batch" {
			t.Fatalf("with %d parts of another: load() = %d bytes and %d batches, %v, want what is whole",
				part-1, len(read.snapshot.data), len(read.batches), err)
		}
		if part == 3 {
			return
		}
		f.append("GROUP_X", eventlog.Record{Subject: fmt.Sprintf("%s.%d.3", kindSnapshot, part), Data: []byte("cut")})
	}
}
