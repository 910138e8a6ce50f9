package local

import (
	"fmt"
	"testing"

	"github.com/sluicegate/sluice/server/eventlog"
)

// TestIdentities holds that none that was added within the window looks new, and
// that few that are new look known.
func TestIdentities(t *testing.T) {
	const window = 1_000_000
	n := identities{complete: true}
	last := 2*window + window/2
	for i := range last {
		n.add(hashOf(fmt.Sprint(i)), int64(i), int64(i-window))
	}
	for i := last - window; i < last; i++ {
		if !n.may(hashOf(fmt.Sprint(i))) {
			t.Fatalf("identity %d of %d looks new", i, last)
		}
	}
	wrong, held := 0, 0
	for i := range 100_000 {
		if n.may(hashOf(fmt.Sprint("new", i))) {
			wrong++
		}
	}
	for _, f := range n.filters {
		held += f.size
	}
	if wrong > 2000 {
		t.Errorf("%d of 100000 new identities look known", wrong)
	}
	if held > 6*window {
		t.Errorf("filters for %d identities are held for %d in the window", held, window)
	}
	if n.complete = false; !n.may(hashOf("new")) {
		t.Error("an identity looks new though not all are known")
	}
}

// TestIdentitiesAreLearnt has a log know those of an earlier process, also while
// they are read.
func TestIdentitiesAreLearnt(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir()})
	l := openLog(t, e, eventlog.LogConfig{Name: "A"})
	appendTwins := func(duplicates bool) {
		t.Helper()
		for i := range 200 {
			a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: fmt.Sprint(i)})
			if err != nil || a.Duplicate != duplicates {
				t.Fatalf("Append(%d) = %+v, %v, want duplicate %v", i, a, err, duplicates)
			}
		}
	}
	appendTwins(false)
	e = openAt(t, Config{Dir: kill(t, e)})
	l = openLog(t, e, eventlog.LogConfig{Name: "A"})
	appendTwins(true)
	s := e.known("A")
	eventually(t, func() bool {
		complete := false
		if err := s.change(t.Context(), func(*group) error { complete = s.identities.complete; return nil }); err != nil {
			t.Fatal(err)
		}
		return complete
	})
	appendTwins(true)
	if s.identities.may(hashOf("201")) && s.identities.may(hashOf("202")) {
		t.Error("new identities look known")
	}
}

// TestDamagedIdentitiesAreRestored holds that one look-up that meets damage has all
// identities written anew from the records, and that what came again before is
// known from then on.
func TestDamagedIdentitiesAreRestored(t *testing.T) {
	e := openAt(t, Config{Dir: t.TempDir(), tune: tiny})
	fillIndexed(t, e)
	damageTables(t, e, keyIdentity)

	e = openAt(t, Config{Dir: e.cfg.Dir, tune: tiny})
	l := openLog(t, e, eventlog.LogConfig{Name: "A"})
	s := e.known("A")
	again, last := -1, l.Durable()
	for i := 0; i < indexed && again < 0; i++ { // until one is not known
		a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		if !a.Duplicate {
			again = i
		}
	}
	if again < 0 {
		t.Fatal("no look-up has met damage")
	}
	bucket := s.bucket(e.cfg.Clock().UnixNano())
	eventually(t, func() bool {
		missing := 0
		for i := range indexed {
			_, closer, err := e.db.Get(identityKey(s.entry.number, bucket, hashOf(fmt.Sprint(i))))
			if err != nil {
				missing++
				continue
			}
			_ = closer.Close()
		}
		return missing <= 1 // that of the record that was deleted
	})
	stored := 0
	for i := range indexed {
		a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: fmt.Sprint(i)})
		if err != nil || a.Duplicate && a.Sequence > last+1 {
			t.Fatalf("Append(%d) = %+v, %v, want a duplicate", i, a, err)
		}
		if !a.Duplicate {
			stored++
		}
	}
	if stored > 1 {
		t.Errorf("%d records were stored again", stored)
	}
}
