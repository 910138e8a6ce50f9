package local

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Every key begins with what it is for and, but for the directory of logs, the
// number of its log. Numbers are big-endian, so that keys sort as they count.
//
//	l | name                                        → number, slot, epoch, window  (logs by name)
//	n                                               → the next number that a log gets
//	s | log                                         → state, merged from deltas
//	r | log | sequence                              → record
//	d | log | sequence                              → nothing: Delete removed the record
//	x | log | first                                 → last: lost, and the loss was accepted
//	i | log | bucket of time | id                   → sequence, time
//	k | log | bucket of sequences | hash | sequence → nothing
//	b | log | bucket of sequences                   → nothing: this part of k is not complete
//
// Removing the oldest records is one DeleteRange each of r, d, x, k and b, and of i
// one for a bucket that has grown too old. Nothing is rewritten for it.
const (
	keyName     = 'l'
	keyNext     = 'n'
	keyState    = 's'
	keyRecord   = 'r'
	keyDeleted  = 'd'
	keyLost     = 'x'
	keyIdentity = 'i'
	keyIndex    = 'k'
	keyRebuild  = 'b'
)

// indexBits is how many low bits of a sequence share a bucket of the key index:
// a reader of one key looks into one bucket for each million records held.
const indexBits = 20

// hashBytes is how much of a hash stands for an ID or a key. 128 bits do not
// collide by chance, and nobody gains by making them.
const hashBytes = 16

// maxKey is the length of the longest key of one record, and one for a bound.
const maxKey = 1 + 4 + 8 + hashBytes + 8 + 1

func nameKey(name string) []byte { return append([]byte{keyName}, name...) }

// logKey returns the key that begins all of one kind of one log.
func logKey(kind byte, number uint32) []byte {
	key := make([]byte, 0, maxKey) // the rest is appended in place
	return binary.BigEndian.AppendUint32(append(key, kind), number)
}

func sequenceKey(kind byte, number uint32, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(logKey(kind, number), sequence)
}

// sequenceOf returns the last part of a key that ends in a sequence.
func sequenceOf(key []byte) uint64 {
	return binary.BigEndian.Uint64(key[len(key)-8:])
}

func identityKey(number uint32, bucket uint64, id [hashBytes]byte) []byte {
	return append(sequenceKey(keyIdentity, number, bucket), id[:]...)
}

func indexKey(number uint32, hash [hashBytes]byte, sequence uint64) []byte {
	b := binary.BigEndian.AppendUint64(logKey(keyIndex, number), sequence>>indexBits)
	return binary.BigEndian.AppendUint64(append(b, hash[:]...), sequence)
}

// hashOf returns what stands for an ID; eventlog.HashKey does so for a key.
func hashOf(s string) [hashBytes]byte {
	sum := sha256.Sum256([]byte(s))
	return [hashBytes]byte(sum[:hashBytes])
}

// A logEntry is what stands under a log's name.
type logEntry struct {
	number uint32
	slot   uint32 // where its mark is
	epoch  uint64
	window int64 // width of a bucket of identities, in nanoseconds
}

const logEntryBytes = 4 + 4 + 8 + 8

var errMeta = errors.New("a record about a log is not in its form")

func (e logEntry) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, e.number)
	b = binary.BigEndian.AppendUint32(b, e.slot)
	b = binary.BigEndian.AppendUint64(b, e.epoch)
	return binary.BigEndian.AppendUint64(b, uint64(e.window)) //nolint:gosec // never negative
}

func decodeLogEntry(b []byte) (logEntry, error) {
	if len(b) != logEntryBytes {
		return logEntry{}, errMeta
	}
	return logEntry{
		number: binary.BigEndian.Uint32(b),
		slot:   binary.BigEndian.Uint32(b[4:]),
		epoch:  binary.BigEndian.Uint64(b[8:]),
		window: int64(binary.BigEndian.Uint64(b[16:])), //nolint:gosec // as it was encoded
	}, nil
}
