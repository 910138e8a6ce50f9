//go:build failpoints

package failpoint

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	all, err := parse("a=kill@3; b=sleep:20ms;c=error")
	if err != nil {
		t.Fatal(err)
	}
	if p := all["a"]; p == nil || p.action != "kill" || p.at != 3 {
		t.Errorf("a is %+v", p)
	}
	if p := all["b"]; p == nil || p.sleep != 20*time.Millisecond || p.at != 0 {
		t.Errorf("b is %+v", p)
	}
	for _, bad := range []string{"a", "=kill", "a=vanish", "a=kill@0", "a=kill@x", "a=sleep:x", "a="} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestHitCounts(t *testing.T) {
	t.Cleanup(func() { points = nil })
	points, _ = parse("second=error@2;each=error")
	for i, want := range []bool{false, true, false} {
		if got := Hit("second") != nil; got != want {
			t.Errorf("hit %d of second: error %v, want %v", i+1, got, want)
		}
		if Hit("each") == nil {
			t.Errorf("hit %d of each: no error", i+1)
		}
	}
	if err := Hit("unnamed"); err != nil {
		t.Errorf("a point that is not set: %v", err)
	}
}
