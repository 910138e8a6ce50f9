package server

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is a number of bytes. As text it may have a unit: "1MiB", "500MB",
// "1048576".
type Size int64

// units are the units of a Size, each before those it is a multiple of and
// before those it ends in.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"B", 1},
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	digits, bytes := strings.TrimSpace(string(text)), int64(1)
	for _, unit := range units {
		if rest, ok := cutSuffixFold(digits, unit.name); ok {
			digits, bytes = strings.TrimSpace(rest), unit.bytes
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)/bytes {
		return fmt.Errorf("%q is no size such as 512KiB, 1MiB, 10GB or 1048576", text)
	}
	*s = Size(n * bytes)
	return nil
}

// String returns s in the largest binary unit that divides it.
func (s Size) String() string {
	for _, unit := range units {
		if unit.bytes&(unit.bytes-1) == 0 && unit.bytes > 1 && s != 0 && int64(s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// cutSuffixFold is strings.CutSuffix without regard to case.
func cutSuffixFold(s, suffix string) (string, bool) {
	at := len(s) - len(suffix)
	if at < 0 || !strings.EqualFold(s[at:], suffix) {
		return s, false
	}
	return s[:at], true
}
