package subscription

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/eventlog"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000

	// maxPageBytes bounds a page. A single event may be larger.
	maxPageBytes = 1 << 20

	// minWindow is the fewest records that a list of the newest events first
	// looks at at once.
	minWindow = 64
)

// ListEvents implements EventService.
func (s *Service) ListEvents(ctx context.Context, req *sluicev1.ListEventsRequest) (*sluicev1.ListEventsResponse, error) {
	if n := req.GetPageSize(); n < 0 || n > maxPageSize {
		return nil, apierror.InvalidField("page_size", "must be from 0 to %d", maxPageSize)
	}
	selector, err := s.selector(req.GetFilter(), req.GetIncludeRaw())
	if err != nil {
		return nil, err
	}
	binding, err := s.bindingOf(req)
	if err != nil {
		return nil, err
	}
	sp, err := s.span(ctx, listStart(req.GetStart()), req.GetStop())
	if err != nil {
		return nil, err
	}
	p := &page{selector: selector, size: int(req.GetPageSize()), scans: s.maxScan}
	if p.size == 0 {
		p.size = defaultPageSize
	}
	first, end := sp.start.sequence, min(sp.stop.sequence, sp.state.Last+1)
	if token := req.GetPageToken(); token == "" {
		err = sp.checkHeld()
	} else {
		var at uint64
		if at, err = parsePageToken(token, binding); req.GetNewestFirst() {
			end = min(end, at)
		} else {
			first = max(first, at)
		}
	}
	if err != nil {
		return nil, err
	}
	first = max(first, sp.state.First)
	if first >= end {
		return &sluicev1.ListEventsResponse{}, nil
	}
	next, err := s.fill(ctx, p, first, end, req.GetNewestFirst())
	if err != nil {
		return nil, err
	}
	resp := &sluicev1.ListEventsResponse{Events: p.events}
	if next != 0 {
		resp.NextPageToken = pageToken(next, binding)
	}
	return resp, nil
}

// listStart returns where a list starts: p, or the oldest event held.
func listStart(p *sluicev1.Position) *sluicev1.Position {
	if p != nil {
		return p
	}
	return &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}}
}

// A page is what a list has found so far.
type page struct {
	*selector
	size  int // the most events
	scans int // records that may still be read

	events []*sluicev1.Event
	bytes  int // about as much as events takes
}

// add appends e, of about size bytes, and returns false when there is no room
// for it.
func (p *page) add(e *sluicev1.Event, size int) bool {
	if len(p.events) == p.size || len(p.events) > 0 && p.bytes+size > maxPageBytes {
		return false
	}
	p.events = append(p.events, e)
	p.bytes += size
	return true
}

// fill fills p from the records from first on and before end. It returns the
// sequence to go on with or, newest first, before; 0 when there is none.
func (s *Service) fill(ctx context.Context, p *page, first, end uint64, newestFirst bool) (next uint64, err error) {
	if keys := p.indexed(end - first); keys != nil {
		next, err = s.byChat(ctx, p, keys, first, end, newestFirst)
		if !errors.Is(err, eventlog.ErrUnavailable) {
			return next, err
		}
		p.events, p.bytes = nil, 0 // perhaps it is the index alone that cannot be read
	}
	if newestFirst {
		return s.backward(ctx, p, first, end)
	}
	return s.forward(ctx, p, first, end)
}

// byChat is fill from the records of a few chats.
func (s *Service) byChat(ctx context.Context, p *page, keys []string, first, end uint64, newestFirst bool) (uint64, error) {
	from, last := first, end-1
	if newestFirst {
		from, last = last, from
	}
	chats := newChatReader(s.log, keys, from, last, newestFirst)
	chats.chunk = min(chats.chunk, p.size+1)
	bounded, cancel := context.WithTimeoutCause(ctx, s.callTime, errBusy)
	defer cancel()
	for some := false; ; some = true {
		rec, ok, err := chats.next(ctx)
		if !ok || err != nil {
			return 0, err
		}
		e, full := (*sluicev1.Event)(nil), p.scans == 0 || len(p.events) == p.size
		if p.scans--; !full {
			e, err = p.undecoded(bounded, rec)
			if full = some && errors.Is(err, errBusy); full {
				err = nil
			}
		}
		switch {
		case err != nil:
			return 0, err
		case !full && (e == nil || p.add(e, len(rec.Data))):
		case newestFirst:
			return rec.Sequence + 1, nil
		default:
			return rec.Sequence, nil
		}
	}
}

// forward is fill from all records, the oldest first.
func (s *Service) forward(ctx context.Context, p *page, first, end uint64) (next uint64, err error) {
	bounded, cancel := context.WithTimeoutCause(ctx, s.callTime, errBusy)
	defer cancel()
	scans := p.scans
	err = s.log.Scan(ctx, first, end-1, func(rec eventlog.Record) error {
		if p.scans == 0 || len(p.events) == p.size {
			next = rec.Sequence
			return eventlog.ErrStop
		}
		e, err := p.undecoded(bounded, rec)
		if errors.Is(err, errBusy) && p.scans < scans {
			next = rec.Sequence
			return eventlog.ErrStop
		}
		if err != nil {
			return err
		}
		p.scans--
		if e != nil && !p.add(e, len(rec.Data)) {
			next = rec.Sequence
			return eventlog.ErrStop
		}
		return nil
	})
	return next, err
}

// backward is fill from all records, the newest first.
func (s *Service) backward(ctx context.Context, p *page, first, end uint64) (next uint64, err error) {
	bounded, cancel := context.WithTimeoutCause(ctx, s.callTime, errBusy)
	defer cancel()
	top, most := end, uint64(maxBatch)
	if p.filter.expression != nil {
		most = 1 // one record at least, in any time
	}
	for end > first {
		if p.scans <= 0 || len(p.events) == p.size {
			return end, nil
		}
		width := uint64(min(max(p.size-len(p.events), minWindow), maxBatch))
		from := max(first, end-min(width, most, end))
		most = min(2*most, maxBatch)
		w, err := s.window(ctx, bounded, p, from, end)
		if errors.Is(err, errBusy) && end < top {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
		for i, e := range slices.Backward(w.events) {
			if !p.add(e, w.sizes[i]) {
				return e.GetSequence() + 1, nil
			}
		}
		end = from
	}
	return 0, nil
}

// A window is the newest events found in a few records, oldest first.
type window struct {
	events []*sluicev1.Event
	sizes  []int
	bytes  int
}

// window returns the newest events from first on and before end, if it comes to
// know them before bounded ends. It lets go of the oldest ones while the rest, of
// two or more, is still more than fits a page: the page is full before they are
// missed.
func (s *Service) window(ctx, bounded context.Context, p *page, first, end uint64) (w window, err error) {
	err = s.log.Scan(ctx, first, end-1, func(rec eventlog.Record) error {
		p.scans--
		e, err := p.undecoded(bounded, rec)
		if e == nil || err != nil {
			return err
		}
		w.events, w.sizes = append(w.events, e), append(w.sizes, len(rec.Data))
		w.bytes += len(rec.Data)
		for len(w.events) > 2 && w.bytes-w.sizes[0] > maxPageBytes {
			w.bytes -= w.sizes[0]
			w.events[0] = nil
			w.events, w.sizes = w.events[1:], w.sizes[1:]
		}
		return nil
	})
	return w, err
}

// A binding stands for a log and all fields of a request but its page token.
type binding [sha256.Size]byte

// bindingOf returns what the page tokens of req are bound to.
func (s *Service) bindingOf(req *sluicev1.ListEventsRequest) (binding, error) {
	bare := proto.CloneOf(req)
	bare.PageToken = ""
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	return sha256.Sum256(append(b, s.log.Epoch()...)), err
}

const (
	// pageTokenVersion is the first byte of a token's binary form: version, 8
	// bytes of sequence, 8 bytes of a hash over the binding and all before.
	pageTokenVersion = 1
	pageTokenBytes   = 1 + 8 + 8
)

// pageToken returns the token of the page that goes on at sequence.
func pageToken(sequence uint64, to binding) string {
	b := binary.BigEndian.AppendUint64([]byte{pageTokenVersion}, sequence)
	sum := sha256.Sum256(append(to[:], b...))
	return base64.RawURLEncoding.EncodeToString(append(b, sum[:8]...))
}

// parsePageToken returns the sequence that pageToken made token of for the same
// request.
func parsePageToken(token string, to binding) (uint64, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil && len(b) == pageTokenBytes {
		if sequence := binary.BigEndian.Uint64(b[1:]); pageToken(sequence, to) == token {
			return sequence, nil
		}
	}
	return 0, &apierror.Error{
		Code:    codes.InvalidArgument,
		Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN,
		Message: "page_token: does not belong to this request",
		Field:   "page_token",
	}
}
