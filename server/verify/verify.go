// Package verify reads logs from end to end and says what is wrong with them:
// what cannot be read, what can be read and is not what the log holds, what is
// out of order. It serves LogService, and checks a stopped data directory. It
// changes nothing.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// The logs whose records are looked into. Those of consumer groups are read
// only: package group decodes them whenever it starts.
const (
	Events     = "EVENTS"
	Quarantine = "QUARANTINE"
)

// journalPrefix begins the names of the groups' journals. One gateway at a time
// uses such a log.
const journalPrefix = "GROUP_"

const (
	// maxDamaged and maxProblems bound what a report holds of one log.
	maxDamaged  = 1000
	maxProblems = 100

	// progressInterval is how often progress is told.
	progressInterval = 250 * time.Millisecond

	// progressRecords is how many records are read before the clock is asked.
	progressRecords = 64
)

// Config says what to verify.
type Config struct {
	// Engine is what holds the logs. Required.
	Engine eventlog.Engine

	// Stopped says that no gateway uses the storage.
	Stopped bool

	// Progress is called a few times a second, always from the goroutine of Run;
	// its error ends the verification. nil means nobody asks.
	Progress func(*sluicev1.VerifyProgress) error

	// Event is called for each event that can be read. nil means not at all.
	Event func(record.Identity)
}

// Run verifies all logs, up to where they end when it begins. That something is
// wrong with them is in the report; the error is that of ctx or Progress, or
// says why a log could not be read to its end.
func Run(ctx context.Context, cfg Config) (*sluicev1.VerifyReport, error) {
	v := &verification{Config: cfg, progress: &sluicev1.VerifyProgress{}}
	names, err := cfg.Engine.Logs(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the logs: %w", err)
	}
	// All are opened before the first is read: a group that is deleted meanwhile
	// must not get its journal back.
	logs := make([]*eventlog.Log, len(names))
	report := &sluicev1.VerifyReport{Ok: true}
	for i, name := range names {
		logs[i], err = cfg.Engine.Log(ctx, eventlog.LogConfig{Name: name, Exclusive: strings.HasPrefix(name, journalPrefix)})
		if err != nil {
			return nil, fmt.Errorf("open log %s: %w", name, err)
		}
	}
	for _, l := range logs {
		found, err := v.log(ctx, l)
		if err != nil && v.removed(ctx, l.Name()) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read log %s: %w", l.Name(), err)
		}
		if auditor, ok := cfg.Engine.(auditor); ok && cfg.Stopped && found.GetDamagedRecords() == 0 {
			problems, err := auditor.Audit(ctx, l.Name())
			if err != nil {
				return nil, fmt.Errorf("audit log %s: %w", l.Name(), err)
			}
			found.Problems = append(found.Problems, problems...)
		}
		report.Logs = append(report.Logs, found)
		report.Ok = report.GetOk() && len(found.GetDamaged()) == 0 && found.GetUndecodable() == 0 && len(found.GetProblems()) == 0
	}
	return report, nil
}

// An auditor is an engine that can check what it keeps beside the records:
// identities, the index of keys, the high-water mark.
type auditor interface {
	Audit(ctx context.Context, log string) (problems []string, err error)
}

// A verification is a Run.
type verification struct {
	Config
	progress *sluicev1.VerifyProgress
	told     time.Time
}

// removed reports whether a log that could not be read is not there any more, as
// happens to the journal of a group that is deleted.
func (v *verification) removed(ctx context.Context, name string) bool {
	names, err := v.Engine.Logs(ctx)
	return err == nil && !slices.Contains(names, name)
}

// log verifies one log.
func (v *verification) log(ctx context.Context, l *eventlog.Log) (*sluicev1.VerifiedLog, error) {
	last := l.Durable()
	if !v.Stopped {
		var err error
		if last, err = l.End(ctx); err != nil { // by the storage: another gateway may write it
			return nil, err
		}
	}
	before := l.State()
	c := &check{
		verification: v, log: l, last: before.First - 1,
		found: &sluicev1.VerifiedLog{Name: l.Name(), Epoch: l.Epoch(), FirstSequence: before.First, LastSequence: last},
	}
	v.progress.Log, v.progress.LastSequence = l.Name(), last
	for next := before.First; next <= last; {
		err := l.Scan(ctx, next, last, c.record)
		var damaged *eventlog.DamagedError
		switch {
		case err == nil:
			next = last + 1
		case errors.As(err, &damaged):
			next = c.damage(damaged, last)
		default:
			return nil, err
		}
	}
	c.missing(last)
	if after := l.State(); after == before && before.Last == last && c.found.GetDamagedRecords() == 0 && c.found.GetRecords() != before.Count {
		c.problem("the log counts %d records, and %d could be read", before.Count, c.found.GetRecords())
	}
	return c.found, nil
}

// A check is the verification of one log.
type check struct {
	*verification
	log   *eventlog.Log
	found *sluicev1.VerifiedLog
	last  uint64    // the newest sequence seen
	time  time.Time // when it was stored
}

// record verifies one record.
func (c *check) record(rec eventlog.Record) error {
	if rec.Sequence <= c.last {
		c.problem("record %d comes after record %d", rec.Sequence, c.last)
	} else {
		c.missing(rec.Sequence - 1)
	}
	if rec.Time.Before(c.time) {
		c.problem("record %d was stored before the one ahead of it", rec.Sequence)
	}
	c.last, c.time = rec.Sequence, rec.Time
	c.found.Records++
	c.found.Bytes += uint64(len(rec.Data))
	c.content(rec)

	p := c.progress
	p.Sequence = rec.Sequence
	p.Records++
	p.Bytes += uint64(len(rec.Data))
	if c.Progress == nil || p.GetRecords()%progressRecords != 0 || time.Since(c.told) < progressInterval {
		return nil
	}
	c.told = time.Now()
	return c.Progress(proto.CloneOf(p))
}

// missing counts the sequences up to one that were removed since the newest one
// seen. What retention has removed meanwhile is not among them.
func (c *check) missing(upTo uint64) {
	if from := max(c.last+1, c.log.State().First); from <= upTo {
		c.found.Removed += upTo - from + 1
	}
	c.last = max(c.last, upTo)
}

// damage adds what cannot be read, and returns the sequence to go on with.
func (c *check) damage(d *eventlog.DamagedError, end uint64) uint64 {
	first := max(d.First, c.last+1)
	last := max(first, min(d.Last, end))
	c.missing(first - 1)
	c.last = max(c.last, last)
	c.found.DamagedRecords += last - first + 1
	if len(c.found.GetDamaged()) < maxDamaged {
		r := &sluicev1.DamagedRange{FirstSequence: first, LastSequence: last}
		if d.Err != nil {
			r.Cause = d.Err.Error()
		}
		c.found.Damaged = append(c.found.Damaged, r)
	}
	return last + 1
}

// problem adds a sentence, while there is room.
func (c *check) problem(format string, args ...any) {
	if len(c.found.GetProblems()) < maxProblems {
		c.found.Problems = append(c.found.Problems, fmt.Sprintf(format, args...))
	}
}
