// Package drift finds out how what the vendor sends and what the schema knows
// drift apart: fields, numbers, paths and shapes that no mapping knows. It reads
// the log from its beginning and then follows it, so that nothing of it has to
// be stored. It keeps names and counts, never a value that somebody sent.
package drift

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

const (
	// After warnBurst lines about new findings there is one every warnInterval.
	warnBurst    = 20
	warnInterval = time.Minute
)

// Config says what a Service works on.
type Config struct {
	// Log holds the events. Required.
	Log *eventlog.Log

	// Logger takes a line for each new finding, within bounds. nil means no
	// logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer
}

// A Service implements DriftService. It is safe for concurrent use.
type Service struct {
	sluicev1.UnimplementedDriftServiceServer

	log     *eventlog.Log
	logger  *slog.Logger
	metrics *metrics

	mu       sync.Mutex // guards what follows
	tracker  Tracker
	position uint64 // everything at or before it was looked at
}

// New returns the Service that cfg describes. It has found nothing until it is
// Run.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil {
		return nil, errors.New("drift: Config.Log must be set")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Service{log: cfg.Log, logger: cfg.Logger, metrics: m}, nil
}

// GetDrift implements DriftService.
func (s *Service) GetDrift(context.Context, *sluicev1.GetDriftRequest) (*sluicev1.GetDriftResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &sluicev1.GetDriftResponse{
		Findings:        s.tracker.Report(),
		Sequence:        s.position,
		CaughtUp:        s.position >= s.log.Durable(),
		OddEvents:       s.tracker.odd,
		FindingsLeftOff: s.tracker.leftOff,
	}, nil
}

// Run reads the log until ctx ends or the log is closed. It is called once.
func (s *Service) Run(ctx context.Context) {
	f := follower{
		Service:  s,
		looked:   time.Now(),
		history:  s.log.Durable(),
		warnings: rate.NewLimiter(rate.Every(warnInterval), warnBurst),
	}
	_ = s.log.Follow(ctx, 0, func(step eventlog.Step) error { // ends with ctx or the log
		if d := step.Damaged; d != nil {
			f.warn("damaged events are left out of the drift report", "first_sequence", d.First, "last_sequence", d.Last)
		}
		f.take(step)
		return f.rest(ctx)
	})
}

// rests is how many times as long as it looks at the events held a Service rests:
// it takes no more than a quarter of a processor from those who wait.
const rests = 3

// rest waits while there are events of before the start to look at.
func (f *follower) rest(ctx context.Context) (err error) {
	if f.position < f.history { // which only this goroutine changes
		err = eventlog.Pause(ctx, rests*time.Since(f.looked))
	}
	f.looked = time.Now()
	return err
}

// A follower is the one reader of the log that a Service has.
type follower struct {
	*Service
	history  uint64 // the end of the log at the start: what stands before it is no news
	warnings *rate.Limiter
	looked   time.Time // when it last began to
	untold   int       // new findings without a line of their own since the last line
}

// take looks at the next part of the log. Records whose subject says that there
// is nothing to find cost next to nothing.
func (f *follower) take(step eventlog.Step) {
	for _, rec := range step.Records {
		if labels, ok := record.ParseSubject(rec.Subject); ok && !labels.Odd {
			continue
		}
		e, err := record.Decode(rec.Data, rec.Sequence, f.log.Epoch(), false)
		if err != nil {
			f.warn("an event cannot be read for the drift report", "sequence", rec.Sequence, "err", err)
			continue
		}
		f.observe(e)
	}
	f.mu.Lock()
	before := f.position
	f.position = step.Position
	f.mu.Unlock()
	if before < f.history && f.position >= f.history {
		f.logger.Info("looked for drift in the events held", "sequence", f.position, "odd_events", f.tracker.odd)
	}
}

func (f *follower) observe(e *sluicev1.Event) {
	f.mu.Lock()
	odd := f.tracker.odd
	fresh := f.tracker.Observe(e)
	odd = f.tracker.odd - odd
	f.mu.Unlock()

	isNews := e.GetSequence() > f.history
	if isNews {
		f.metrics.events.Add(float64(odd))
	}
	for _, finding := range fresh {
		f.metrics.findings.WithLabelValues(label(finding.GetKind())).Inc()
		if !isNews {
			continue
		}
		attrs := []any{"kind", label(finding.GetKind()), "name", finding.GetName(), "sequence", e.GetSequence()}
		if finding.GetWhere() != "" {
			attrs = append(attrs, "where", finding.GetWhere())
		}
		if finding.GetKind() == sluicev1.DriftFinding_KIND_ENUM_VALUE {
			attrs = append(attrs, "number", finding.GetExample())
		}
		f.warn("the vendor sends something that the schema does not know", attrs...)
	}
}

// warn logs a line, when that is not too often, and how many it has left out.
func (f *follower) warn(message string, attrs ...any) {
	if !f.warnings.Allow() {
		f.untold++
		return
	}
	if f.untold > 0 {
		attrs = append(attrs, "lines_left_out", f.untold)
		f.untold = 0
	}
	f.logger.Warn(message, attrs...)
}
