package subscription

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/failpoint"
	"github.com/sluicegate/sluice/server/record"
)

const (
	defaultHeartbeat = 15 * time.Second
	minHeartbeat     = time.Second
	maxHeartbeat     = time.Hour

	// maxBatch is the most events in a frame. Its bytes are those of one read,
	// at most eventlog.MaxReadBytes, and so is what a client that does not read
	// costs. A single event may be larger, but never than the 4 MiB that gRPC
	// clients accept unless told otherwise.
	maxBatch = 256

	// maxStreams is the most streams at one time. What one costs whose client
	// does not read is bounded, and so is what all of them cost.
	maxStreams = 1000

	// maxSubscriber is the longest name of a subscriber, in bytes.
	maxSubscriber = 128

	// retryDelay is how long a stream waits before it asks a storage again that
	// could not be read.
	retryDelay = 100 * time.Millisecond
)

var (
	errDraining = errors.New("subscription: draining")
	errStopped  = errors.New("subscription: the stop was reached")
)

// Subscribe implements EventService. It sends from one goroutine only: a client
// that reads slowly slows its own position in the log, and nobody else.
func (s *Service) Subscribe(req *sluicev1.SubscribeRequest, out grpc.ServerStreamingServer[sluicev1.SubscribeResponse]) error {
	select {
	case <-s.draining:
		return apierror.Draining()
	default:
	}
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		return tooManyStreams(cap(s.places))
	}
	st, err := s.open(out, req)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(out.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.draining:
			cancel(errDraining)
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)

	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	err = st.run(ctx)
	reason := endedError
	var gone *eventlog.TruncatedError
	var damaged *eventlog.DamagedError
	switch {
	case errors.Is(err, errStopped):
		reason, err = endedStop, st.checkpoint()
	case errors.Is(context.Cause(ctx), errDraining):
		reason, err = endedDraining, st.send(&sluicev1.SubscribeResponse{
			Frame: &sluicev1.SubscribeResponse_GoingAway{GoingAway: &sluicev1.GoingAway{Reason: "DRAINING"}},
		})
	case out.Context().Err() != nil:
		reason = endedClient
	case errors.As(err, &gone):
		reason = endedTruncated
	case errors.As(err, &damaged):
		reason = endedDamaged
	}
	s.metrics.ended.WithLabelValues(reason).Inc()
	s.logger.InfoContext(ctx, "subscription ended",
		"subscriber", req.GetSubscriber(), "reason", reason, "sequence", st.position, "events", st.count)
	return err
}

func tooManyStreams(limit int) error {
	return &apierror.Error{
		Code:       codes.ResourceExhausted,
		Reason:     sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS,
		Message:    "the server has as many subscriptions as it takes",
		Metadata:   map[string]string{"max_streams": strconv.Itoa(limit)},
		RetryAfter: time.Second,
	}
}

// A stream is a reader of the log and where its frames go.
type stream struct {
	*selector
	log     *eventlog.Log
	metrics *metrics
	out     grpc.ServerStreamingServer[sluicev1.SubscribeResponse]

	span
	skipGaps  bool
	heartbeat time.Duration
	limiter   *rate.Limiter // nil without a bound

	reader   *eventlog.Reader
	chats    *chatReader // reads ahead of reader; nil while that reads all
	position uint64      // nothing that matches and stands at or before it is still to be sent, but for pending
	started  bool        // start was reached
	behind   bool        // since the last time the client was told that it had caught up
	batch    *[]byte     // events that are pending, as the fields of an EventBatch; nil for none
	pending  int         // how many those are
	sent     time.Time   // when the last frame was sent
	count    int         // events sent
}

// open checks req and returns the stream it asks for. Nothing has been sent.
func (s *Service) open(out grpc.ServerStreamingServer[sluicev1.SubscribeResponse], req *sluicev1.SubscribeRequest) (*stream, error) {
	heartbeat := defaultHeartbeat
	if d := req.GetHeartbeatInterval(); d != nil {
		heartbeat = d.AsDuration()
		if d.CheckValid() != nil || heartbeat < minHeartbeat || heartbeat > maxHeartbeat {
			return nil, apierror.InvalidField("heartbeat_interval", "must be from %v to %v", minHeartbeat, maxHeartbeat)
		}
	}
	if len(req.GetSubscriber()) > maxSubscriber {
		return nil, apierror.InvalidField("subscriber", "must not be longer than %d bytes", maxSubscriber)
	}
	switch req.GetOnGap() {
	case sluicev1.OnGap_ON_GAP_UNSPECIFIED, sluicev1.OnGap_ON_GAP_FAIL, sluicev1.OnGap_ON_GAP_SKIP:
	default:
		return nil, apierror.InvalidField("on_gap", "is not a policy")
	}
	selector, err := s.selector(req.GetFilter(), req.GetIncludeRaw())
	if err != nil {
		return nil, err
	}
	sp, err := s.span(out.Context(), req.GetStart(), req.GetStop())
	if err != nil {
		return nil, err
	}
	st := &stream{
		selector: selector, log: s.log, metrics: s.metrics, out: out,
		span:      sp,
		skipGaps:  req.GetOnGap() == sluicev1.OnGap_ON_GAP_SKIP,
		heartbeat: heartbeat,
		reader:    s.log.Read(sp.start.sequence),
		position:  sp.start.sequence - 1,
		started:   sp.start.time.IsZero(),
		behind:    true,
	}
	if n := req.GetMaxEventsPerSecond(); n > 0 {
		st.limiter = rate.NewLimiter(rate.Limit(n), int(max(n/100, 1)))
	}
	if err := sp.checkHeld(); err != nil && !st.skipGaps {
		return nil, err
	}
	return st, nil
}

// run sends frames until the stop is reached (errStopped), ctx ends, or
// something fails. Whatever it returns, nothing is pending.
func (st *stream) run(ctx context.Context) error {
	if err := st.opened(); err != nil {
		return err
	}
	for {
		if st.atStop() {
			return errStopped
		}
		if st.behind && st.caughtUp() {
			if err := st.checkpoint(); err != nil {
				return err
			}
		}
		wait, cancel := context.WithDeadline(ctx, st.wakeAt())
		records, err := st.read(wait)
		expired := wait.Err() != nil
		cancel()
		var gone *eventlog.TruncatedError
		var damaged *eventlog.DamagedError
		switch {
		case err == nil:
			err = st.deliver(ctx, records)
		case ctx.Err() != nil:
			err = ctx.Err()
		case errors.As(err, &gone):
			err = st.passRemoved(gone)
		case errors.As(err, &damaged):
			err = st.passDamaged(damaged)
		case expired:
			err = nil
		case errors.Is(err, eventlog.ErrUnavailable):
			err = eventlog.Pause(ctx, retryDelay)
		}
		if err != nil {
			return err
		}
		st.position = max(st.position, st.reader.Position())
		if err := st.keepAlive(); err != nil {
			return err
		}
	}
}

// read returns the next records that may be asked for. The errors are those of
// eventlog.Reader.Next. What is left of chats after one is read again.
func (st *stream) read(ctx context.Context) ([]eventlog.Record, error) {
	next := st.reader.Position() + 1
	if st.chats == nil {
		last := min(st.log.Durable(), st.stop.sequence-1)
		keys := st.indexed(last - min(last, next))
		if keys == nil {
			return st.reader.Next(ctx, maxBatch)
		}
		st.chats = newChatReader(st.log, keys, next, last, false)
	}
	records, err := st.chats.batch(ctx)
	last := st.chats.last
	if len(records) == 0 || err != nil {
		st.chats = nil
	}
	if errors.Is(err, eventlog.ErrUnavailable) { // perhaps it is the index alone that cannot be read
		return st.reader.Next(ctx, maxBatch)
	}
	// What retention has removed is passed over by the index.
	if first := st.log.State().First; next < first {
		st.chats = nil
		return nil, &eventlog.TruncatedError{Asked: next, First: first}
	}
	if err != nil {
		return nil, err
	}
	if n := len(records); n > 0 {
		last = records[n-1].Sequence
	}
	st.reader.Seek(last + 1)
	return records, nil
}

// wakeAt returns until when to wait for records.
func (st *stream) wakeAt() time.Time {
	at := st.sent.Add(st.heartbeat)
	if st.caughtUp() && !st.stop.time.IsZero() {
		return earlier(at, st.stop.time)
	}
	return at
}

func (st *stream) caughtUp() bool { return st.position >= st.log.Durable() }

// atStop returns whether nothing that stands before the stop can still come. A
// stop that is a time is reached at the end of the log when that time comes.
func (st *stream) atStop() bool {
	if st.stop.time.IsZero() {
		return st.position >= st.stop.sequence-1
	}
	return st.caughtUp() && !time.Now().Before(st.stop.time)
}

// deliver sends those of records that are asked for.
func (st *stream) deliver(ctx context.Context, records []eventlog.Record) error {
	st.earliest = false
	room := 0
	for _, rec := range records {
		room += len(rec.Data) + eventRoom
	}
	for _, rec := range records {
		wanted, err := st.take(ctx, rec)
		if err == nil && wanted {
			err = st.push(ctx, rec, room)
		}
		room -= len(rec.Data) + eventRoom
		var damaged *eventlog.DamagedError
		if errors.As(err, &damaged) {
			err = st.passDamaged(damaged)
		}
		if err != nil {
			return errors.Join(err, st.flush())
		}
		st.position = rec.Sequence
		if err := st.keepAlive(); err != nil {
			return err
		}
	}
	st.behind = st.behind || len(records) == maxBatch
	return st.flush()
}

// take returns whether rec is asked for. It returns errStopped when rec is behind
// the stop.
func (st *stream) take(ctx context.Context, rec eventlog.Record) (bool, error) {
	if st.stop.time.IsZero() {
		if rec.Sequence >= st.stop.sequence {
			return false, errStopped
		}
		if st.started {
			return st.selects(ctx, rec)
		}
	}
	received, err := st.service.received(rec)
	if err != nil {
		return false, err
	}
	if st.stop.reached(rec.Sequence, received) {
		return false, errStopped
	}
	if st.started = st.started || st.start.reached(rec.Sequence, received); !st.started {
		return false, nil
	}
	return st.selects(ctx, rec)
}

// push makes the event that rec holds pending, when the rate allows. room is how
// many bytes are still to come with it.
func (st *stream) push(ctx context.Context, rec eventlog.Record, room int) error {
	if st.limiter != nil {
		if d := st.limiter.Reserve().Delay(); d > 0 {
			if err := st.flush(); err != nil {
				return err
			}
			if err := eventlog.Pause(ctx, d); err != nil {
				return err
			}
		}
	}
	if st.batch == nil {
		st.batch = batches.Get(room)
	}
	var err error
	*st.batch, err = record.AppendEvent(*st.batch, eventField, rec.Data, st.service.cursor(rec.Sequence), st.raw)
	if err != nil {
		return st.service.damaged(rec, err)
	}
	st.pending++
	return nil
}

// flush sends what is pending.
func (st *stream) flush() error {
	if st.pending == 0 {
		return nil
	}
	_ = failpoint.Hit("before-deliver")
	err := st.out.SendMsg(newFrame(st.service.cursor(st.position).String(), st.batch))
	st.sent = time.Now()
	if err == nil {
		st.count += st.pending
		st.metrics.events.Add(float64(st.pending))
	}
	st.batch, st.pending = nil, 0
	return err
}

// keepAlive sends something when nothing was sent for a heartbeat.
func (st *stream) keepAlive() error {
	switch {
	case time.Since(st.sent) < st.heartbeat:
		return nil
	case st.pending > 0:
		return st.flush()
	}
	return st.checkpoint()
}

func (st *stream) opened() error {
	o := &sluicev1.Opened{LastSequence: st.state.Last, HeartbeatInterval: durationpb.New(st.heartbeat)}
	if st.state.Count > 0 {
		o.FirstSequence = st.state.First
	}
	return st.send(&sluicev1.SubscribeResponse{Frame: &sluicev1.SubscribeResponse_Opened{Opened: o}})
}

func (st *stream) checkpoint() error {
	caughtUp := st.caughtUp()
	st.behind = st.behind && !caughtUp
	return st.send(&sluicev1.SubscribeResponse{Frame: &sluicev1.SubscribeResponse_Checkpoint{
		Checkpoint: &sluicev1.Checkpoint{Sequence: st.position, CaughtUp: caughtUp},
	}})
}

// send sends frame with the cursor of the position.
func (st *stream) send(frame *sluicev1.SubscribeResponse) error {
	frame.Cursor = st.service.cursor(st.position).String()
	err := st.out.Send(frame)
	st.sent = time.Now()
	return err
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
