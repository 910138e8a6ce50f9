package eventlog

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// fetchTimeout bounds one request for records.
const fetchTimeout = 5 * time.Second

// A fetcher asks the server for records by position: JetStream's direct get,
// many records to a request. Nothing is kept of a reader between two requests.
type fetcher struct {
	nc       *nats.Conn
	replicas bool // who answers may not hold yet what others have acknowledged
	inbox    string

	mu      sync.Mutex
	token   uint64
	waiting map[uint64]*fetch
	stopped error
}

// A fetch is one request under way.
type fetch struct {
	single  bool // one answer, without an end mark
	records []Record
	err     error
	done    chan struct{} // closed once the fields above are final
}

func newFetcher(nc *nats.Conn, replicas bool) (*fetcher, error) {
	f := &fetcher{nc: nc, replicas: replicas, inbox: nats.NewInbox() + ".", waiting: make(map[uint64]*fetch)}
	sub, err := nc.Subscribe(f.inbox+"*", f.receive)
	if err != nil {
		return nil, fmt.Errorf("subscribe to records: %w", err)
	}
	return f, sub.SetPendingLimits(-1, -1) // bounded by what was asked for
}

// request asks the stream named log for records, in order; none is an empty
// answer, not an error.
//
// In a cluster any replica may answer. What one that lags sends is right, but
// it may miss the end; so that there is nothing is only taken from the leader.
func (f *fetcher) request(ctx context.Context, log string, req server.JSApiMsgGetRequest) ([]Record, error) {
	records, err := f.direct(ctx, log, req)
	if err == nil && len(records) == 0 && f.replicas {
		return f.fromLeader(ctx, log, req)
	}
	return records, err
}

// direct asks whichever server is the nearest.
func (f *fetcher) direct(ctx context.Context, log string, req server.JSApiMsgGetRequest) ([]Record, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	w := &fetch{single: req.Batch == 0, done: make(chan struct{})}
	f.mu.Lock()
	if f.stopped != nil {
		f.mu.Unlock()
		return nil, f.stopped
	}
	f.token++
	token := f.token
	f.waiting[token] = w
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.waiting, token)
		f.mu.Unlock()
	}()

	subject := fmt.Sprintf(server.JSDirectMsgGetT, log)
	if err := f.nc.PublishRequest(subject, f.inbox+strconv.FormatUint(token, 36), body); err != nil {
		return nil, fmt.Errorf("%w: request records: %w", ErrUnavailable, err)
	}
	timer := time.NewTimer(fetchTimeout)
	defer timer.Stop()
	select {
	case <-w.done:
		return w.records, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, fmt.Errorf("%w: the storage did not answer a read", ErrUnavailable)
	}
}

// fromLeader asks the stream's leader, which answers with one record at most.
func (f *fetcher) fromLeader(ctx context.Context, log string, req server.JSApiMsgGetRequest) ([]Record, error) {
	if req.Batch > 0 { // or else the record at req.Seq and no other
		req.NextFor = ">"
	}
	req.Batch, req.MaxBytes = 0, 0
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	m, err := f.nc.RequestWithContext(bounded, fmt.Sprintf(server.JSApiMsgGetT, log), body)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%w: ask the leader for records: %w", ErrUnavailable, err)
	}
	var answer server.JSApiMsgGetResponse
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, fmt.Errorf("%w: ask the leader for records: %w", ErrUnavailable, err)
	}
	switch fault, found := answer.Error, answer.Message; {
	case fault != nil && fault.ErrCode == codeNoMessage:
		return nil, nil
	case fault != nil:
		return nil, fmt.Errorf("%w: ask the leader for records: %s", ErrUnavailable, fault.Description)
	case found == nil:
		return nil, fmt.Errorf("%w: ask the leader for records: an empty answer", ErrUnavailable)
	default:
		_, subject, _ := strings.Cut(found.Subject, ".")
		return []Record{{Sequence: found.Sequence, Time: found.Time, Subject: subject, Data: found.Data}}, nil
	}
}

// codeNoMessage is JetStream's error code for a read that found nothing.
const codeNoMessage = 10037

// receive takes a message of the server's: a record, or the end.
func (f *fetcher) receive(m *nats.Msg) {
	token, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, f.inbox), 36, 64)
	if err != nil {
		return
	}
	var r Record
	var end bool
	switch status := m.Header.Get("Status"); status {
	case "":
		r, err = parseRecord(m)
	case "204", "404": // end of batch, nothing there
		end = true
	default:
		err = fmt.Errorf("%w: read: %s %s", ErrUnavailable, status, m.Header.Get("Description"))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.waiting[token]
	if w == nil {
		return // nobody waits any more
	}
	if err == nil && !end {
		w.records = append(w.records, r)
		end = w.single
	}
	if err != nil || end {
		w.err = err
		delete(f.waiting, token)
		close(w.done)
	}
}

// stop fails what is under way with err. The connection is closed after it.
func (f *fetcher) stop(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = fmt.Errorf("%w: %w", ErrUnavailable, err)
	for _, w := range f.waiting {
		w.err = f.stopped
		close(w.done)
	}
	f.waiting = nil
}

// parseRecord returns the record that a direct get answered with.
func parseRecord(m *nats.Msg) (Record, error) {
	sequence, err := strconv.ParseUint(m.Header.Get(server.JSSequence), 10, 64)
	if err != nil {
		return Record{}, fmt.Errorf("%w: record without a sequence", ErrUnavailable)
	}
	stored, err := time.Parse(time.RFC3339Nano, m.Header.Get(server.JSTimeStamp))
	if err != nil {
		return Record{}, fmt.Errorf("%w: record without a time", ErrUnavailable)
	}
	_, subject, _ := strings.Cut(m.Header.Get(server.JSSubject), ".")
	return Record{Sequence: sequence, Time: stored, Subject: subject, Data: m.Data}, nil
}
