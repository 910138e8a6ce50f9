package group

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/group/schedule"
)

const (
	// maxMembers is how many members of a group are connected or pull.
	maxMembers = 1000

	// maxCredits is how many events a member may hold.
	maxCredits = 100_000

	// defaultBytes is how many bytes a member holds that does not say.
	defaultBytes = 16 << 20
)

// A session is an open stream of a member. The group pushes, and the stream
// takes; it is safe for concurrent use.
type session struct {
	member string
	ready  chan struct{} // one place: there is something to take

	credits schedule.Credits // belongs to the group

	mu     sync.Mutex
	frames []frame // bounded by the member's credits, and by the stream for outcomes
	ended  bool
	err    error // why; nil when the member left
}

// A frame is something for a member; exactly one field is set.
type frame struct {
	opened   *sluicev1.ConsumeOpened
	settled  []*sluicev1.SettlementResult
	revoked  string
	delivery *schedule.Delivery
}

func newSession(member string) *session {
	return &session{member: member, ready: make(chan struct{}, 1)}
}

func (m *session) push(f frame) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.frames = append(m.frames, f)
		m.signal()
	}
}

// end ends the session once all frames are taken. The first reason counts.
func (m *session) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.ended, m.err = true, err
		m.signal()
	}
}

func (m *session) signal() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

// take returns what there is; ended says that there will be no more.
func (m *session) take() (frames []frame, ended bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	frames, m.frames = m.frames, nil
	return frames, m.ended, m.err
}

// open makes a stream the one of its member.
func (c *core) open(m *session, timeout time.Duration, credits schedule.Credits) error {
	old := c.sessions[m.member]
	if old == nil && c.crowded() {
		return tooManyMembers()
	}
	if old != nil {
		old.end(memberReplaced(m.member))
	}
	for _, p := range c.pulls[m.member] {
		p.ended = true
	}
	c.sessions[m.member] = m
	c.scheduler.Join(m.member, timeout)
	c.setCredits(m, credits)
	return nil
}

// setCredits lets a member hold so much.
func (c *core) setCredits(m *session, credits schedule.Credits) {
	m.credits = credits
	c.scheduler.Grant(m.member, credits)
}

// held are the leases that a member has.
func (c *core) held(member string) []*sluicev1.HeldLease {
	var held []*sluicev1.HeldLease
	for _, id := range c.scheduler.Leases(member) {
		held = append(held, &sluicev1.HeldLease{
			Lease:      leaseName(c.incarnation, id),
			LeaseUntil: timestamppb.New(c.scheduler.Until(id)),
		})
	}
	return held
}

// heard is for each frame of a member. Of a stream that was replaced it does
// nothing.
func (c *core) heard(m *session) bool {
	if c.sessions[m.member] != m {
		return false
	}
	c.scheduler.Heartbeat(m.member)
	return true
}

// leave ends a stream. Deliveries that it could not send are given back.
func (c *core) leave(m *session) {
	if c.sessions[m.member] == m {
		delete(c.sessions, m.member)
		c.scheduler.Leave(m.member)
	}
	m.end(nil)
	frames, _, _ := m.take()
	for _, f := range frames {
		if f.delivery != nil {
			c.giveBack([]schedule.Delivery{*f.delivery})
		}
	}
}

// giveBack releases deliveries that never reached their member.
func (c *core) giveBack(all []schedule.Delivery) {
	for _, d := range all {
		c.scheduler.Settle(d.Lease, schedule.Verdict{Kind: schedule.Release})
	}
	c.again = c.again || len(all) > 0
}

// A pull is a member that waits for one batch.
type pull struct {
	member        string
	events, bytes int
	waits         bool
	end           uint64     // of the log, when it came: one that does not wait is over there
	done          chan error // one place: exactly one is sent

	// These belong to the group until done.
	ended      bool // it waits no longer
	gone       bool // nobody takes what comes
	over       bool // nothing more comes
	deliveries []schedule.Delivery
}

// pull serves p, or has it wait for the pulls of its member before it.
func (c *core) pull(p *pull) error {
	switch {
	case c.sessions[p.member] != nil:
		return apierror.InvalidField("member", "has a stream open")
	case c.pulls[p.member] == nil && c.crowded():
		return tooManyMembers()
	}
	c.pulls[p.member] = append(c.pulls[p.member], p)
	if len(c.pulls[p.member]) == 1 {
		c.grant(p)
	}
	return nil
}

// grant lets a pull have what it asks for.
func (c *core) grant(p *pull) {
	held := c.scheduler.Held(p.member)
	c.scheduler.Grant(p.member, schedule.Credits{Events: held.Events + p.events, Bytes: held.Bytes + p.bytes})
}

// serveOutput returns the pulls that are over with out: they get something, or
// do not wait any longer.
func (c *core) serveOutput(out *schedule.Output) []*pull {
	if len(c.pulls) == 0 {
		return nil
	}
	served := make(map[string]bool)
	for _, d := range out.Deliveries {
		served[d.Member] = true
	}
	var over []*pull
	for member, queue := range c.pulls {
		first := queue[0]
		if !served[member] && !slices.ContainsFunc(queue, c.waitsNoLonger) {
			continue
		}
		var rest []*pull
		for _, p := range queue {
			if c.waitsNoLonger(p) || p == first && served[member] {
				over = append(over, p)
			} else {
				rest = append(rest, p)
			}
		}
		if len(rest) > 0 && rest[0] == first {
			c.pulls[member] = rest
			continue
		}
		if c.sessions[member] == nil {
			c.scheduler.Grant(member, schedule.Credits{})
		}
		if len(rest) == 0 {
			delete(c.pulls, member)
			continue
		}
		c.pulls[member] = rest
		c.grant(rest[0])
		c.again = true
	}
	return over
}

// waitsNoLonger says whether a pull is over, whatever has come for it.
func (c *core) waitsNoLonger(p *pull) bool {
	return p.ended || !p.waits && (c.scheduler.Position() >= p.end || c.full())
}

// crowded says whether there is no room for another member.
func (c *core) crowded() bool { return len(c.sessions)+len(c.pulls) >= maxMembers }

func tooManyMembers() error {
	return &apierror.Error{
		Code:       codes.ResourceExhausted,
		Reason:     sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_MEMBERS,
		Message:    "the group has as many members as it takes",
		Metadata:   map[string]string{"max_members": "1000"},
		RetryAfter: time.Second,
	}
}

func memberReplaced(member string) error {
	return &apierror.Error{
		Code:     codes.Aborted,
		Reason:   sluicev1.ErrorReason_ERROR_REASON_MEMBER_REPLACED,
		Message:  "another stream opened under the member's name",
		Metadata: map[string]string{"member": member},
	}
}

func memberSilent(member string) error {
	return &apierror.Error{
		Code:     codes.Aborted,
		Reason:   sluicev1.ErrorReason_ERROR_REASON_MEMBER_SILENT,
		Message:  "the member missed three heartbeats",
		Metadata: map[string]string{"member": member},
	}
}
