package client

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Cursor is the position of a cursor, as an event, a response or
// Subscription.Cursor gave it. As a start, it is what follows.
func Cursor(cursor string) *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Cursor{Cursor: cursor}}
}

// Sequence is the position of an event, from 1. As a start, the event comes
// first; as a stop, last.
func Sequence(sequence uint64) *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Sequence{Sequence: sequence}}
}

// ReceiveTime is the position of the first event that was received at or after
// t. As a stop, that event is not read.
func ReceiveTime(t time.Time) *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_ReceiveTime{ReceiveTime: timestamppb.New(t)}}
}

// Earliest is the oldest event that the log holds.
func Earliest() *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}}
}

// Latest is the end of the log at the time of the call. As a start, it is new
// events only.
func Latest() *sluicev1.Position {
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_LATEST}}
}
