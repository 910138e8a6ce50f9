package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Defaults of ConsumeOptions.
const (
	defaultConcurrency  = 16
	defaultDrainTimeout = 20 * time.Second
)

var (
	// ErrLeaseLost is the cause of a handler's context when its delivery was
	// taken back, or its lease ran out: the events are somebody else's now.
	ErrLeaseLost = errors.New("the lease is lost")

	// ErrDrained is the cause of a handler's context when it is still running
	// ConsumeOptions.DrainTimeout after the context of Consume has ended.
	ErrDrained = errors.New("the member is leaving the group")
)

// A Handler works on one delivery: on one event, or on all events of a turn. It
// may take as long as it needs, its lease is extended meanwhile.
//
// The delivery is acknowledged when it returns nil: its events never come
// again. A *NackError, *ReleaseError or *ParkError, which may be wrapped, is
// that verdict. Any other error is a nack whose reason says nothing of the
// error, since that may quote what somebody wrote. A panic is not recovered: it
// ends the program, as in any goroutine.
//
// ctx is done when going on is useless: context.Cause says ErrLeaseLost,
// ErrDrained, or why Consume failed. What is done in spite of that may be done
// twice, unless it is guarded by Delivery.chat_fence.
type Handler func(ctx context.Context, d *sluicev1.Delivery) error

// ConsumeOptions say how a member of a group works. The zero value is one under
// a name of its own that works on 16 chats at once.
type ConsumeOptions struct {
	// Member is the member's name within the group, at most 128 bytes. No two
	// may share one at a time. "" is made of the host's name, the process id and
	// a random number. A name that outlives the process lets its next run give
	// back at once what this one leaves behind when it crashes.
	Member string

	// Concurrency is how many handlers run at once; 0 is 16. Those of one chat
	// never do, and with ORDER_TOTAL none.
	Concurrency int

	// Prefetch is how many deliveries to hold beyond those, so that a handler
	// that is quick needs not wait for the line. 0 is none: what waits here,
	// another member cannot take.
	Prefetch int

	// MaxBytes is how many bytes of events to hold; 0 is the server's default,
	// 16 MiB.
	MaxBytes uint64

	// IncludeRaw sets Event.raw.
	IncludeRaw bool

	// HeartbeatInterval is how often either side gives a sign of life at least,
	// from 100 ms to 1 min; 0 is the server's default, 5 s. A side that misses
	// three counts as gone.
	HeartbeatInterval time.Duration

	// DrainTimeout is how long the handlers that run when the context ends may
	// go on before theirs is cancelled; 0 is 20 s, less is not at all.
	DrainTimeout time.Duration

	// OnUnsettled is called when a verdict took no effect, with OUTCOME_LEASE_LOST,
	// OUTCOME_UNKNOWN_LEASE, or OUTCOME_ALREADY_DONE where it was not this
	// member's doing. The handler's work may be done a second time then. May be
	// nil.
	OnUnsettled func(d *sluicev1.Delivery, outcome sluicev1.Outcome)

	// OnConnect is called each time the server has accepted the member, before
	// its deliveries. May be nil.
	OnConnect func(*sluicev1.ConsumeOpened)

	// OnDisconnect is called each time a connection was lost, or could not be
	// made, with the reason and the wait before the next try. May be nil. There
	// is no limit to the tries: to set one, cancel the context from here.
	OnDisconnect func(err error, wait time.Duration)
}

// Consume works as a member of a group until ctx is done: h is called for each
// delivery, and what it returns is the verdict. The events of a chat come in
// order, one handler at a time. A lost connection is made again while the
// handlers go on, and verdicts wait for it.
//
// When ctx is done, nothing more is taken, what waits is given back, and the
// handlers that run have DrainTimeout to end; those that do not are told by
// their context, and what they then return an error for is given back at no
// cost of an attempt. Consume returns once all handlers have and their verdicts
// are stored; it gives up storing them 5 s later, when they count as failed
// attempts.
//
// The error is the cause of ctx, or what the server said of a request that it
// can never serve: of a group that does not exist or was deleted
// (GROUP_NOT_FOUND), or of a name that another member has taken over
// (MEMBER_REPLACED); see Reason. It is never nil.
//
// The functions of opts are called from the goroutine of the call, and hold the
// member up: they must be quick.
func (c *Client) Consume(ctx context.Context, group string, h Handler, opts ConsumeOptions) error {
	if opts.Member == "" {
		opts.Member = memberName()
	}
	if opts.Concurrency <= 0 {
		opts.Concurrency = defaultConcurrency
	}
	if opts.DrainTimeout == 0 {
		opts.DrainTimeout = defaultDrainTimeout
	}
	m := &member{
		client:   c,
		group:    group,
		handle:   h,
		opts:     opts,
		held:     map[string]*work{},
		handling: map[*work]struct{}{},
		busy:     map[string]bool{},
		finished: make(chan *work), // a handler waits to be asked
	}
	return m.run(ctx)
}

// memberName returns a name that no other member has.
func memberName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "member" // the rest tells it apart
	}
	return fmt.Sprintf("%.64s-%d-%08x", host, os.Getpid(), rand.Uint32()) //nolint:gosec // tells apart, guards nothing
}

// A NackError fails the attempt: the delivery comes again.
type NackError struct {
	// Reason is shown with the next attempt and among the dead letters, of which
	// 256 bytes are kept. Let it not quote what somebody wrote.
	Reason string

	// Delay is how long the chat waits, up to 24 h; 0 is the group's backoff.
	Delay time.Duration
}

// Error says what the verdict is.
func (e *NackError) Error() string { return "nack: " + e.Reason }

// A ReleaseError gives the events back at no cost of an attempt.
type ReleaseError struct {
	// NotMe keeps the chat from this member for the duration of a lease, so that
	// another one takes it.
	NotMe bool
}

// Error says what the verdict is.
func (e *ReleaseError) Error() string { return "release" }

// A ParkError gives the events up, as if their attempts were used up.
type ParkError struct {
	// Reason is shown among the dead letters, of which 256 bytes are kept. Let
	// it not quote what somebody wrote.
	Reason string
}

// Error says what the verdict is.
func (e *ParkError) Error() string { return "park: " + e.Reason }

// unsaid is the reason of a nack for an error that is not for others to read.
const unsaid = "the handler failed"

// verdict returns what becomes of a delivery whose handler returned err, which
// may be because it was told to end.
func verdict(lease string, err error, told bool) *sluicev1.Settlement {
	if err == nil {
		return &sluicev1.Settlement{Lease: lease, Verdict: &sluicev1.Settlement_Ack{Ack: &sluicev1.Ack{}}}
	}
	if park, ok := errors.AsType[*ParkError](err); ok {
		return &sluicev1.Settlement{Lease: lease, Verdict: &sluicev1.Settlement_Park{Park: &sluicev1.Park{Reason: short(park.Reason)}}}
	}
	if nack, ok := errors.AsType[*NackError](err); ok {
		n := &sluicev1.Nack{Reason: short(nack.Reason)}
		if nack.Delay > 0 {
			n.Delay = durationpb.New(min(nack.Delay, 24*time.Hour))
		}
		return &sluicev1.Settlement{Lease: lease, Verdict: &sluicev1.Settlement_Nack{Nack: n}}
	}
	if release, ok := errors.AsType[*ReleaseError](err); ok || told {
		notMe := ok && release.NotMe
		return &sluicev1.Settlement{Lease: lease, Verdict: &sluicev1.Settlement_Release{Release: &sluicev1.Release{NotMe: notMe}}}
	}
	return &sluicev1.Settlement{Lease: lease, Verdict: &sluicev1.Settlement_Nack{Nack: &sluicev1.Nack{Reason: unsaid}}}
}

// short returns as much of a reason as is kept: one that is longer than the
// server takes would cost the stream.
func short(reason string) string {
	const kept = 256 // bytes
	reason = strings.ToValidUTF8(reason, string(utf8.RuneError))
	if len(reason) > kept {
		reason = strings.ToValidUTF8(reason[:kept], "")
	}
	return reason
}
