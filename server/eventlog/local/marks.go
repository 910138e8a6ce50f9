package local

import (
	"errors"
	"sync"
)

// marks are the files of marks: one in the data directory and, where the
// write-ahead log can move to another disk, one there. A mark counts as written
// or synced when it is in one of the two, so that a disk that stops holds up
// nobody; at a start the newer one counts.
type marks struct {
	*markFile           // in the data directory
	second    *markFile // nil without another disk

	jobs [2]chan markJob // to the writers of the two; nil without another disk
	runs sync.WaitGroup
}

// A markJob is something to do to a file of marks.
type markJob struct {
	do   func(*markFile) error
	done chan<- error
}

// maxMarkJobs is how many jobs wait for a disk that does not answer. What is
// more is left out: its mark is older then, and no less true.
const maxMarkJobs = 1024

// newMarks returns the marks in these files; second may be nil.
func newMarks(first, second *markFile) *marks {
	m := &marks{markFile: first, second: second}
	if second == nil {
		return m
	}
	for i, f := range []*markFile{first, second} {
		jobs := make(chan markJob, maxMarkJobs)
		m.jobs[i] = jobs
		m.runs.Go(func() {
			for job := range jobs {
				job.done <- job.do(f)
			}
		})
	}
	return m
}

// either has both files do something, and returns when one of them has.
func (m *marks) either(do func(*markFile) error) error {
	if m.second == nil {
		return do(m.markFile)
	}
	done := make(chan error, len(m.jobs))
	asked := 0
	for _, jobs := range m.jobs {
		select {
		case jobs <- markJob{do, done}:
			asked++
		default:
		}
	}
	err := errors.New("neither disk takes the mark")
	for range asked {
		if err = <-done; err == nil {
			return nil
		}
	}
	return err
}

func (m *marks) write(at uint32, mark mark) error {
	return m.either(func(f *markFile) error { return f.write(at, mark) })
}

func (m *marks) clear(at uint32) error {
	return m.either(func(f *markFile) error { return f.clear(at) })
}

func (m *marks) sync() error { return m.either((*markFile).sync) }

// Close syncs and closes the files.
func (m *marks) Close() error {
	if m.second == nil {
		return m.markFile.Close()
	}
	for _, jobs := range m.jobs {
		close(jobs)
	}
	m.runs.Wait()
	return errors.Join(m.markFile.Close(), m.second.Close())
}

// newer returns of the marks at each place the newer one: of the later log, or
// after more changes. Where one file has a mark and in the other the place is
// free, the other may have missed that a log was made, or this one that it was
// removed; so the log may be there, and may be gone.
func newer(places, others []place) []place {
	merged := append([]place(nil), places...)
	for i, o := range others {
		if i == len(merged) {
			merged = append(merged, place{})
		}
		p := &merged[i]
		switch {
		case p.valid != o.valid:
			if o.valid {
				*p = o
			}
			p.mark.flags |= markRemoved
		case o.mark.number > p.mark.number, o.mark.number == p.mark.number && o.mark.changes > p.mark.changes:
			p.mark = o.mark
		}
	}
	return merged
}
