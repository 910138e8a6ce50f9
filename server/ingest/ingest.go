// Package ingest receives the vendor's callbacks: it decides whether to accept
// one, gives its events their identity, sees to it that no credential is
// stored, appends them to the log, and answers once they are durable. It knows
// HTTP and gRPC; how a body becomes events is the business of package callback,
// and how bytes become durable that of package eventlog.
//
// # Who may post
//
// The path says which source a callback is for: the one with the longest path
// that the request's path is at or below. A source is checked against its own
// credentials only. The first row that fits decides; tokens are those in the
// body and the one in the query parameter "token".
//
//	the source has tokens, one that came is wrong  refused, whatever else is right
//	the source has tokens, at least one came       accepted
//	the source's path is not "/"                   accepted: the path is the secret
//	the signature is one by signature_token        accepted
//	the source has no credential at all            accepted: it is open
//	otherwise                                      refused
//
// A signature that is wrong or more than five minutes old proves nothing, and
// harms nothing that is accepted for another reason: a late retry of the
// vendor's carries one.
package ingest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/failpoint"
)

const (
	defaultMaxBody       = 1 << 20 // 1 MiB
	defaultCommitTimeout = 3 * time.Second
)

// Config says how to receive callbacks.
type Config struct {
	// Sources are who may post. None means DefaultSource, which is open: the
	// caller sees to it that nobody else reaches the listener.
	Sources []Source

	// MaxBody is the largest body in bytes. 0 means 1 MiB.
	MaxBody int

	// MaxRecord is the largest record in bytes that the log takes. A callback that
	// cannot be made to fit is too large, as one of more than MaxBody is. 0 is
	// MaxRecord(MaxBody), with which every callback of MaxBody fits.
	MaxRecord int

	// CommitTimeout is how long a callback may wait to become durable. 0 means
	// 3 s.
	CommitTimeout time.Duration

	// Clock tells the time that events are received at and that signatures are
	// held against. nil means time.Now.
	Clock func() time.Time

	// Logger takes what an operator should look at, never a callback. nil means
	// no logging.
	Logger *slog.Logger

	// Registerer takes the metrics. nil means none.
	Registerer prometheus.Registerer
}

// maxEnvelope is what a record may hold besides the body as it came, and what
// was read out of it.
const maxEnvelope = 64 << 10

// MaxRecord returns the largest record in bytes that a callback of at most
// maxBody bytes can become, for a log that is to take all of them: the body as
// it came, as much again for what was read out of it, and the envelope.
func MaxRecord(maxBody int) int { return 2*maxBody + maxEnvelope }

// MaxBody returns the largest body in bytes that a log can hold that takes
// records of at most maxRecord bytes: what is read out of it is given up where
// both do not fit.
func MaxBody(maxRecord int) int { return max(maxRecord-maxEnvelope, 0) }

// A Service implements sluice.v1.CallbackService. It is safe for concurrent
// use.
type Service struct {
	sluicev1.UnimplementedCallbackServiceServer

	events     *eventlog.Log
	quarantine *eventlog.Log
	routes     atomic.Pointer[routes]
	rejections ring
	metrics    *metrics
	logger     *slog.Logger
	clock      func() time.Time
	maxBody    int
	maxRecord  int
	deadlines  deadlines
	warned     atomic.Int64 // Unix time in seconds of the last warning
}

// New returns a Service that stores callbacks in events, and what is no event
// in quarantine.
func New(cfg Config, events, quarantine *eventlog.Log) (*Service, error) {
	s := &Service{
		events:     events,
		quarantine: quarantine,
		logger:     cfg.Logger,
		clock:      cfg.Clock,
		maxBody:    cmp.Or(cfg.MaxBody, defaultMaxBody),
		deadlines:  deadlines{timeout: cmp.Or(cfg.CommitTimeout, defaultCommitTimeout)},
	}
	s.maxRecord = cmp.Or(cfg.MaxRecord, MaxRecord(s.maxBody))
	s.maxBody = min(s.maxBody, MaxBody(s.maxRecord))
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := s.SetSources(cfg.Sources); err != nil {
		return nil, err
	}
	return s, nil
}

// SetSources puts sources in the place of those that were. A callback is
// checked against the ones or the others, never against a mixture. When it
// returns an error, all that is wrong with them, nothing has changed.
func (s *Service) SetSources(sources []Source) error {
	rs, err := newRoutes(sources)
	if err != nil {
		return err
	}
	if before := s.routes.Swap(&rs); before != nil {
		for _, r := range *before {
			if !slices.ContainsFunc(rs, func(now *route) bool { return now.Name == r.Name }) {
				s.metrics.lastCallback.DeleteLabelValues(r.Name) // its silence is no news
			}
		}
	}
	return nil
}

// A post is an accepted callback, but for its body.
type post struct {
	route       *route
	path        string // below the source's
	received    *timestamppb.Timestamp
	secrets     []string // what must not be stored
	contentType string   // "" when not said, or plain JSON
	decoded     bool     // its events are what callback.Decode made of its body
}

// ReceiveCallback implements the RPC. Events in req get their envelope in
// place.
//
// It goes on when the caller leaves: the vendor may have closed the connection,
// but the callback has arrived.
func (s *Service) ReceiveCallback(
	ctx context.Context, req *sluicev1.ReceiveCallbackRequest,
) (*sluicev1.ReceiveCallbackResponse, error) {
	now := s.clock()
	cb, decoded := req.GetCallback(), false
	if body := cb.GetBody(); len(body) > 0 {
		if len(body) > s.maxBody {
			s.metrics.rejected.WithLabelValues(string(rejectedSize)).Inc()
			return nil, s.tooLarge()
		}
		cb, decoded = callback.Decode(body), true
	}

	route, path := s.routes.Load().match(cleanPath(req.GetPath()))
	if route == nil {
		return nil, s.reject(now, noSource, rejectedPath, cb)
	}
	signed, why := route.admit(req, cb.GetTokens(), now)
	if signed != noReading {
		s.metrics.signatures.WithLabelValues(string(signed)).Inc()
	}
	if why != accepted {
		return nil, s.reject(now, route.Name, why, cb)
	}
	contentType, _ := ctx.Value(contentTypeKey{}).(string)
	if cb.GetMalformed() != "" && !isJSON(contentType) {
		s.metrics.rejected.WithLabelValues(string(rejectedMedia)).Inc()
		return nil, errMediaType
	}
	s.metrics.lastCallback.WithLabelValues(route.Name).Set(float64(now.Unix()))
	_ = failpoint.Hit("after-auth")

	began := time.Now()
	ctx = s.deadlines.within(began)
	p := &post{
		route:       route,
		received:    timestamppb.New(now),
		secrets:     route.secretsWith(cb.GetTokens(), req.GetToken()),
		contentType: contentType,
		decoded:     decoded,
	}
	p.path = p.cut(path)
	res, err := s.take(ctx, p, cb)
	if err != nil {
		return nil, s.explain(err)
	}
	s.metrics.commit.Observe(time.Since(began).Seconds())
	if s.logger.Enabled(ctx, slog.LevelDebug) {
		s.logger.LogAttrs(ctx, slog.LevelDebug, "callback stored", slog.String("source", route.Name),
			slog.Any("sequences", res.GetSequences()), slog.Bool("duplicate", res.GetDuplicate()))
	}
	return res, nil
}

// errMediaType is the error for a body that neither is JSON nor is called so.
// Over gRPC nothing is said about a body's type, so only HTTP meets it.
var errMediaType = &apierror.Error{
	Code:    codes.InvalidArgument,
	Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST,
	Message: "the body is not JSON",
}

// errNotAccepted does not say why: whoever guesses should learn nothing.
var errNotAccepted = &apierror.Error{
	Code:    codes.Unauthenticated,
	Reason:  sluicev1.ErrorReason_ERROR_REASON_CALLBACK_NOT_ACCEPTED,
	Message: "no source accepts the callback",
}

// reject counts a callback that is not accepted and keeps a sample of it.
func (s *Service) reject(now time.Time, source string, why rejection, cb *sluicev1.Callback) error {
	s.metrics.rejected.WithLabelValues(string(why)).Inc()
	s.rejections.add(Rejection{
		Time: now, Source: source, Reason: string(why), BodyBytes: len(cb.GetRaw()), Shape: shape(cb.GetRaw(), s.routes.Load().plain()),
	})
	return errNotAccepted
}

func (s *Service) tooLarge() error {
	return &apierror.Error{
		Code:     codes.ResourceExhausted,
		Reason:   sluicev1.ErrorReason_ERROR_REASON_CALLBACK_TOO_LARGE,
		Message:  "the callback is too large",
		Metadata: map[string]string{"max_bytes": strconv.Itoa(s.maxBody)},
	}
}
