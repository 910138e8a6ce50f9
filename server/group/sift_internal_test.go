package group

import (
	"slices"
	"testing"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/subscription"
)

// TestSift holds that what came to wait after the first look is looked at, too,
// and only that.
func TestSift(t *testing.T) {
	s := open(t)
	storeMany(t, s, 100, 1)
	filter, err := subscription.Compile(&sluicev1.EventFilter{IsSelf: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	want, err := s.sift(t.Context(), upTo(100), filter)
	if err != nil || len(want) != 50 {
		t.Fatalf("sift() = %v, %v, want the half that is not self", want, err)
	}
	looked := &sifted{waiting: []uint64{2, 3, 40, 100}}
	if looked.drop, err = s.sift(t.Context(), looked.waiting, filter); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*sifted{"nothing was looked at": nil, "some were": looked} {
		got, err := s.siftRest(t.Context(), upTo(100), filter, l)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: siftRest() = %v, %v, want %v", name, got, err, want)
		}
	}
	// What is known is not looked at again.
	got, err := s.siftRest(t.Context(), upTo(100), filter, &sifted{waiting: upTo(100), drop: []uint64{5}})
	if err != nil || !slices.Equal(got, []uint64{5}) {
		t.Errorf("siftRest() of what was looked at = %v, %v, want what was found then", got, err)
	}
}
