package record

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
)

// ErrCursor reports a string that is not a cursor.
var ErrCursor = errors.New("record: not a cursor")

// A Cursor is a position in one log: everything at or before Sequence is
// behind it.
type Cursor struct {
	Epoch    string // the log's, 16 hex digits
	Sequence uint64 // 0 is before the first record
}

// cursorVersion is the first byte of a cursor's binary form: version, 8 bytes
// of epoch, the sequence as a varint, 4 bytes of CRC-32 over all before.
const cursorVersion = 1

// The longest cursor, in its binary form and in text.
const (
	maxCursorBytes = 1 + epochBytes + binary.MaxVarintLen64 + 4
	maxCursor      = (maxCursorBytes*8 + 5) / 6

	epochBytes = 8
)

// String returns the opaque form that clients hold: base64url without padding.
// It returns "" when Epoch is not 16 hex digits.
func (c Cursor) String() string { return string(c.append(nil)) }

// append appends what String returns.
func (c Cursor) append(text []byte) []byte {
	var room [maxCursorBytes]byte
	room[0] = cursorVersion
	if len(c.Epoch) != 2*epochBytes {
		return text
	}
	if _, err := hex.Decode(room[1:], []byte(c.Epoch)); err != nil {
		return text
	}
	b := binary.AppendUvarint(room[:1+epochBytes], c.Sequence)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.AppendEncode(text, b)
}

// ParseCursor returns the cursor that String made s of, or ErrCursor. Whether
// it belongs to the log at hand is for the caller to compare.
func ParseCursor(s string) (Cursor, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < 1+epochBytes+1+4 || b[0] != cursorVersion {
		return Cursor{}, ErrCursor
	}
	head, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	sequence, n := binary.Uvarint(head[1+epochBytes:])
	if n != len(head)-1-epochBytes || crc32.ChecksumIEEE(head) != sum {
		return Cursor{}, ErrCursor
	}
	return Cursor{Epoch: hex.EncodeToString(head[1 : 1+epochBytes]), Sequence: sequence}, nil
}
