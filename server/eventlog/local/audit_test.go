package local

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
)

// TestAudit breaks what leads to the records, one thing at a time.
func TestAudit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(*Engine, *store)
		want   string // "" for no problem
	}{
		{"nothing", func(*Engine, *store) {}, ""},
		{"an identity is gone", func(e *Engine, s *store) {
			must(e.db.Delete(identityKey(s.entry.number, s.bucket(s.next.time), hashOf("id3")), pebble.Sync))
		}, "1 records of the dedupe window have no identity: they would be stored twice"},
		{"an identity leads elsewhere", func(e *Engine, s *store) {
			v := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 6), uint64(s.next.time))
			must(e.db.Set(identityKey(s.entry.number, s.bucket(s.next.time), hashOf("id3")), v, pebble.Sync))
		}, "1 identities lead to a wrong record"},
		{"a key is gone", func(e *Engine, s *store) {
			must(e.db.Delete(indexKey(s.entry.number, eventlog.HashKey("chat1"), 3), pebble.Sync))
		}, "the key index is not that of the records"},
		{"a batch is gone", func(e *Engine, s *store) {
			n := s.next
			n.changes, n.counted = n.changes+1, 0
			must(e.db.Merge(logKey(keyState, s.entry.number), n.encode(), pebble.Sync))
		}, "of 11 changes 1 are missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			e, err := Open(t.Context(), Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS", Deletes: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"id1", "id2", "id3", "id4", "id5", "id6", "id7"} {
				if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: id, Key: "chat1", Data: []byte(id)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Delete(t.Context(), 5); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "id7", Key: "chat1"}); err != nil { // a twin
				t.Fatal(err)
			}
			if err := l.Trim(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			tt.damage(e, e.known("EVENTS"))
			closeEngine(t, e)

			before := digest(t, dir)
			e, err = OpenReadOnly(t.Context(), Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			problems, err := e.Audit(t.Context(), "EVENTS")
			closeEngine(t, e)
			var want []string
			if tt.want != "" {
				want = []string{tt.want}
			}
			if err != nil || !slices.Contains(append(problems, ""), tt.want) || len(problems) < len(want) {
				t.Errorf("Audit() = %q, %v, want %q", problems, err, want)
			}
			if after := digest(t, dir); !equalDigests(before, after) {
				t.Error("an audit has changed files")
			}
		})
	}
}

// TestAuditOfAReturn finds nothing wrong with what came again after the dedupe
// window, and was stored again.
func TestAuditOfAReturn(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	e := openAt(t, Config{Dir: dir, Clock: c.Now})
	l, err := e.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS", DedupeWindow: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if a, err := l.Append(t.Context(), eventlog.Record{Subject: "s", ID: "id"}); err != nil || a.Duplicate {
			t.Fatalf("Append() = %+v, %v, want a new record", a, err)
		}
		c.Advance(2 * time.Second)
	}
	closeEngine(t, e)
	if e, err = OpenReadOnly(t.Context(), Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer closeEngine(t, e)
	if problems, err := e.Audit(t.Context(), "EVENTS"); err != nil || len(problems) > 0 {
		t.Errorf("Audit() = %q, %v, want nothing", problems, err)
	}
}
