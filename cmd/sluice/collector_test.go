package main

import "testing"

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0:         400, // before the first collection
		10 << 20:  400,
		128 << 20: 400,
		129 << 20: 380,
		256 << 20: 200,
		512 << 20: 100,
		10 << 30:  100,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("collectorPercent(%d MiB) = %d, want %d", live>>20, got, want)
		}
	}
}
