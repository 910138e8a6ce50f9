package ingest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/servertest/damage"
)

// noisy is a message that does not compress, so that damage hits few of them.
func noisy(i int) string {
	noise := make([]byte, 2<<10)
	_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
	return text(fmt.Sprint("m", i), fmt.Sprintf("%x", noise))
}

// What repeats an event that cannot be read any more may be all that is left of
// it: it is stored, once.
func TestFirstDamaged(t *testing.T) {
	dir := t.TempDir()
	g := start(t, dir, Config{})
	const posts = 60
	for i := range posts {
		g.mustPost("/", noisy(i))
	}
	g.stop()
	start(t, dir, Config{}).stop() // the write-ahead log becomes a table
	damage.Table(t, dir)
	g = start(t, dir, Config{})
	var d *eventlog.DamagedError
	if err := g.events.Scan(t.Context(), 1, posts, func(eventlog.Record) error { return nil }); !errors.As(err, &d) {
		t.Fatalf("Scan() = %v, want damage", err)
	}
	for range 2 {
		g.mustPost("/", noisy(int(d.First)-1))
	}
	g.mustPost("/", noisy(int(d.Last)), noisy(int(d.First)-2)) // which can be read
	if got := g.events.Durable(); got != posts+1 {
		t.Fatalf("the log goes up to %d, want %d", got, posts+1)
	}
	r, err := g.events.Get(t.Context(), posts+1)
	if err != nil {
		t.Fatal(err)
	}
	e, err := record.Decode(r.Data, r.Sequence, g.events.Epoch(), true)
	if err != nil || e.GetRevisionOf() != d.First || e.GetKey() != fmt.Sprintf("default/b1/m%d", d.First-1) {
		t.Errorf("event %d = revision of %d with the key %s, %v, want one of %d", posts+1, e.GetRevisionOf(), e.GetKey(), err, d.First)
	}
	if got := g.metric(g.service.metrics.revisions, "default"); got != 1 {
		t.Errorf("%v events are counted as revisions, want 1", got)
	}
}

// The same where the storage can read the original, and it is none.
func TestFirstIsNoEvent(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	id := record.ID("default/b1/m1")
	if _, err := g.events.Append(t.Context(), eventlog.Record{Subject: "s", ID: id, Data: []byte{0xff}}); err != nil {
		t.Fatal(err)
	}
	g.mustPost("/", text("m1", "x"), text("m1", "x"))
	if got := g.events.Durable(); got != 2 {
		t.Fatalf("the log goes up to %d, want 2", got)
	}
	r, err := g.events.Get(t.Context(), 2)
	if err != nil || record.RevisionOf(r.Data) != 1 {
		t.Errorf("event 2 is a revision of %d, %v, want 1", record.RevisionOf(r.Data), err)
	}
}

// Events are found by the chat that they are of.
func TestChatIsTheKeyOfTheRecord(t *testing.T) {
	g := start(t, t.TempDir(), Config{})
	g.mustPost("/", text("m1", "x"), `{"a":1}`, text("m2", "x"))
	records, err := g.events.ReadKey(t.Context(), "default/c1", 0, 10, false)
	if err != nil || len(records) != 2 || records[0].Sequence != 1 || records[1].Sequence != 3 {
		t.Errorf("ReadKey() = %v, %v, want events 1 and 3", records, err)
	}
}

// A log that takes less than max_body needs gets what fits: what is read out of
// a body is given up first, and a body that is too large for it is refused.
func TestSmallRecords(t *testing.T) {
	const limit = 100 << 10
	g := start(t, t.TempDir(), Config{MaxRecord: limit})
	long := func(n int) string { return text(fmt.Sprint("m", n), fmt.Sprintf("%0*d", n, 0)) }
	g.mustPost("/", long(10), long(MaxBody(limit)-1000))
	for _, e := range g.stored() {
		if e.GetMessage() == nil && e.GetOther() == nil || len(e.GetRaw()) == 0 {
			t.Errorf("event %d has no body", e.GetSequence())
		}
	}
	if status, answer := g.post("/", long(MaxBody(limit))); status != 413 {
		t.Errorf("POST = %d %s, want 413", status, answer)
	}
}
