package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// positionHelp says what parsePosition takes.
const positionHelp = "earliest, latest (or now), a time (2006-01-02T15:04:05Z, 2006-01-02, 10m, \"2d ago\"), a sequence, or a cursor"

// cursorShape is what a cursor looks like: opaque, but never a word.
var cursorShape = regexp.MustCompile(`^[A-Za-z0-9_-]{16,}$`)

// parsePosition returns the place in the log that s names, where now is the
// time. "" is nil.
func parsePosition(s string, now time.Time) (*sluicev1.Position, error) {
	switch s {
	case "":
		return nil, nil //nolint:nilnil // an unset position is nil in every request
	case "earliest":
		return client.Earliest(), nil
	case "latest", "now":
		return client.Latest(), nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return client.Sequence(n), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return client.ReceiveTime(t), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		return client.ReceiveTime(t), nil
	}
	if d, ok := parseAge(strings.TrimSuffix(s, " ago")); ok {
		return client.ReceiveTime(now.Add(-d)), nil
	}
	if cursorShape.MatchString(s) {
		return client.Cursor(s), nil
	}
	return nil, fmt.Errorf("%q is no place in the log, which is %s", s, positionHelp)
}

// parseAge returns the age s says, in units from ns to h as time.ParseDuration
// takes them, or in days.
func parseAge(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}
