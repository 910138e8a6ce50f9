package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sluicegate/sluice/server/eventlog"
)

// What JetStream's requests and answers hold, as far as it is used here: the
// server's own types would link the server.

// A getRequest asks for records.
type getRequest struct {
	Seq       uint64     `json:"seq,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	MaxBytes  int        `json:"max_bytes,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
}

// A getAnswer is what a stream's leader answers with to a getRequest.
type getAnswer struct {
	Error   *apiError `json:"error"`
	Message *struct {
		Subject  string    `json:"subject"`
		Sequence uint64    `json:"seq"`
		Data     []byte    `json:"data"`
		Time     time.Time `json:"time"`
	} `json:"message"`
}

// An infoRequest asks a stream's leader for what it holds.
type infoRequest struct {
	Deleted  bool   `json:"deleted_details,omitempty"`
	Subjects string `json:"subjects_filter,omitempty"`
}

// A streamInfo is the answer to an infoRequest.
type streamInfo struct {
	Error *apiError `json:"error"`
	State struct {
		Messages   uint64            `json:"messages"`
		Bytes      uint64            `json:"bytes"`
		First      uint64            `json:"first_seq"`
		FirstTime  time.Time         `json:"first_ts"`
		Last       uint64            `json:"last_seq"`
		NumDeleted uint64            `json:"num_deleted"`
		Deleted    []uint64          `json:"deleted"`
		Subjects   map[string]uint64 `json:"subjects"`
		Lost       struct {
			Sequences []uint64 `json:"msgs"`
		} `json:"lost"`
	} `json:"state"`
	Cluster *placement `json:"cluster"` // nil when the server is the only one
}

// A placement says who has a stream.
type placement struct {
	Leader   string `json:"leader"`
	Replicas []struct {
		Name    string `json:"name"`
		Current bool   `json:"current"`
		Offline bool   `json:"offline"`
		Lag     uint64 `json:"lag"`
	} `json:"replicas"`
}

// describe names the replicas that do not lead, for people.
func (p *placement) describe() string {
	var names []string
	for _, r := range p.Replicas {
		switch {
		case r.Offline:
			names = append(names, r.Name+" (offline)")
		case !r.Current:
			names = append(names, fmt.Sprintf("%s (%d operations behind)", r.Name, r.Lag))
		default:
			names = append(names, r.Name)
		}
	}
	return strings.Join(names, ", ")
}

// An outcome is the answer to an append, a deletion and a purge.
type outcome struct {
	Error     *apiError `json:"error"`
	Success   bool      `json:"success"`
	Sequence  uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
}

// An apiError is JetStream's reason not to do what it was asked for.
type apiError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

// JetStream's error codes.
const (
	codeInsufficient   = 10023 // an account is at its share of the disk
	codeNoMessage      = 10037
	codeNoSequence     = 10043
	codeNoResources    = 10047
	codeNoStream       = 10059
	codeWrongLast      = 10071
	codeStoreFailed    = 10077
	codeWrongLastNoSeq = 10164
)

// JetStream's texts where a code means more than one thing.
const (
	textMaxBytes = "maximum bytes exceeded"
	textNoRecord = "no message found"
)

// unavailable returns err as a reason why the storage cannot be used now.
func (e *apiError) unavailable() error {
	return fmt.Errorf("%w: %s", eventlog.ErrUnavailable, e.Description)
}

// JetStream's headers.
const (
	headerStatus      = "Status"
	headerDescription = "Description"
	headerID          = "Nats-Msg-Id"
	headerLast        = "Nats-Expected-Last-Sequence"
	headerSequence    = "Nats-Sequence"
	headerTime        = "Nats-Time-Stamp"
	headerSubject     = "Nats-Subject"
	headerPending     = "Nats-Num-Pending"
)

// decode reads an answer into to, or returns why there is none.
func decode(m *nats.Msg, to any) error {
	if status := m.Header.Get(headerStatus); status != "" {
		return fmt.Errorf("%w: %s %s", eventlog.ErrUnavailable, status, m.Header.Get(headerDescription))
	}
	if err := json.Unmarshal(m.Data, to); err != nil {
		return fmt.Errorf("%w: an answer that makes no sense: %w", eventlog.ErrUnavailable, err)
	}
	return nil
}
