package ingest

import (
	"context"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/record"
)

// Restore has today's decoder read a body from quarantine again and makes the
// events that it holds durable, on the way that they would have taken then: the
// same identity, no credential in them, and the entry's source, path and time
// of receipt. Whether the callback is accepted was decided when it came. The
// answer's reason says why the body still is no event, and nothing was stored.
//
// With dryRun it stores nothing, and only says what it would.
//
// It leaves the entry where it is. Restoring one again, after a crash for
// example, stores nothing twice within the log's dedupe window. Beyond that the
// identity is not remembered any more, and each event is stored anew under the
// same key.
//
// The errors are those of eventlog.Log.Append.
func (s *Service) Restore(
	ctx context.Context, q *sluicev1.QuarantineEntry, dryRun bool,
) (*sluicev1.ReparsedEntry, error) {
	cb := callback.Decode(q.GetRaw())
	r := s.routes.Load().named(q.GetSource())
	p := &post{route: r, received: q.GetReceiveTime(), secrets: r.secretsWith(cb.GetTokens(), ""), decoded: true}
	p.path = p.cut(q.GetPath())
	entries, _, reason, err := s.read(p, cb)
	if err != nil {
		return nil, err
	}
	again := &sluicev1.ReparsedEntry{Sequence: q.GetSequence(), Reason: reason}
	for i := range entries {
		again.Kinds = append(again.Kinds, record.Kind(entries[i].event))
	}
	if dryRun || reason != "" {
		return again, nil
	}
	res, err := s.keep(ctx, p, entries)
	again.EventSequences, again.Duplicate = res.GetSequences(), res.GetDuplicate()
	return again, err
}

// named returns the route of a source. One that is not configured any more has
// no credentials.
func (rs routes) named(source string) *route {
	for _, r := range rs {
		if r.Name == source {
			return r
		}
	}
	return &route{Source: Source{Name: source}}
}
