// Package apierror is what a client of the gRPC and HTTP APIs sees of an
// error: a canonical code, a reason from error_reason.proto, and the details
// that go with them. Handlers return an *Error, or any other error, and one
// interceptor passes it through Status. The vendor sees none of this.
package apierror

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// Domain is the domain of every ErrorInfo.
const Domain = "sluice"

// retryAfter is how long a client should wait before it tries again, where
// waiting can help.
const retryAfter = time.Second

// An Error is an error that a client should see as it is. Its text goes to the
// client: it must hold no file name, no token and no chat content.
type Error struct {
	Code    codes.Code
	Reason  sluicev1.ErrorReason
	Message string

	// Field is the path of the request's field that is wrong, as in
	// "filter.expression"; "" when it is no field's fault.
	Field string

	// Metadata is for the ErrorInfo; may be nil. Field is added to it.
	Metadata map[string]string

	// RetryAfter is how long to wait before trying again; 0 when trying again
	// cannot help.
	RetryAfter time.Duration

	// Err is the cause, for the log only; may be nil.
	Err error
}

// InvalidField reports a field of the request that is missing or out of range.
func InvalidField(field, format string, args ...any) *Error {
	return &Error{
		Code:    codes.InvalidArgument,
		Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST,
		Message: field + ": " + fmt.Sprintf(format, args...),
		Field:   field,
	}
}

// Draining reports that the server is stopping.
func Draining() *Error {
	return &Error{
		Code:       codes.Unavailable,
		Reason:     sluicev1.ErrorReason_ERROR_REASON_DRAINING,
		Message:    "the server is stopping",
		RetryAfter: retryAfter,
	}
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus returns the status that a client sees.
func (e *Error) GRPCStatus() *status.Status {
	metadata := make(map[string]string, len(e.Metadata)+1)
	for k, v := range e.Metadata {
		metadata[k] = v
	}
	if e.Field != "" {
		metadata["field"] = e.Field
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason:   strings.TrimPrefix(e.Reason.String(), "ERROR_REASON_"),
		Domain:   Domain,
		Metadata: metadata,
	}}
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: e.Field, Description: e.Message},
		}})
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	s := status.New(e.Code, e.Message)
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s
}

// Status returns the error that a client should see for err. An error that it
// does not know becomes INTERNAL with a fixed text: what it says can name files
// and hosts, so it belongs in the log and not on the wire.
func Status(err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return own.GRPCStatus().Err()
	}
	var gone *eventlog.TruncatedError
	var damaged *eventlog.DamagedError
	switch {
	case errors.As(err, &gone):
		return (&Error{
			Code:    codes.OutOfRange,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_CURSOR_TOO_OLD,
			Message: "retention has passed the position",
			Metadata: map[string]string{
				"sequence":       strconv.FormatUint(gone.Asked, 10),
				"first_sequence": strconv.FormatUint(gone.First, 10),
			},
		}).GRPCStatus().Err()
	case errors.As(err, &damaged):
		return (&Error{
			Code:    codes.DataLoss,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_EVENT_DAMAGED,
			Message: damagedMessage(damaged),
			Metadata: map[string]string{
				"log":            damaged.Log,
				"first_sequence": strconv.FormatUint(damaged.First, 10),
				"last_sequence":  strconv.FormatUint(damaged.Last, 10),
			},
		}).GRPCStatus().Err()
	case errors.Is(err, eventlog.ErrFull):
		return unavailable(sluicev1.ErrorReason_ERROR_REASON_LOG_FULL, "the log is full")
	case errors.Is(err, eventlog.ErrUnavailable):
		return unavailable(sluicev1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE, "the log cannot be used now")
	case errors.Is(err, eventlog.ErrClosed):
		return Draining().GRPCStatus().Err()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if s, ok := status.FromError(err); ok {
		return s.Err() // a library below chose
	}
	return status.Error(codes.Internal, "internal error")
}

// damagedMessage names what cannot be read, but not what the storage said of it:
// that can name files.
func damagedMessage(e *eventlog.DamagedError) string {
	if e.First == e.Last {
		return fmt.Sprintf("record %d of the log %s is stored, but cannot be read", e.First, e.Log)
	}
	return fmt.Sprintf("records %d to %d of the log %s are stored, but cannot be read", e.First, e.Last, e.Log)
}

func unavailable(reason sluicev1.ErrorReason, message string) error {
	return (&Error{Code: codes.Unavailable, Reason: reason, Message: message, RetryAfter: retryAfter}).GRPCStatus().Err()
}
