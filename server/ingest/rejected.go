package ingest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// A Rejection is a callback that was not accepted, with nothing in it that
// anybody said.
type Rejection struct {
	Time      time.Time
	Source    string // whose path it was posted below; "-" for nobody's
	Reason    string // as in sluice_ingest_rejected_total
	BodyBytes int    // length of the body without the tokens found in it; 0 for one that was not read
	Shape     string // names and types of the body, as far as it is JSON and was read; may be cut short
}

// noSource is the Source of a Rejection for want of one.
const noSource = "-"

// A ring holds the latest rejections. It is safe for concurrent use.
type ring struct {
	mu   sync.Mutex
	last [32]Rejection
	n    int // how many there have been
}

func (r *ring) add(x Rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last[r.n%len(r.last)] = x
	r.n++
}

// Rejected returns the latest callbacks that were not accepted, newest first,
// at most 32.
func (s *Service) Rejected() []Rejection {
	r := &s.rejections
	r.mu.Lock()
	defer r.mu.Unlock()
	latest := make([]Rejection, 0, min(r.n, len(r.last)))
	for i := r.n - 1; i >= 0 && i >= r.n-len(r.last); i-- {
		latest = append(latest, r.last[i%len(r.last)])
	}
	return latest
}

const (
	maxSketched = 4 << 10 // bytes of a body that are looked at
	maxShape    = 512     // bytes of a sketch
	maxName     = 23      // bytes of a name that is shown: the vendor's longest; tokens have more
)

// shape sketches a JSON text: its names, in order, and the types of their
// values, as in {"messageId":string,"payload":{"size":number}}. Values never
// show, nor do names too long to be the vendor's or with a secret in them.
func shape(body []byte, secrets []string) string {
	var b strings.Builder
	d := jsontext.NewDecoder(bytes.NewReader(body[:min(len(body), maxSketched)]), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for b.Len() < maxShape {
		container, before := d.StackIndex(d.StackDepth())
		token, err := d.ReadToken()
		if err != nil {
			break // the end, or where it was cut, or no JSON
		}
		kind := token.Kind()
		closing := kind == '}' || kind == ']'
		name := container == '{' && before%2 == 0 && !closing
		if before > 0 && !closing && (name || container == '[') {
			b.WriteByte(',')
		}
		switch {
		case name:
			text := token.String()
			holds := func(secret string) bool { return strings.Contains(text, secret) }
			if len(text) > maxName || slices.ContainsFunc(secrets, holds) {
				text = "~"
			}
			quoted, _ := jsontext.AppendQuote(nil, text)
			b.Write(quoted)
			b.WriteByte(':')
		case kind == '"':
			b.WriteString("string")
		case kind == '0':
			b.WriteString("number")
		case kind == 't', kind == 'f':
			b.WriteString("bool")
		default:
			b.WriteString(kind.String())
		}
	}
	return b.String()
}
