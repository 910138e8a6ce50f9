package quarantine_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/servertest/damage"
)

// TestDamagedEntries holds that an entry that cannot be read is shown, hides
// none behind it, stays where it is, and can be discarded.
func TestDamagedEntries(t *testing.T) {
	g := start(t)
	const entries = 80
	var all []*sluicev1.QuarantineEntry
	for i := range entries {
		noise := make([]byte, 4<<10)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(noise)
		all = append(all, entry("{"+string(bytes.ReplaceAll(noise, []byte{0}, []byte{1}))))
	}
	g.isolate(all...)
	g.Restart() // the write-ahead log becomes a table
	g.Stop()
	damage.Table(t, g.Config.DataDir)
	g.Restart()

	res, err := g.quarantine.ListQuarantineEntries(t.Context(), &sluicev1.ListQuarantineEntriesRequest{Sources: []string{"acme"}})
	if err != nil {
		t.Fatal(err)
	}
	var damaged []uint64
	for i, q := range res.GetEntries() {
		if q.GetSequence() != uint64(i)+1 {
			t.Fatalf("entry %d of the list is %d", i+1, q.GetSequence())
		}
		if q.GetReason() == "DAMAGED" {
			damaged = append(damaged, q.GetSequence())
		}
	}
	if len(res.GetEntries()) != entries || len(damaged) == 0 || len(damaged) > entries/2 {
		t.Fatalf("%d entries are listed, %v as damaged", len(res.GetEntries()), damaged)
	}
	_, err = g.quarantine.GetQuarantineEntry(t.Context(), &sluicev1.GetQuarantineEntryRequest{Sequence: damaged[0]})
	if status.Code(err) != codes.DataLoss {
		t.Errorf("GetQuarantineEntry() = %v, want DATA_LOSS", err)
	}
	g.reparse(&sluicev1.ReparseQuarantineRequest{Sequences: damaged[:1]}, &sluicev1.ReparsedEntry{Sequence: damaged[0], Reason: "DAMAGED"})
	gone, err := g.quarantine.DiscardQuarantineEntries(t.Context(), &sluicev1.DiscardQuarantineEntriesRequest{Sequences: damaged, Reason: "damaged"})
	if err != nil || !slices.Equal(gone.GetDiscarded(), damaged) {
		t.Errorf("DiscardQuarantineEntries() = %v, %v, want %v", gone.GetDiscarded(), err, damaged)
	}
}
