package ingest

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// Retype returns what today's decoder makes of the body of was, an event of the
// log with raw: a revision of it, with its key, source, path and time of
// receipt, and with no credential in it. It returns nil when the body is not
// one event: there is none, or it came typed.
func (s *Service) Retype(was *sluicev1.Event) (*sluicev1.Event, error) {
	cb := callback.Decode(was.GetRaw())
	r := s.routes.Load().named(was.GetSource())
	p := &post{
		route:    r,
		path:     was.GetPath(),
		received: was.GetReceiveTime(),
		secrets:  r.secretsWith(cb.GetTokens(), ""),
		decoded:  true,
	}
	entries, _, reason, err := s.read(p, cb)
	if err != nil || reason != "" || len(entries) != 1 {
		return nil, err
	}
	now := entries[0].event
	if slices.Contains(was.GetAnomalies(), callback.NestedToken) && !slices.Contains(now.GetAnomalies(), callback.NestedToken) {
		now.Anomalies = append(now.GetAnomalies(), callback.NestedToken) // what was cut out of a value leaves no other trace
		slices.Sort(now.GetAnomalies())
	}
	now.Key, now.RevisionOf = was.GetKey(), cmp.Or(was.GetRevisionOf(), was.GetSequence())
	now.ChatKey = chatKey(now)
	return now, nil
}

// AppendRetyped makes durable what Retype returned for was, and returns where it
// is. Within the log's dedupe window nothing is stored twice.
//
// The errors are those of eventlog.Log.Append.
func (s *Service) AppendRetyped(ctx context.Context, was, now *sluicev1.Event) (sequence uint64, err error) {
	data, err := s.fit(now)
	if err != nil {
		return 0, err
	}
	got, err := s.events.Append(ctx, eventlog.Record{
		Subject: record.Subject(now),
		Key:     now.GetChatKey(),
		ID:      record.ID(fmt.Sprintf("%s\nretyped %d by %d", was.GetKey(), was.GetSequence(), now.GetDecoderVersion())),
		Data:    data,
	})
	return got.Sequence, err
}
