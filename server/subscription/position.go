package subscription

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// A place is a cut between two records of the log. It is right before the
// record at sequence or, when time is set, right before the first one from
// sequence on that holds an event received then or later.
type place struct {
	sequence uint64
	time     time.Time
}

// never is the place that no record is behind.
var never = place{sequence: math.MaxUint64}

// reached returns whether the event at sequence, received at t, is behind p.
// Until p is found, it must be asked of each event in order.
func (p place) reached(sequence uint64, t time.Time) bool {
	return sequence >= p.sequence && (p.time.IsZero() || !t.Before(p.time))
}

// A span is the part of the log that a request asks for: what stands between
// two places.
type span struct {
	start, stop place
	earliest    bool           // start moves with the oldest record held
	state       eventlog.State // of the log when the request arrived
}

// span resolves the positions of a request. Places in what is durable now come
// without a time. What stands before start is not in the span, whether or not
// the log still holds it.
func (s *Service) span(ctx context.Context, start, stop *sluicev1.Position) (span, error) {
	state := s.log.State()
	_, isTime := start.GetAt().(*sluicev1.Position_ReceiveTime)
	out := span{stop: never, state: state, earliest: isTime || start.GetAnchor() == sluicev1.Anchor_ANCHOR_EARLIEST}
	var err error
	if out.start, err = s.place(ctx, start, "start", state); err != nil {
		return span{}, err
	}
	if stop != nil {
		if out.stop, err = s.place(ctx, stop, "stop", state); err != nil {
			return span{}, err
		}
	}
	return out, nil
}

// place returns the place of p: before what a start begins with, or behind what
// a stop ends with.
func (s *Service) place(ctx context.Context, p *sluicev1.Position, field string, state eventlog.State) (place, error) {
	isStop := field == "stop"
	switch at := p.GetAt().(type) {
	case *sluicev1.Position_Cursor:
		c, err := s.parseCursor(at.Cursor, field+".cursor", state)
		return place{sequence: c.Sequence + 1}, err

	case *sluicev1.Position_Sequence:
		switch {
		case at.Sequence == 0:
			return place{}, apierror.InvalidField(field+".sequence", "must be 1 or more")
		case isStop && at.Sequence == math.MaxUint64:
			return never, nil
		case isStop:
			return place{sequence: at.Sequence + 1}, nil
		case at.Sequence > state.Last+1:
			return place{}, aheadOfLog(at.Sequence, state)
		}
		return place{sequence: at.Sequence}, nil

	case *sluicev1.Position_ReceiveTime:
		if err := at.ReceiveTime.CheckValid(); err != nil {
			return place{}, apierror.InvalidField(field+".receive_time", "is not a time")
		}
		found, err := s.placeOfTime(ctx, at.ReceiveTime.AsTime(), state, isStop)
		if isStop && found.time.Before(time.Now()) {
			found.time = time.Time{} // it is past: the end of the log it is
		}
		return found, err
	}
	switch anchor := p.GetAnchor(); {
	case anchor == sluicev1.Anchor_ANCHOR_EARLIEST && isStop:
		return place{}, apierror.InvalidField("stop.anchor", "must not be ANCHOR_EARLIEST")
	case anchor == sluicev1.Anchor_ANCHOR_EARLIEST:
		return place{sequence: state.First}, nil
	case anchor == sluicev1.Anchor_ANCHOR_LATEST, anchor == sluicev1.Anchor_ANCHOR_UNSPECIFIED:
		return place{sequence: state.Last + 1}, nil
	}
	return place{}, apierror.InvalidField(field+".anchor", "is not an anchor")
}

// Resolve returns the sequence of the first event from p on, which must not be
// in the future; of the next one to come when there is none. It returns a
// *eventlog.TruncatedError when retention has passed p, and an *apierror.Error
// that names field when p is none.
func (s *Service) Resolve(ctx context.Context, p *sluicev1.Position, field string) (uint64, error) {
	state := s.log.State()
	at, err := s.place(ctx, p, field, state)
	switch {
	case err != nil:
		return 0, err
	case at.time.After(time.Now()):
		return 0, apierror.InvalidField(field+".receive_time", "must not be in the future")
	}
	return at.sequence, span{start: at, state: state}.checkHeld()
}

// parseCursor returns the cursor that a client sent, if it belongs to the log.
func (s *Service) parseCursor(text, field string, state eventlog.State) (record.Cursor, error) {
	c, err := record.ParseCursor(text)
	switch {
	case err != nil:
		return c, &apierror.Error{
			Code:    codes.InvalidArgument,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_CURSOR,
			Message: field + ": is not a cursor",
			Field:   field,
			Err:     err,
		}
	case c.Epoch != s.log.Epoch():
		return c, &apierror.Error{
			Code:    codes.FailedPrecondition,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_CURSOR_OF_ANOTHER_LOG,
			Message: field + ": was issued by another log; resume from a time or an end of this one",
		}
	case c.Sequence > state.Last:
		return c, aheadOfLog(c.Sequence, state)
	}
	return c, nil
}

// placeOfTime returns the place of the first event received at t or later.
// Where events that cannot be read might be that one, they are in the span: it
// starts before them, or stops behind them, and whoever reads it meets them.
func (s *Service) placeOfTime(ctx context.Context, t time.Time, state eventlog.State, isStop bool) (place, error) {
	from, err := s.log.SequenceAt(ctx, t)
	if err != nil {
		return place{}, err
	}
	// Events are stored in nearly the order in which they were received: the
	// first one is nearly always the one.
	p := place{sequence: from, time: t}
	for from <= state.Last {
		err := s.log.Scan(ctx, from, state.Last, func(rec eventlog.Record) error {
			received, err := s.received(rec)
			if err != nil {
				return err
			}
			if p.reached(rec.Sequence, received) {
				p = place{sequence: rec.Sequence}
				return eventlog.ErrStop
			}
			return nil
		})
		var damaged *eventlog.DamagedError
		switch {
		case err == nil:
			from = state.Last + 1
		case !errors.As(err, &damaged):
			return place{}, err
		case !isStop:
			return place{sequence: damaged.First}, nil
		default:
			from = damaged.Last + 1
		}
	}
	if !p.time.IsZero() {
		p.sequence = max(p.sequence, state.Last+1)
	}
	return p, nil
}

// checkHeld reports a start that retention has passed.
func (sp span) checkHeld() error {
	if sp.start.sequence < sp.state.First {
		return &eventlog.TruncatedError{Asked: sp.start.sequence, First: sp.state.First}
	}
	return nil
}

func aheadOfLog(sequence uint64, state eventlog.State) error {
	return &apierror.Error{
		Code:    codes.FailedPrecondition,
		Reason:  sluicev1.ErrorReason_ERROR_REASON_CURSOR_AHEAD_OF_LOG,
		Message: "the position is beyond the end of the log",
		Metadata: map[string]string{
			"sequence":      strconv.FormatUint(sequence, 10),
			"last_sequence": strconv.FormatUint(state.Last, 10),
		},
	}
}
