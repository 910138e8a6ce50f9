package local

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/sluicegate/sluice/server/eventlog"
)

// The stored form of a record is
//
//	checksum (4) | time (8) | total (8) | flags (1) | id (16)? | key (16)? | length of subject (1) | subject | data
//
// total is how many bytes the log had taken before the record, so that the
// bytes between two records are known from these two. The checksum, a CRC-32C,
// covers the sequence and all that follows: Pebble checks its blocks, this
// checks that the block is of this record.
const (
	hasID  = 1 << 0
	hasKey = 1 << 1

	recordHead = 4 + 8 + 8 + 1
	maxSubject = 255
)

var (
	errRecord   = errors.New("the record is not in its form")
	errChecksum = errors.New("the record's checksum is wrong")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A stored is a record with what only this engine knows of it.
type stored struct {
	eventlog.Record
	total uint64
	id    [hashBytes]byte // zero without one
	sum   uint32          // checksum, once encoded
}

// recordSize returns how many bytes encodeRecord takes for r.
func recordSize(r *eventlog.Record) int {
	n := recordHead + 1 + len(r.Subject) + len(r.Data)
	if r.ID != "" {
		n += hashBytes
	}
	if r.Key != "" {
		n += hashBytes
	}
	return n
}

// encodeRecord writes s to b, which has the size that recordSize returned.
func encodeRecord(b []byte, s *stored) {
	binary.BigEndian.PutUint64(b[4:], uint64(s.Time.UnixNano()))
	binary.BigEndian.PutUint64(b[12:], s.total)
	var flags byte
	rest := b[recordHead:]
	if s.ID != "" {
		flags |= hasID
		rest = rest[copy(rest, s.id[:]):]
	}
	if s.Key != "" {
		flags |= hasKey
		rest = rest[copy(rest, s.KeyHash[:]):]
	}
	b[20] = flags
	rest[0] = byte(len(s.Subject)) //nolint:gosec // at most maxSubject
	rest = rest[1:]
	rest = rest[copy(rest, s.Subject):]
	copy(rest, s.Data)
	binary.BigEndian.PutUint32(b, checksum(s.Sequence, b[4:]))
}

func checksum(sequence uint64, b []byte) uint32 {
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], sequence)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, b)
}

// decodeRecord returns the record at sequence. It shares b, and subject where that
// is the record's.
func decodeRecord(sequence uint64, b []byte, subject string) (s stored, err error) {
	if len(b) <= recordHead {
		return s, errRecord
	}
	if binary.BigEndian.Uint32(b) != checksum(sequence, b[4:]) {
		return s, errChecksum
	}
	s.Sequence = sequence
	s.Time = time.Unix(0, int64(binary.BigEndian.Uint64(b[4:]))).UTC() //nolint:gosec // as it was encoded
	s.total = binary.BigEndian.Uint64(b[12:])
	flags, rest := b[20], b[recordHead:]
	for _, part := range []struct {
		flag byte
		to   *[hashBytes]byte
	}{{hasID, &s.id}, {hasKey, (*[hashBytes]byte)(&s.KeyHash)}} {
		if flags&part.flag == 0 {
			continue
		}
		if len(rest) < hashBytes {
			return s, errRecord
		}
		rest = rest[copy(part.to[:], rest):]
	}
	if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
		return s, errRecord
	}
	n := 1 + int(rest[0])
	if s.Subject, s.Data = subject, rest[n:]; subject != string(rest[1:n]) {
		s.Subject = string(rest[1:n])
	}
	return s, nil
}
