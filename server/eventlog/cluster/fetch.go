package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	// maxFetch and maxFetchBytes bound one request for records: the server
	// serves reads and writes of a stream in turn.
	maxFetch      = 256
	maxFetchBytes = eventlog.MaxReadBytes

	// maxAsked bounds the records that one read asks the leader for, one by one,
	// and maxDamaged those that it asks for in vain.
	maxAsked   = 64
	maxDamaged = 1000
)

// direct asks whichever replica is the nearest for records, in order, and how
// many there are after the first one. What it sends is right; what it does not
// send may be there all the same, since a replica can lag or be damaged.
func (s *store) direct(ctx context.Context, req getRequest) (records []eventlog.Record, after uint64, err error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, 0, err
	}
	type result struct {
		records []eventlog.Record
		after   uint64
		err     error
	}
	var got result // of receive, which is called for one message after the other
	done := make(chan result, 1)
	reply, cancel := s.engine.read.listen(func(m *nats.Msg) {
		switch status := m.Header.Get(headerStatus); status {
		case "":
			r, err := parseRecord(m)
			if len(got.records) == 0 {
				got.after, _ = strconv.ParseUint(m.Header.Get(headerPending), 10, 64)
			}
			got.records = append(got.records, r)
			got.err = errors.Join(got.err, err)
			if req.Batch > 0 {
				return
			}
		case "204", "404": // the end of the batch, nothing there
		default:
			got.err = fmt.Errorf("%w: read: %s %s", eventlog.ErrUnavailable, status, m.Header.Get(headerDescription))
		}
		select {
		case done <- got:
		default:
		}
	})
	defer cancel()
	s.engine.read.send(&nats.Msg{Subject: "$JS.API.DIRECT.GET." + s.cfg.Name, Reply: reply, Data: body})
	silence := time.NewTimer(askAgain) // the leader may be asked instead
	defer silence.Stop()
	select {
	case r := <-done:
		return r.records, r.after, r.err
	case <-silence.C:
		return nil, 0, errNoReplica
	case <-s.engine.read.closed:
		return nil, 0, eventlog.ErrClosed
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// errNoReplica is why nothing was read: what was asked is gone, perhaps.
var errNoReplica = fmt.Errorf("%w: no replica answered a read", eventlog.ErrUnavailable)

// parseRecord returns the record that a replica answered with.
func parseRecord(m *nats.Msg) (eventlog.Record, error) {
	sequence, err := strconv.ParseUint(m.Header.Get(headerSequence), 10, 64)
	if err != nil {
		return eventlog.Record{}, fmt.Errorf("%w: a record without a sequence", eventlog.ErrUnavailable)
	}
	stored, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerTime))
	if err != nil {
		return eventlog.Record{}, fmt.Errorf("%w: a record without a time", eventlog.ErrUnavailable)
	}
	subject, key := parseSubject(m.Header.Get(headerSubject))
	return eventlog.Record{Sequence: sequence, Time: stored, Subject: subject, KeyHash: key, Data: m.Data}, nil
}

// fromLeader asks the stream's leader, which answers with one record at most.
func (s *store) fromLeader(ctx context.Context, req getRequest) (eventlog.Record, bool, error) {
	var answer getAnswer
	if err := s.engine.read.ask(ctx, "$JS.API.STREAM.MSG.GET."+s.cfg.Name, req, &answer); err != nil {
		return eventlog.Record{}, false, s.engine.cause(err)
	}
	switch fault, m := answer.Error, answer.Message; {
	case fault != nil && fault.Code == codeNoMessage:
		return eventlog.Record{}, false, nil
	case fault != nil:
		return eventlog.Record{}, false, fault.unavailable()
	case m == nil:
		return eventlog.Record{}, false, fmt.Errorf("%w: an empty answer", eventlog.ErrUnavailable)
	default:
		subject, key := parseSubject(m.Subject)
		return eventlog.Record{Sequence: m.Sequence, Time: m.Time, Subject: subject, KeyHash: key, Data: m.Data}, true, nil
	}
}

// Fetch implements eventlog.Store.
//
// Any replica may answer. Whatever is missing from its answer, before a record
// or at its end, is explained by what the leader has removed, or asked of it.
func (s *store) Fetch(ctx context.Context, from, to uint64, limit int) ([]eventlog.Record, uint64, error) {
	if err := s.engine.usable(); err != nil {
		return nil, 0, err
	}
	limit = min(limit, maxFetch)
	request := getRequest{Seq: from}
	if from < to {
		request.Batch, request.MaxBytes = limit, maxFetchBytes
	}
	found, _, err := s.direct(ctx, request)
	if err != nil && !errors.Is(err, errNoReplica) {
		return nil, 0, s.engine.cause(err)
	}
	if i := slices.IndexFunc(found, func(r eventlog.Record) bool { return r.Sequence > to }); i >= 0 {
		found = found[:i]
	}
	if len(found) == 0 {
		records, through, fault := s.fill(ctx, from, to, limit)
		if err == nil { // one that did not answer at all lacks nothing
			s.missed(slices.DeleteFunc(slices.Clone(records), lagging))
		}
		return records, through, fault
	}
	var records []eventlog.Record
	next := from
	for _, r := range found {
		for next < r.Sequence && len(records) < limit {
			part, through, err := s.fill(ctx, next, r.Sequence-1, limit-len(records))
			switch {
			case err != nil && next > from:
				return records, next - 1, nil // whoever reads on gets it
			case err != nil:
				return nil, 0, err
			}
			s.missed(part)
			records, next = append(records, part...), through+1
		}
		if len(records) == limit {
			break
		}
		records, next = append(records, r), r.Sequence+1
	}
	return records, next - 1, nil
}

// lagging says whether a replica may not have r yet, for no other reason than
// that it lags behind.
func lagging(r eventlog.Record) bool { return time.Since(r.Time) < lagAllowance }

const lagAllowance = 5 * time.Second

// fill returns the first records from first to last, which a replica did not
// send. The result is that of Fetch.
func (s *store) fill(ctx context.Context, first, last uint64, limit int) (records []eventlog.Record, through uint64, err error) {
	if err := s.truncated(first); err != nil {
		return nil, 0, err
	}
	if next := s.explain(first, last); next > first {
		return nil, next - 1, nil
	}
	if err := s.learn(ctx); err != nil {
		return nil, 0, err
	}
	next := first
	for asked := 0; next <= last && asked < maxAsked && len(records) < limit; asked++ {
		if next = s.explain(next, last); next > last {
			break
		}
		r, found, err := s.fromLeader(ctx, getRequest{Seq: next})
		var others []eventlog.Record
		if err == nil && !found {
			others, err = s.fromOthers(ctx, next, last, limit-len(records))
		}
		if err == nil && !found && len(others) == 0 {
			err = s.damage(ctx, next, last)
		}
		switch {
		case found:
			records = append(records, r)
			next++
		case len(others) > 0:
			records = append(records, others...)
			next += uint64(len(others))
		case err != nil && next > first:
			return records, next - 1, nil // whoever reads on gets it
		case err != nil:
			return nil, 0, err
		}
	}
	if len(records) == 0 {
		if err := s.truncated(first); err != nil {
			return nil, 0, err
		}
	}
	return records, max(next-1, first), nil
}

// explain returns the first sequence from first on that is not known to be
// removed, or the one after last.
func (s *store) explain(first, last uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(s.removed.skip(first), last+1)
}

// truncated returns a TruncatedError when retention has passed from.
func (s *store) truncated(from uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first := s.removed.first; from < first {
		return &eventlog.TruncatedError{Asked: from, First: first}
	}
	return nil
}

// learn asks the leader what it has removed, unless that is known.
func (s *store) learn(ctx context.Context) error {
	info, err := s.info(ctx, infoRequest{})
	if err != nil || !s.cfg.Deletes {
		// Nothing but retention removes a record of such a log, so that one is
		// missing in between is damage, also where the leader took it for
		// deleted when it recovered.
		return err
	}
	s.mu.Lock()
	known := s.removed.listed == info.State.NumDeleted && s.removed.listedFirst == info.State.First
	s.mu.Unlock()
	if !known {
		_, err = s.info(ctx, infoRequest{Deleted: true})
	}
	return err
}

// fromOthers returns the records from first on, none after last, that the leader
// has not got, if another replica has. Which one answers is left to chance.
func (s *store) fromOthers(ctx context.Context, first, last uint64, limit int) ([]eventlog.Record, error) {
	for i := 0; i < maxTries && s.engine.cfg.Replicas > 1; i++ {
		found, _, err := s.direct(ctx, getRequest{Seq: first, Batch: limit, MaxBytes: maxFetchBytes})
		if err != nil {
			return nil, err
		}
		n := 0
		for n < len(found) && found[n].Sequence == first+uint64(n) && found[n].Sequence <= last {
			n++
		}
		if n > 0 {
			s.report(&s.reportedLeader, "the stream's leader lacks records that another replica holds: its store is damaged; "+
				"move the leader, and have that server make its copy anew", found[:n])
			return found[:n], nil
		}
	}
	return nil, nil
}

// maxTries is how often replicas are asked for what the leader lacks: with three
// of them, all but one in 40 million times one of the others has answered.
const maxTries = 16

// damage returns a DamagedError for records from first on that the leader has
// not got, unless they were removed meanwhile.
func (s *store) damage(ctx context.Context, first, last uint64) error {
	if _, err := s.info(ctx, infoRequest{Deleted: s.cfg.Deletes}); err != nil {
		return err
	}
	if s.explain(first, first) > first {
		return nil
	}
	end := first
	for end < last && end-first < maxDamaged && s.explain(end+1, end+1) == end+1 {
		if _, found, err := s.fromLeader(ctx, getRequest{Seq: end + 1}); err != nil || found {
			break
		}
		end++
	}
	return &eventlog.DamagedError{Log: s.cfg.Name, First: first, Last: end, Err: errMissing}
}

// errMissing is what is wrong with a record that no replica has that was asked.
var errMissing = errors.New("it was stored and not removed, but the stream's leader does not have it")

// missed counts and logs records that the leader had and a replica had not.
func (s *store) missed(records []eventlog.Record) {
	if len(records) == 0 {
		return
	}
	s.engine.misses.Add(float64(len(records)))
	s.report(&s.reported, "a replica lacks records that the stream's leader holds: its store is damaged, or it is far behind; "+
		"they were read from the leader. It is not known which replica answered: compare the message counts of those that do not lead", records)
}

// report logs what is wrong with a replica, unless it has just been logged.
func (s *store) report(last *time.Time, text string, records []eventlog.Record) {
	s.mu.Lock()
	again := time.Since(*last) < reportInterval
	if !again {
		*last = time.Now()
	}
	leader, replicas := s.leader, s.replicas
	s.mu.Unlock()
	if !again {
		s.engine.logger.Error(text, "log", s.cfg.Name, "first_sequence", records[0].Sequence,
			"last_sequence", records[len(records)-1].Sequence, "leader", leader, "replicas", replicas)
	}
}

// reportInterval is how often a log's replicas are complained about.
const reportInterval = 10 * time.Second
