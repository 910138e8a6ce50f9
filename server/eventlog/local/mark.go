package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
)

// A mark is what a log is known to hold, in a file of its own beside the
// database. Pebble takes damage near the end of its newest files for the end of
// what was written; the mark tells how far that went.
//
// It is written in place after each group of changes and before these are
// answered, so a killed process leaves an exact one; it is synced once a
// second, so a power cut leaves one that is a second old at most. It is a lower
// bound: the log may hold more.
type mark struct {
	number  uint32 // of the log
	flags   uint32
	epoch   uint64
	changes uint64
	last    uint64
	first   uint64
	sum     uint32 // checksum of the record at last; 0 when it is not known
	time    int64  // when it was written, Unix nanoseconds
}

// markRemoved is the flag of a log that is being removed: it may be gone.
const markRemoved = 1

const (
	markMagic = 0x534c4d31 // "SLM1"
	markBytes = 64         // of one mark
	markPlace = 2 * markBytes
)

func (m mark) encode() []byte {
	b := make([]byte, markBytes)
	binary.BigEndian.PutUint32(b, markMagic)
	binary.BigEndian.PutUint32(b[4:], m.number)
	binary.BigEndian.PutUint32(b[8:], m.flags)
	binary.BigEndian.PutUint64(b[12:], m.epoch)
	binary.BigEndian.PutUint64(b[20:], m.changes)
	binary.BigEndian.PutUint64(b[28:], m.last)
	binary.BigEndian.PutUint64(b[36:], m.first)
	binary.BigEndian.PutUint32(b[44:], m.sum)
	binary.BigEndian.PutUint64(b[48:], uint64(m.time)) //nolint:gosec // as it is decoded
	binary.BigEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

func decodeMark(b []byte) (mark, bool) {
	if binary.BigEndian.Uint32(b) != markMagic || binary.BigEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return mark{}, false
	}
	return mark{
		number:  binary.BigEndian.Uint32(b[4:]),
		flags:   binary.BigEndian.Uint32(b[8:]),
		epoch:   binary.BigEndian.Uint64(b[12:]),
		changes: binary.BigEndian.Uint64(b[20:]),
		last:    binary.BigEndian.Uint64(b[28:]),
		first:   binary.BigEndian.Uint64(b[36:]),
		sum:     binary.BigEndian.Uint32(b[44:]),
		time:    int64(binary.BigEndian.Uint64(b[48:])), //nolint:gosec // as it was encoded
	}, true
}

// A place is where a log's mark is written: two slots, in turn, so that a write
// that is cut leaves the one before.
type place struct {
	mark  mark
	valid bool
	next  int64 // the slot to write next, 0 or 1
}

// readMarks returns the newest mark of each place, by its number.
func readMarks(path string) ([]place, error) {
	b, err := os.ReadFile(path) //nolint:gosec // our own file
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	places := make([]place, (len(b)+markPlace-1)/markPlace)
	b = append(b, make([]byte, markPlace)...)
	for i := range places {
		for slot := range int64(2) {
			at := int64(i)*markPlace + slot*markBytes
			m, ok := decodeMark(b[at : at+markBytes])
			p := &places[i]
			if ok && (!p.valid || m.number > p.mark.number || m.number == p.mark.number && m.changes >= p.mark.changes) {
				*p = place{mark: m, valid: true, next: 1 - slot}
			}
		}
	}
	return places, nil
}

// A markFile is the file of marks, open for writing. It is safe for concurrent
// use.
type markFile struct {
	file    *os.File
	syncing sync.Mutex // held during a sync

	mu     sync.Mutex
	places []place
	dirty  bool // written since the last sync
}

// openMarks opens the file of marks, of which places were read. The places of
// logs are taken even where they hold no mark yet; those of removed logs are free.
func openMarks(path string, places []place, logs map[string]*store) (*markFile, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // our own file
	if err != nil {
		return nil, err
	}
	f := &markFile{file: file, places: places}
	for i := range f.places {
		f.places[i].valid = f.places[i].valid && f.places[i].mark.flags&markRemoved == 0
	}
	for _, s := range logs {
		f.at(s.entry.slot).valid = true
	}
	return f, nil
}

// at returns a place. f.mu is held.
func (f *markFile) at(slot uint32) *place {
	for int(slot) >= len(f.places) {
		f.places = append(f.places, place{})
	}
	return &f.places[slot]
}

// free returns a place that no log uses.
func (f *markFile) free() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.places {
		if !f.places[i].valid {
			f.places[i].valid = true // taken
			return uint32(i)
		}
	}
	f.places = append(f.places, place{valid: true})
	return uint32(len(f.places) - 1) //nolint:gosec // as many as there are logs
}

// write writes the mark of the log at a place.
func (f *markFile) write(at uint32, m mark) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.at(at)
	_, err := f.file.WriteAt(m.encode(), int64(at)*markPlace+p.next*markBytes)
	if err != nil {
		return fmt.Errorf("write the mark: %w", err)
	}
	p.mark, p.valid, p.next = m, true, 1-p.next
	f.dirty = true
	return nil
}

// clear frees a place.
func (f *markFile) clear(at uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.file.WriteAt(make([]byte, markPlace), int64(at)*markPlace); err != nil {
		return fmt.Errorf("write the mark: %w", err)
	}
	*f.at(at) = place{}
	f.dirty = true
	return nil
}

// sync makes durable what was written before it is called.
func (f *markFile) sync() error {
	f.syncing.Lock() // or who finds nothing to sync would be back before it is synced
	defer f.syncing.Unlock()
	f.mu.Lock()
	dirty := f.dirty
	f.dirty = false
	f.mu.Unlock()
	if !dirty {
		return nil
	}
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("sync the mark: %w", err)
	}
	return nil
}

// Close syncs and closes the file.
func (f *markFile) Close() error { return errors.Join(f.sync(), f.file.Close()) }
