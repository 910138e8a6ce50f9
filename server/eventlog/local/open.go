package local

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/sluicegate/sluice/server/eventlog"
)

// Open opens the logs in a data directory, and makes the directory when it is
// missing. What is there is looked at without changing anything first: an
// *eventlog.DataLossError says that it is less than was acknowledged, or
// damaged, and then no file has changed. What takes long is the database, which
// knows no context.
func Open(_ context.Context, cfg Config) (*Engine, error) {
	e, err := newEngine(cfg, true)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.Dir, err)
	}
	if err := e.start(); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.Dir, errors.Join(err, e.closeFiles()))
	}
	return e, nil
}

// OpenReadOnly opens the logs in a data directory that no gateway uses, and
// changes nothing. What Open would refuse is no error, as long as it can be
// read.
func OpenReadOnly(_ context.Context, cfg Config) (*Engine, error) {
	e, err := newEngine(cfg, false)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.Dir, err)
	}
	exists, err := e.dir.hasDatabase()
	if err == nil && !exists {
		err = fmt.Errorf("it holds no log: %w", fs.ErrNotExist)
	}
	if err == nil {
		e.db, err = e.openDatabase(true, true)
	}
	if err == nil {
		err = openError(e.load())
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", cfg.Dir, errors.Join(err, e.closeFiles()))
	}
	e.end(errors.New("eventlog: the log was opened for reading only"), false)
	return e, nil
}

func newEngine(cfg Config, create bool) (*Engine, error) {
	cfg.CommitTimeout = cmp.Or(cfg.CommitTimeout, defaultCommitTimeout)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	e := &Engine{
		cfg: cfg, logger: cfg.Logger, started: time.Now(), stores: make(map[string]*store), next: 1,
		ops: make(chan *op, maxWaiting), reads: make(chan struct{}, maxReads), scans: make(chan struct{}, maxScans()),
		sweep: make(chan struct{}, 1), trouble: make(chan error, 1), closing: make(chan struct{}), over: make(chan struct{}), failed: make(chan struct{}),
	}
	shared, err := eventlog.NewMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	if e.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	e.options = eventlog.Options{
		CommitTimeout: cfg.CommitTimeout, MaxRecord: cfg.MaxRecord, Metrics: shared, Logger: cfg.Logger,
	}
	e.dir, err = openDirectory(cfg.Dir, create)
	return e, err
}

// start checks what is there, opens it for writing, and begins to work.
func (e *Engine) start() error {
	if err := e.claim(false); err != nil {
		return err
	}
	first, second, err := e.readMarks()
	if err != nil {
		return err
	}
	places := newer(first, second)
	exists, err := e.dir.hasDatabase()
	if err != nil {
		return err
	}
	losses, err := e.inspect(exists, places)
	if errors.As(err, new(*eventlog.DataLossError)) && e.cfg.AcceptDataLoss {
		if err := e.salvage(); err != nil {
			return err
		}
		losses, err = e.inspect(exists, places)
	}
	if err != nil {
		return err
	}
	if len(losses) > 0 && !e.cfg.AcceptDataLoss {
		return losses[0].err
	}
	if err := e.claim(true); err != nil {
		return err
	}
	if free, err := freeSpace(e.dir.root); err == nil && free < e.cfg.MinFree {
		if err := e.dir.dropBallast(); err != nil {
			return err
		}
	}
	if e.db, err = e.openDatabase(false, exists); err != nil {
		return err
	}
	if e.dir.log, err = os.Open(e.dir.file(databaseDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it is not there when a test has the database elsewhere
	}
	if err := e.load(); err != nil {
		return openError(err)
	}
	if err := e.openMarks(first, second); err != nil {
		return err
	}
	if err := e.accept(losses); err != nil {
		return err
	}
	e.watch()
	sweeper := &sweeper{engine: e, seen: lastWritten(places)}
	e.background.Go(sweeper.run)
	e.every(watchInterval, e.watch)
	e.every(markInterval, func() { _ = e.syncMarks() })
	e.workers.Go(e.writer)
	return nil
}

// claim makes sure that wal_failover_dir, if there is one, is nobody else's.
func (e *Engine) claim(take bool) error {
	if e.cfg.WALFailoverDir == "" {
		return nil
	}
	return e.dir.claim(e.cfg.WALFailoverDir, take)
}

// readMarks reads the mark in the data directory, and the one on the other disk.
func (e *Engine) readMarks() (first, second []place, err error) {
	if first, err = readMarks(e.dir.file(markName)); err == nil && e.cfg.WALFailoverDir != "" {
		second, err = readMarks(filepath.Join(e.cfg.WALFailoverDir, markName))
	}
	return first, second, err
}

// openMarks opens them for writing.
func (e *Engine) openMarks(first, second []place) error {
	f, err := openMarks(e.dir.file(markName), first, e.stores)
	if err != nil {
		return err
	}
	var other *markFile
	if e.cfg.WALFailoverDir != "" {
		if other, err = openMarks(filepath.Join(e.cfg.WALFailoverDir, markName), second, e.stores); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	e.marks = newMarks(f, other)
	if err := e.dir.root.Sync(); err != nil { // the mark is in it from now on
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// lastWritten returns when the newest mark was written; zero for none.
func lastWritten(places []place) (at time.Time) {
	for _, p := range places {
		if t := time.Unix(0, p.mark.time); p.valid && p.mark.time != 0 && t.After(at) {
			at = t
		}
	}
	return at
}

// A loss is what a log lacks.
type loss struct {
	err   *eventlog.DataLossError
	name  string // "" when not even that is known
	mark  mark
	place int // of the mark; -1 when there is none

	damaged []*eventlog.DamagedError // what cannot be read of a log that must be whole
}

// inspect opens the database for reading only, and holds it against the marks.
// It changes no file.
func (e *Engine) inspect(exists bool, places []place) ([]loss, error) {
	if exists {
		db, err := e.openDatabase(true, true)
		if err != nil {
			return nil, err
		}
		e.db = db
		defer func() { e.db = nil }()
		if err := e.load(); err != nil {
			return nil, errors.Join(openError(err), db.Close())
		}
		losses, err := e.compare(places)
		clear(e.stores)
		return losses, errors.Join(err, db.Close())
	}
	return e.compare(places)
}

// load reads which logs there are, and how far they go.
func (e *Engine) load() error {
	if v, closer, err := e.db.Get([]byte{keyNext}); err == nil && len(v) == 4 {
		e.next = binary.BigEndian.Uint32(v) + 1
		if err := closer.Close(); err != nil {
			return err
		}
	} else if err != nil && !isNotFound(err) {
		return err
	}
	return e.each([]byte{keyName}, []byte{keyName + 1}, func(iter *pebble.Iterator) error {
		return e.loadLog(string(iter.Key()[1:]), iter.Value())
	})
}

func (e *Engine) loadLog(name string, entry []byte) error {
	s := &store{engine: e, name: name}
	var err error
	if s.entry, err = decodeLogEntry(entry); err != nil {
		return err
	}
	v, closer, err := e.db.Get(logKey(keyState, s.entry.number))
	if isNotFound(err) {
		return &eventlog.DataLossError{Log: name, Reason: "how far it goes is not known any more"}
	}
	if err != nil {
		return err
	}
	s.next, err = decodeState(v)
	if err := errors.Join(err, closer.Close()); err != nil {
		return err
	}
	s.first.Store(s.next.first)
	s.seen.Last = s.next.last
	e.next = max(e.next, s.entry.number+1)
	e.stores[name] = s
	return nil
}

// compare holds the logs against their marks.
func (e *Engine) compare(places []place) ([]loss, error) {
	var losses []loss
	known := make(map[uint32]bool)
	for _, s := range e.stores {
		known[s.entry.number] = true
		l := loss{name: s.name}
		l.mark, l.place = s.markIn(places)
		reason, err := s.compare(l.mark, l.place >= 0)
		if err != nil {
			return nil, err
		}
		if reason == "" && slices.Contains(e.cfg.Whole, s.name) {
			if l.damaged, err = s.unreadable(); err != nil {
				return nil, err
			}
			if len(l.damaged) > 0 {
				reason = fmt.Sprintf("records %d to %d are damaged, and it is of no use without them: %v",
					l.damaged[0].First, l.damaged[0].Last, l.damaged[0].Err)
			}
		}
		if reason != "" {
			l.err = &eventlog.DataLossError{Log: s.name, Want: l.mark.last, Have: s.next.last, Reason: reason}
			losses = append(losses, l)
		}
	}
	for i, p := range places {
		if p.valid && !known[p.mark.number] && p.mark.flags&markRemoved == 0 {
			losses = append(losses, loss{mark: p.mark, place: i, err: &eventlog.DataLossError{
				Want: p.mark.last, Reason: fmt.Sprintf("a log that held records up to %d is missing", p.mark.last),
			}})
		}
	}
	return losses, nil
}

// markIn returns the mark of the log and where it is; -1 when there is none.
func (s *store) markIn(places []place) (m mark, at int) {
	if i := int(s.entry.slot); i < len(places) && places[i].valid && places[i].mark.number == s.entry.number {
		return places[i].mark, i
	}
	return mark{}, -1
}

// unreadable reads the whole log and returns what of it is damaged.
func (s *store) unreadable() (damaged []*eventlog.DamagedError, err error) {
	for next := s.next.first; next <= s.next.last; {
		p, err := s.fetch(next, s.next.last, math.MaxInt)
		var d *eventlog.DamagedError
		switch {
		case errors.As(err, &d):
			damaged = append(damaged, d)
			next = d.Last + 1
		case err != nil:
			return nil, err
		default:
			next = p.through + 1
		}
	}
	return damaged, nil
}

// compare returns what is wrong with s; "" when it is all that was acknowledged.
func (s *store) compare(m mark, marked bool) (reason string, err error) {
	n := s.next
	switch {
	case n.counted != n.changes:
		return fmt.Sprintf("of %d changes %d are missing", n.changes, n.changes-min(n.counted, n.changes)), nil
	case !marked && n.changes > 1:
		return "its high-water mark is missing or damaged, so whether anything else is cannot be told", nil
	case !marked:
		return "", nil
	case m.epoch != s.entry.epoch:
		return "it is not the log that the high-water mark is of", nil
	case m.last > n.last:
		return "the newest records are missing", nil
	case m.changes > n.changes || m.first > n.first:
		return fmt.Sprintf("the newest changes are missing: it had %d, and has %d", m.changes, n.changes), nil
	case m.sum == 0 || m.last < n.first:
		return "", nil
	}
	v, closer, err := s.engine.db.Get(sequenceKey(keyRecord, s.entry.number, m.last))
	switch {
	case isNotFound(err), isDamage(err):
		return "", nil // readers meet it
	case err != nil:
		return "", err
	}
	same := len(v) >= 4 && binary.BigEndian.Uint32(v) == m.sum
	if !same {
		reason = fmt.Sprintf("record %d is not the one that was acknowledged", m.last)
	}
	return reason, closer.Close()
}

// accept has each log that has lost something go on: under a new epoch, so that
// positions of before mean nothing any more, and behind the newest sequence that
// was ever acknowledged, so that none is given twice.
func (e *Engine) accept(losses []loss) error {
	for _, l := range losses {
		e.logger.Warn("data loss was accepted", "err", l.err)
		if s := e.stores[l.name]; s != nil {
			if err := s.accept(l); err != nil {
				return err
			}
		} else if err := e.marks.clear(uint32(l.place)); err != nil { //nolint:gosec // it has one
			return err
		}
	}
	return nil
}

func (s *store) accept(l loss) error {
	b, m := s.engine.db.NewBatch(), l.mark
	for _, d := range l.damaged {
		must(b.Set(sequenceKey(keyLost, s.entry.number, d.First), binary.BigEndian.AppendUint64(nil, d.Last), nil))
	}
	switch have := s.next.last; {
	case m.last <= have:
	case s.next.first > have: // nothing else is held
		s.next.first, s.next.last = m.last+1, m.last
	default:
		must(b.Set(sequenceKey(keyLost, s.entry.number, have+1), binary.BigEndian.AppendUint64(nil, m.last), nil))
		s.next.last = m.last
	}
	s.next.first = max(s.next.first, m.first)
	s.first.Store(s.next.first)
	s.next.changes = max(s.next.changes, m.changes) + 1
	s.next.counted = s.next.changes
	s.entry.epoch = newEpoch()
	s.seen.Last = s.next.last
	must(b.Set(nameKey(s.name), s.entry.encode(), nil))
	must(b.Set(logKey(keyState, s.entry.number), s.next.encode(), nil))
	if err := s.engine.db.Apply(b, pebble.Sync); err != nil {
		return err
	}
	c := change{store: s, state: s.next}
	return errors.Join(b.Close(), s.engine.marks.write(s.entry.slot, c.mark(s.engine.cfg.Clock().UnixNano())), s.engine.marks.sync())
}

// newEpoch returns a number that no other log has.
func newEpoch() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])
}

// epochText returns an epoch as clients see it: 16 hex digits.
func epochText(epoch uint64) string { return fmt.Sprintf("%016x", epoch) }
