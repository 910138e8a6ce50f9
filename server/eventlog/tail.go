package eventlog

const (
	// maxTail and maxTailBytes bound the records kept for readers that keep up.
	maxTail      = 8192
	maxTailBytes = 8 << 20
)

// A tail is the newest records of a log without a gap, oldest first. It saves
// readers that keep up a read of the storage.
type tail struct {
	records []Record
	bytes   int
}

// push adds a record. A record that does not follow the one before starts the
// tail anew.
func (t *tail) push(r Record) {
	if n := len(t.records); n > 0 && t.records[n-1].Sequence+1 != r.Sequence {
		*t = tail{}
	}
	t.records = append(t.records, r)
	t.bytes += len(r.Data)
	drop := 0
	for t.bytes > maxTailBytes || len(t.records)-drop > maxTail {
		t.bytes -= len(t.records[drop].Data)
		drop++
	}
	clear(t.records[:drop])
	t.records = t.records[drop:]
}

// from returns up to limit and MaxReadBytes of records from the one at first
// on, none after durable; nil when the tail does not hold them.
func (t *tail) from(first uint64, limit int, durable uint64) []Record {
	if len(t.records) == 0 || first < t.records[0].Sequence {
		return nil
	}
	i := first - t.records[0].Sequence
	if i >= uint64(len(t.records)) {
		return nil
	}
	limit = min(limit, len(t.records)-int(i), int(durable-first+1)) //nolint:gosec // small
	return append([]Record(nil), Bound(t.records[i:], limit)...)
}
