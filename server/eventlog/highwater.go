package eventlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// marksFile is the name of the high-water mark in the data directory.
const marksFile = "highwater.json"

// maxSums is how many records the high-water mark remembers of a log.
const maxSums = 64

// A highWater is what a log is known to hold. The server may recover less
// without a word, after a flipped bit for example, and then give the lost
// numbers to new records; the mark tells.
type highWater struct {
	Epoch    string     `json:"epoch"`
	Sequence uint64     `json:"sequence"` // newest record that was acknowledged
	Sums     []checksum `json:"sums"`     // of the newest records, oldest first
}

// A checksum is the CRC-32C of a record's data.
type checksum struct {
	Sequence uint64 `json:"sequence"`
	Sum      uint32 `json:"sum"`
	Millis   int64  `json:"millis"` // when the record was stored, Unix time in milliseconds
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crcOf(r Record) uint32 { return crc32.Checksum(r.Data, castagnoli) }

// sum remembers a durable record for the mark. l.mu is held.
func (l *Log) sum(r Record) {
	if len(l.sums) == maxSums {
		l.sums = slices.Delete(l.sums, 0, 1)
	}
	l.sums = append(l.sums, checksum{Sequence: r.Sequence, Sum: crcOf(r), Millis: r.Time.UnixMilli()})
}

// forget leaves a record out of the mark, and reports whether it was in it.
func (l *Log) forget(sequence uint64) bool {
	return l.forgetIf(func(c checksum) bool { return c.Sequence == sequence })
}

// forgetBefore leaves the records before sequence out of the mark, and reports
// whether any was in it.
func (l *Log) forgetBefore(sequence uint64) bool {
	return l.forgetIf(func(c checksum) bool { return c.Sequence < sequence })
}

func (l *Log) forgetIf(gone func(checksum) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.sums)
	l.sums = slices.DeleteFunc(l.sums, gone)
	if len(l.sums) == before {
		return false
	}
	l.moved = true
	return true
}

// mark returns the log's mark, and whether it has moved since the last call.
func (l *Log) mark() (highWater, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	moved := l.moved
	l.moved = false
	return highWater{
		Epoch:    l.epoch,
		Sequence: l.durable.Load(),
		Sums:     append([]checksum(nil), l.sums...),
	}, moved
}

// marks is the content of the marks' file.
type marks struct {
	Time time.Time            `json:"time"`
	Logs map[string]highWater `json:"logs"` // by name
}

// readMarks returns the marks in dir; none when there is no file.
func readMarks(dir string) (map[string]highWater, error) {
	b, err := os.ReadFile(filepath.Join(dir, marksFile)) //nolint:gosec // our own file
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]highWater{}, nil
	}
	if err != nil {
		return nil, err
	}
	m := marks{Logs: map[string]highWater{}}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", marksFile, err)
	}
	return m.Logs, nil
}

// writeMarks replaces the marks in dir, so that after a crash either the old or
// the new ones are there.
func writeMarks(dir string, logs map[string]highWater) error {
	b, err := json.Marshal(marks{Time: time.Now().UTC(), Logs: logs})
	if err != nil {
		return err
	}
	name := filepath.Join(dir, marksFile)
	f, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // our own file
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
