package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sluicegate/sluice/server/eventlog"
)

// A store is a stream, which a Log is over.
type store struct {
	engine *Engine
	cfg    eventlog.LogConfig
	epoch  string
	log    *eventlog.Log
	health health

	mu      sync.Mutex
	state   eventlog.State // as the leader told, and what was appended since
	removed removals
	own     bool               // appended to since the leader was asked
	asked   uint64             // how often the leader was asked
	told    uint64             // which of its answers state is
	heard   *nats.Subscription // of the end; nil when the log is not followed

	leader, replicas         string    // as of then, for people
	reported, reportedLeader time.Time // when they were last complained about
}

// subject returns where r is published: the log, then the key, then what labels
// the record. The key comes before the label, so that one wildcard finds a key
// whatever the labels are, however many tokens they have.
func (s *store) subject(r eventlog.Record) string {
	return s.cfg.Name + "." + keyToken(r.Key) + "." + r.Subject
}

// keyToken returns a key as the token of a subject: 128 bits of its SHA-256, or
// "-" for none. Keys may hold what no subject can, and people's names.
func keyToken(key string) string {
	if key == "" {
		return "-"
	}
	hash := eventlog.HashKey(key)
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

// parseSubject returns what labels the record that has that subject, and what
// stands for its key.
func parseSubject(subject string) (label string, key eventlog.KeyHash) {
	_, rest, _ := strings.Cut(subject, ".")
	token, label, _ := strings.Cut(rest, ".")
	_, _ = base64.RawURLEncoding.Decode(key[:], []byte(token)[:min(len(token), 22)]) // none for what is no hash
	return label, key
}

// endSubject is where gateways of a cluster tell each other how far the log
// goes: the newest sequence, in decimal.
func (s *store) endSubject() string { return "sluice.end." + s.cfg.Name + "." + s.epoch }

// follow keeps the log up with what other gateways append: they tell of it, and
// Engine.refresh finds what is not told.
//
// Only what the stream's leader has acknowledged is told. A consumer would hear
// of records sooner, from a replica that is ahead of the leader; then the
// leader could still say that there is no such record.
func (s *store) follow() error {
	sub, err := s.engine.read.nc.Subscribe(s.endSubject(), func(m *nats.Msg) {
		if last, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
			s.extend(last, 0, time.Now())
			s.log.Advance(nil, last)
		}
	})
	if err != nil {
		return fmt.Errorf("follow the log's end: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = sub
	return nil
}

// close ends the log.
func (s *store) close() {
	s.log.Close()
	s.mu.Lock()
	sub := s.heard
	s.heard = nil
	s.mu.Unlock()
	if sub != nil {
		_ = sub.Unsubscribe() // the connection may be closed
	}
}

// extend takes down that the log goes up to last now, with size bytes more than
// before as far as is known.
func (s *store) extend(last uint64, size int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = s.own || size > 0
	if last <= s.state.Last {
		return
	}
	if s.state.Count == 0 {
		s.state.First, s.state.Since = s.state.Last+1, at
	}
	s.state.Count += last - s.state.Last
	s.state.Bytes += uint64(size) //nolint:gosec // not negative
	s.state.Last = last
}

// State returns the extent of the log, as of the last second.
func (s *store) State() eventlog.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	if state.Count == 0 {
		state.First, state.Since = state.Last+1, time.Time{}
	}
	return state
}

// info asks the stream's leader for what it holds.
func (s *store) info(ctx context.Context, r infoRequest) (streamInfo, error) {
	s.mu.Lock()
	s.asked++
	turn := s.asked
	s.mu.Unlock()
	var answer streamInfo
	if err := s.engine.read.ask(ctx, "$JS.API.STREAM.INFO."+s.cfg.Name, r, &answer); err != nil {
		return answer, s.engine.cause(err)
	}
	if answer.Error != nil {
		return answer, answer.Error.unavailable()
	}
	if answer.Cluster != nil && answer.Cluster.Leader == "" { // then any replica answers
		return answer, fmt.Errorf("%w: the stream has no leader", eventlog.ErrUnavailable)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := answer.State
	if found.Last >= s.state.Last && turn > s.told { // else it is older than what is known
		s.told = turn
		s.state = eventlog.State{
			First: found.First, Last: found.Last, Count: found.Messages, Bytes: found.Bytes, Since: found.FirstTime.UTC(),
		}
		s.own = false
	}
	first := found.First
	if found.Messages == 0 {
		first = found.Last + 1
	}
	s.removed.below(first)
	if r.Deleted && s.cfg.Deletes {
		s.removed.set(found.Deleted, found.Lost.Sequences, found.First)
	}
	if answer.Cluster != nil {
		s.leader, s.replicas = answer.Cluster.Leader, answer.Cluster.describe()
	}
	return answer, nil
}

// stale says whether the log may have changed without the engine's knowledge of
// how: one that no other gateway uses changes by appends only.
func (s *store) stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.cfg.Exclusive || s.own
}

// refresh asks the leader for the log's extent, and shows readers what they were
// not told of.
func (s *store) refresh(ctx context.Context) (uint64, error) {
	first := s.first()
	answer, err := s.info(ctx, infoRequest{})
	if err != nil {
		return 0, err
	}
	moved := s.first() > first
	last := answer.State.Last
	if moved && last < answer.State.First+maxKept || s.cfg.Exclusive && last > s.log.Durable() {
		s.log.Forget() // what is kept in memory may have been removed by retention, or by others
	}
	s.log.Advance(nil, last)
	return max(last, s.log.Durable()), nil
}

// maxKept is how many records a Log keeps in memory at most.
const maxKept = 8192

// first returns the sequence before which everything is known to be removed.
func (s *store) first() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed.first
}

// End implements eventlog.Store.
func (s *store) End(ctx context.Context) (uint64, error) {
	if err := s.engine.usable(); err != nil {
		return 0, err
	}
	return s.refresh(ctx)
}

// Append implements eventlog.Store.
func (s *store) Append(ctx context.Context, r eventlog.Record) (eventlog.Appended, error) {
	if err := s.engine.enter(); err != nil {
		return eventlog.Appended{}, err
	}
	defer s.engine.appends.Done()
	a, err := s.engine.commits.append(ctx, s, r)
	return a, s.engine.cause(err)
}

// errNoDeletes is why a record of a log is not removed: in a log that is opened
// so, a record that is missing is damage.
var errNoDeletes = errors.New("eventlog: the log was opened without Deletes")

// Delete implements eventlog.Store.
func (s *store) Delete(ctx context.Context, sequence uint64) error {
	if err := s.engine.usable(); err != nil {
		return err
	}
	if !s.cfg.Deletes {
		return errNoDeletes
	}
	var answer outcome
	request := struct {
		Sequence uint64 `json:"seq"`
	}{sequence}
	if err := s.engine.read.ask(ctx, "$JS.API.STREAM.MSG.DELETE."+s.cfg.Name, request, &answer); err != nil {
		return s.engine.cause(err)
	}
	switch fault := answer.Error; {
	case fault != nil && (fault.Code == codeNoSequence || fault.Description == textNoRecord):
		return eventlog.ErrNotFound
	case fault != nil:
		return fault.unavailable()
	case !answer.Success:
		return fmt.Errorf("%w: a record was not removed", eventlog.ErrUnavailable)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed.add(sequence)
	if s.state.Count > 0 {
		s.state.Count--
	}
	return nil
}

// Trim implements eventlog.Store.
func (s *store) Trim(ctx context.Context, sequence uint64) error {
	if err := s.engine.usable(); err != nil {
		return err
	}
	if s.cfg.Deletes || sequence > s.log.Durable()+1 {
		last, err := s.refresh(ctx)
		if err == nil {
			err = s.learn(ctx)
		}
		if err != nil {
			return err
		}
		// A purge beyond the end would move the end. One that leaves nothing but
		// deleted records must go up to there: nats-server 2.15 does not keep the
		// first sequence then, and brings a purged record back at a later read.
		if sequence > 1 && s.explain(sequence, last) > last {
			sequence = last + 1
		}
	}
	if sequence <= 1 { // a purge before 0 would remove everything
		return nil
	}
	var answer outcome
	request := struct {
		Sequence uint64 `json:"seq"`
	}{sequence}
	if err := s.engine.read.ask(ctx, "$JS.API.STREAM.PURGE."+s.cfg.Name, request, &answer); err != nil {
		return s.engine.cause(err)
	}
	if answer.Error != nil {
		return answer.Error.unavailable()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed.below(sequence)
	if sequence > s.state.First && s.state.Count > 0 {
		s.state.Count -= min(s.state.Count, sequence-s.state.First)
		s.state.First = sequence
	}
	return nil
}

// SequenceAt implements eventlog.Store. Only the leader is asked: a replica that
// lacks the record would name a later one.
func (s *store) SequenceAt(ctx context.Context, t time.Time) (uint64, error) {
	if err := s.engine.usable(); err != nil {
		return 0, err
	}
	durable := s.log.Durable()
	r, found, err := s.fromLeader(ctx, getRequest{StartTime: &t, NextFor: ">"})
	if err != nil {
		return 0, err
	}
	if !found || r.Sequence > durable {
		return durable + 1, nil
	}
	return r.Sequence, nil
}
