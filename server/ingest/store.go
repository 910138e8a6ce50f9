package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// An entry is an event on its way into the log.
type entry struct {
	event    *sluicev1.Event
	data     []byte // the event as it is stored
	hashed   bool   // the event's key is a hash of its content
	sequence uint64 // where it is, once stored
	outcome  outcome
}

// errSecret reports that a record would hold a secret.
var errSecret = errors.New("ingest: a record holds a secret")

// take makes an accepted callback durable.
func (s *Service) take(ctx context.Context, p *post, cb *sluicev1.Callback) (*sluicev1.ReceiveCallbackResponse, error) {
	entries, raw, reason, err := s.read(p, cb)
	switch {
	case err != nil:
		return nil, err
	case reason != "":
		return s.isolate(ctx, p, reason, raw)
	}
	return s.keep(ctx, p, entries)
}

// read returns what an accepted callback becomes: entries or, when it is no
// event, the reason why, and the body that is kept instead.
func (s *Service) read(p *post, cb *sluicev1.Callback) (entries []entry, raw []byte, reason string, err error) {
	entries, err = s.prepare(p, cb)
	if errors.Is(err, errSecret) && len(cb.GetRaw()) > 0 {
		// A token stands where no token belongs. What the decoder has made of
		// it holds it, too, so it is decoded again without.
		cb, p.decoded = callback.Scrub(cb.GetRaw(), p.secrets...), true
		entries, err = s.prepare(p, cb)
	}
	switch {
	case cb.GetMalformed() != "" && !slices.Contains(callback.MalformedReasons(), cb.GetMalformed()):
		return nil, nil, "", apierror.InvalidField("callback.malformed", "no such reason")
	case cb.GetMalformed() != "":
		return nil, callback.Scrub(cb.GetRaw(), p.secrets...).GetRaw(), cb.GetMalformed(), nil
	case errors.Is(err, errSecret) && len(cb.GetRaw()) > 0:
		return nil, cb.GetRaw(), reasonCredential, nil
	case errors.Is(err, errSecret):
		return nil, nil, "", apierror.InvalidField("callback.events", "an event holds a credential of its source")
	}
	return entries, nil, "", err
}

// keep stores entries and says where they are.
func (s *Service) keep(ctx context.Context, p *post, entries []entry) (*sluicev1.ReceiveCallbackResponse, error) {
	err := s.storeAll(ctx, entries)
	res := &sluicev1.ReceiveCallbackResponse{Errmsg: "ok", Sequences: make([]uint64, len(entries)), Duplicate: true}
	for i := range entries {
		e := &entries[i]
		s.metrics.count(p.route.Name, record.Kind(e.event), e.outcome)
		res.Sequences[i] = e.sequence
		res.Duplicate = res.GetDuplicate() && e.outcome == duplicate
	}
	if err != nil {
		return nil, err // what is stored is found again by a retry
	}
	return res, nil
}

// prepare gives the events of cb their envelope and encodes them. It returns
// errSecret when a record would hold one.
func (s *Service) prepare(p *post, cb *sluicev1.Callback) ([]entry, error) {
	if cb.GetMalformed() != "" {
		return nil, nil
	}
	if len(cb.GetEvents()) == 0 {
		return nil, apierror.InvalidField("callback", "holds neither a body nor events")
	}
	entries := make([]entry, len(cb.GetEvents()))
	for i, e := range cb.GetEvents() {
		if e.GetBody() == nil {
			return nil, apierror.InvalidField("callback.events", "event %d has no body", i)
		}
		if len(entries) == 1 && len(e.GetRaw()) == 0 {
			e.Raw = cb.GetRaw()
		}
		if err := s.encode(p, e, &entries[i]); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func (s *Service) encode(p *post, e *sluicev1.Event, to *entry) error {
	e.Sequence, e.Cursor, e.RevisionOf = 0, "", 0 // the log's business
	e.Source, e.Path, e.ReceiveTime = p.route.Name, p.path, p.received
	e.DecoderVersion = 0
	if p.decoded {
		e.DecoderVersion = callback.Version
	}
	callback.Refine(e, p.path)
	var err error
	if e.Key, to.hashed, err = identify(e); err != nil {
		return err
	}
	e.ChatKey = chatKey(e)
	if to.data, err = s.fit(e); err != nil {
		return err
	}
	if p.holdsSecret(to.data) {
		return errSecret
	}
	to.event, to.outcome = e, failed
	return nil
}

// fit encodes e so that the log can take it. What is converted field by field
// can become several times as long as its JSON; where that makes the record too
// long the conversion is given up, and the vendor's body stands for itself: the
// anomalies say so.
func (s *Service) fit(e *sluicev1.Event) ([]byte, error) {
	// revision_of may have to be added, which this leaves room for.
	const revision = 16
	limit := s.maxRecord - revision
	for shed := 0; ; shed++ {
		data, err := record.Encode(e)
		if err != nil {
			return nil, fmt.Errorf("encode event: %w", err)
		}
		switch {
		case len(data) <= limit:
			return data, nil
		case len(e.GetRaw()) == 0 || shed == 2:
			return nil, s.tooLarge()
		case shed == 0 && e.GetUnmapped() != nil:
			e.Unmapped = nil
			note(e, callback.UnmappedTruncated)
		default:
			e.Body = &sluicev1.Event_Other{Other: &sluicev1.OtherCallback{Path: e.GetPath()}}
			note(e, bodyNotConverted)
		}
	}
}

// bodyNotConverted is the anomaly of an event whose body, once converted, is
// more than a record can hold: it is in raw only.
const bodyNotConverted = "BODY_NOT_CONVERTED"

func note(e *sluicev1.Event, anomaly string) {
	if !slices.Contains(e.GetAnomalies(), anomaly) {
		e.Anomalies = append(e.GetAnomalies(), anomaly)
		slices.Sort(e.Anomalies)
	}
}

// maxParallel bounds how many events of one callback are stored at a time.
const maxParallel = 64

// storeAll makes all entries durable: those of one chat one after the other,
// for their order, and different chats side by side.
func (s *Service) storeAll(ctx context.Context, entries []entry) error {
	if len(entries) == 1 {
		return s.store(ctx, &entries[0])
	}
	chats := make(map[string][]*entry)
	for i := range entries {
		e := &entries[i]
		chats[e.event.GetChatKey()] = append(chats[e.event.GetChatKey()], e)
	}
	var g errgroup.Group
	g.SetLimit(maxParallel)
	for _, chat := range chats {
		g.Go(func() error {
			for _, e := range chat {
				if err := s.store(ctx, e); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// store makes one entry durable: as the first event with its key, as a revision
// of that, or not again when the log holds the same already.
func (s *Service) store(ctx context.Context, e *entry) error {
	r := eventlog.Record{
		Subject: record.Subject(e.event), Key: e.event.GetChatKey(), ID: record.ID(e.event.GetKey()), Data: e.data,
	}
	got, err := s.events.Append(ctx, r)
	if err != nil {
		return err
	}
	e.sequence = got.Sequence
	switch {
	case !got.Duplicate:
		e.outcome = stored
		return nil
	case e.hashed:
		e.outcome = duplicate
		return nil
	}

	e.outcome = failed
	was, err := s.original(ctx, got.Sequence)
	var damaged *eventlog.DamagedError
	switch {
	case errors.Is(err, eventlog.ErrNotFound):
		// It was removed, faster than the dedupe window: nothing is left to be a
		// revision of.
		e.outcome = stored
	case errors.As(err, &damaged):
		// Whether it says the same cannot be seen any more. What came now may be
		// all that is left of it, so it is stored, as what it would be if the
		// original could be read and differed.
		e.outcome = revised
		r.Data = record.Revise(e.data, got.Sequence)
	case err != nil:
		return err // to be asked again: taken for new it would be stored twice
	case sameContent(was, e.event):
		e.outcome = duplicate
		return nil
	default:
		e.outcome = revised
		r.Data = record.Revise(e.data, got.Sequence)
	}
	content, err := contentHash(e.event)
	if err == nil {
		r.ID = record.ID(e.event.GetKey() + "\n" + content)
		got, err = s.events.Append(ctx, r)
	}
	if err != nil {
		e.outcome = failed
		return err
	}
	e.sequence = got.Sequence
	if got.Duplicate {
		e.outcome = duplicate
	}
	return nil
}

// original returns the event at sequence, which one with the same key follows.
// The error is one of eventlog.Log.Get.
func (s *Service) original(ctx context.Context, sequence uint64) (*sluicev1.Event, error) {
	rec, err := s.events.Get(ctx, sequence)
	if err != nil {
		return nil, err
	}
	e, err := record.Decode(rec.Data, rec.Sequence, s.events.Epoch(), true)
	if err != nil {
		return nil, &eventlog.DamagedError{Log: s.events.Name(), First: sequence, Last: sequence, Err: err}
	}
	return e, nil
}

// reasonCredential is the reason for a callback whose credential could not be
// cut out of its events.
const reasonCredential = "CREDENTIAL"

// isolate stores a callback that is no event in quarantine.
func (s *Service) isolate(
	ctx context.Context, p *post, reason string, raw []byte,
) (*sluicev1.ReceiveCallbackResponse, error) {
	entry := &sluicev1.QuarantineEntry{
		Source:      p.route.Name,
		ReceiveTime: p.received,
		Path:        p.path,
		Reason:      reason,
		ContentType: p.cut(p.contentType),
		Raw:         raw,
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("encode quarantine entry: %w", err)
	}
	got, err := s.quarantine.Append(ctx, eventlog.Record{
		Subject: record.Token(p.route.Name),
		ID:      record.ID(entry.GetSource() + "\n" + entry.GetPath() + "\n" + string(entry.GetRaw())),
		Data:    data,
	})
	switch {
	case err != nil:
		s.metrics.count(p.route.Name, noKind, failed)
		return nil, err
	case got.Duplicate:
		s.metrics.count(p.route.Name, noKind, duplicate)
	default:
		s.metrics.count(p.route.Name, noKind, quarantined)
		s.metrics.quarantined.WithLabelValues(p.route.Name, reason).Inc()
	}
	return &sluicev1.ReceiveCallbackResponse{Errmsg: "ok", Duplicate: got.Duplicate}, nil
}

// secretsWith returns what must not be stored of a callback that these tokens
// came with: them and all that are configured, as far as they are known and
// long enough.
func (r *route) secretsWith(tokens []string, query string) []string {
	secrets := r.plain
	add := func(token string) {
		if len(token) >= minSearched && !slices.Contains(secrets, token) { // rare: most are configured
			secrets = append(slices.Clip(secrets), token)
		}
	}
	for _, token := range tokens {
		add(token)
	}
	add(query)
	return secrets
}

// holdsSecret reports whether a secret stands in data.
func (p *post) holdsSecret(data []byte) bool {
	for _, secret := range p.secrets {
		if bytes.Contains(data, []byte(secret)) {
			return true
		}
	}
	return false
}

// cut returns s without secrets.
func (p *post) cut(s string) string {
	for _, secret := range p.secrets {
		for strings.Contains(s, secret) { // cutting one out can make another
			s = strings.ReplaceAll(s, secret, "")
		}
	}
	return s
}

// warnInterval is how often at most a failing log is warned of: with it, every
// callback fails.
const warnInterval = 10 * time.Second

// explain returns what the caller should see of err, and warns the operator.
func (s *Service) explain(err error) error {
	var api *apierror.Error
	if errors.As(err, &api) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) { // ours: the outcome is unknown
		err = fmt.Errorf("%w: %w", eventlog.ErrUnavailable, err)
	}
	last, now := s.warned.Load(), time.Now().Unix()
	if now-last >= int64(warnInterval/time.Second) && s.warned.CompareAndSwap(last, now) {
		s.logger.Warn("callbacks cannot be stored", "err", err)
	}
	return err
}
