package client

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// firstWait and maxWait bound the wait before a stream is opened again: it
	// is random, so that the readers of a gateway that restarts do not come
	// back as one.
	firstWait = 200 * time.Millisecond
	maxWait   = 10 * time.Second

	// maxRetryInfo bounds the wait that a server may ask for.
	maxRetryInfo = time.Minute
)

// retryable reports whether what ended a stream may pass by itself. What the
// request is at fault for does not, nor does damage to what is stored.
func retryable(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.NotFound,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.DataLoss:
		return false
	default:
		return true
	}
}

// wait returns how long to wait after the failures-th failure in a row, from 1:
// what the server asked for in err, and a random part of a time that doubles
// with each failure.
func wait(failures int, err error) time.Duration {
	ceiling := maxWait
	if doublings := failures - 1; doublings < 16 {
		ceiling = min(maxWait, firstWait<<doublings)
	}
	return min(maxRetryInfo, askedFor(err)) + rand.N(ceiling) //nolint:gosec // spreads load, guards nothing
}

// askedFor returns the wait in err's RetryInfo; 0 when it has none.
func askedFor(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
