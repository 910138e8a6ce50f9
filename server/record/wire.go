package record

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// The numbers of the fields of Event that are looked at in its stored form.
const (
	sequenceField    protowire.Number = 1
	cursorField      protowire.Number = 2
	keyField         protowire.Number = 7
	receiveTimeField protowire.Number = 4
	rawField         protowire.Number = 11
	chatKeyField     protowire.Number = 12
	messageField     protowire.Number = 20

	messageIDField protowire.Number = 1 // of Message
	sendTimeField  protowire.Number = 3 // of Message
)

var errWire = errors.New("not the stored form of an event")

// fields calls visit for each field of a message in its wire form, with the
// whole field, its tag included, and the value of one that is bytes.
func fields(data []byte, visit func(n protowire.Number, field, value []byte) error) error {
	for len(data) > 0 {
		number, wire, tag := protowire.ConsumeTag(data)
		if tag < 0 {
			return errWire
		}
		size := protowire.ConsumeFieldValue(number, wire, data[tag:])
		if size < 0 {
			return errWire
		}
		field := data[:tag+size]
		var value []byte
		if wire == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(field[tag:])
		}
		if err := visit(number, field, value); err != nil {
			return err
		}
		data = data[len(field):]
	}
	return nil
}

// An Outline is what keeping events in order needs to know of one.
type Outline struct {
	ChatKey    string
	Received   time.Time // 1970 where it is not known
	Sent       time.Time // of a message; zero for any other event
	RevisionOf uint64
}

// ParseOutline returns the outline of the event that data, as Encode or Revise
// returned it, stands for. It costs a fraction of Decode, and does not look at
// the rest.
func ParseOutline(data []byte) (Outline, error) {
	o := Outline{Received: time.Unix(0, 0).UTC()}
	err := fields(data, func(n protowire.Number, field, value []byte) (err error) {
		switch n { //nolint:exhaustive // of the constants of a Number none is a field
		case receiveTimeField:
			o.Received, err = parseTime(value)
		case revisionOf:
			o.RevisionOf = RevisionOf(field)
		case chatKeyField:
			o.ChatKey = string(value)
		case messageField:
			o.Sent, err = parseSendTime(value)
		}
		return err
	})
	return o, err
}

// An Identity is the names under which others know an event.
type Identity struct {
	Key, ChatKey string
	MessageID    string // the vendor's; "" for an event that is no message
}

// ParseIdentity returns the identity of the event that data, as Encode or Revise
// returned it, stands for. It walks the outermost fields and those of a message,
// and no others.
func ParseIdentity(data []byte) (id Identity, err error) {
	err = fields(data, func(n protowire.Number, _, value []byte) error {
		switch n { //nolint:exhaustive // of the constants of a Number none is a field
		case keyField:
			id.Key = string(value)
		case chatKeyField:
			id.ChatKey = string(value)
		case messageField:
			return fields(value, func(n protowire.Number, _, value []byte) error {
				if n == messageIDField {
					id.MessageID = string(value)
				}
				return nil
			})
		}
		return nil
	})
	return id, err
}

// parseSendTime returns the send_time of a message; zero when it has none.
func parseSendTime(message []byte) (sent time.Time, err error) {
	err = fields(message, func(n protowire.Number, _, value []byte) (err error) {
		if n == sendTimeField {
			sent, err = parseTime(value)
		}
		return err
	})
	return sent, err
}

// parseTime returns the time that a google.protobuf.Timestamp stands for.
func parseTime(data []byte) (time.Time, error) {
	var parts [3]int64 // by field: seconds, nanoseconds
	err := fields(data, func(n protowire.Number, field, _ []byte) error {
		if n == 1 || n == 2 {
			v, _ := protowire.ConsumeVarint(field[1:])
			parts[n] = int64(v) //nolint:gosec // how a negative int64 is written
		}
		return nil
	})
	return time.Unix(parts[1], parts[2]).UTC(), err
}

// Undecoded returns the event that Decode returns in a form that is only good
// for being sent: everything but sequence and cursor is kept as the bytes that
// were stored, so that its getters return nothing and marshalling it is a copy.
// Only the outermost fields are checked.
func Undecoded(data []byte, c Cursor, raw bool) (*sluicev1.Event, error) {
	var room [parts][]byte
	runs, size, err := sent(room[:0], data, raw)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", c.Sequence, err)
	}
	kept := make([]byte, 0, size)
	for _, run := range runs {
		kept = append(kept, run...)
	}
	e := &sluicev1.Event{Sequence: c.Sequence, Cursor: c.String()}
	e.ProtoReflect().SetUnknown(kept)
	return e, nil
}

// AppendEvent appends to b, as the field of that number of a message in its wire
// form, the event that Decode returns for data, the record at c. Nothing is
// decoded: only the outermost fields are checked, and b is as it was when they
// are not in order.
func AppendEvent(b []byte, field protowire.Number, data []byte, c Cursor, raw bool) ([]byte, error) {
	var room [parts][]byte
	runs, size, err := sent(room[:0], data, raw)
	if err != nil {
		return b, fmt.Errorf("record %d: %w", c.Sequence, err)
	}
	var text [maxCursor]byte
	cursor := c.append(text[:0])
	size += 1 + protowire.SizeVarint(c.Sequence) + 1 + protowire.SizeBytes(len(cursor)) // the tags are a byte each
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size)) //nolint:gosec // not negative
	for _, run := range runs {
		b = append(b, run...)
	}
	b = protowire.AppendTag(b, sequenceField, protowire.VarintType)
	b = protowire.AppendVarint(b, c.Sequence)
	b = protowire.AppendTag(b, cursorField, protowire.BytesType)
	return protowire.AppendBytes(b, cursor), nil
}

// parts is in how many runs what is sent of a record usually is, at most: what
// stands before raw, and behind it.
const parts = 4

// sent appends to runs what is sent of data, in order, and returns their bytes in
// all: everything but a sequence and a cursor, which are not believed, and raw
// unless it is asked for.
func sent(runs [][]byte, data []byte, raw bool) (_ [][]byte, size int, err error) {
	begin, at := 0, 0
	for at < len(data) {
		number, wire, tag := protowire.ConsumeTag(data[at:])
		if tag < 0 {
			return nil, 0, errWire
		}
		value := protowire.ConsumeFieldValue(number, wire, data[at+tag:])
		if value < 0 {
			return nil, 0, errWire
		}
		end := at + tag + value
		if number == sequenceField || number == cursorField || !raw && number == rawField {
			if begin < at {
				runs = append(runs, data[begin:at])
				size += at - begin
			}
			begin = end
		}
		at = end
	}
	if begin < at {
		runs = append(runs, data[begin:at])
		size += at - begin
	}
	return runs, size, nil
}
