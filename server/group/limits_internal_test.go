package group

import (
	"errors"
	"fmt"
	"testing"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/group/schedule"
)

// wantReason wants an error with that reason.
func wantReason(t *testing.T, err error, reason sluicev1.ErrorReason) {
	t.Helper()
	var e *apierror.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Errorf("got %v, want %v", err, reason)
	}
}

// TestMaxGroups holds that a server takes as many groups as it says. They are
// not started, which would take more than a moment.
func TestMaxGroups(t *testing.T) {
	s := stopped(t)
	for i := range maxGroups {
		create(t, s, fmt.Sprint("g", i))
	}
	_, err := s.CreateConsumerGroup(t.Context(), &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: "late"})
	wantReason(t, err, sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_GROUPS)
	if n := len(s.all()); n != maxGroups {
		t.Errorf("there are %d groups, want %d", n, maxGroups)
	}
	create(t, s, "g7") // which is there, just so
	if _, err := s.DeleteConsumerGroup(t.Context(), &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: "g7"}); err != nil {
		t.Fatal(err)
	}
	create(t, s, "late")
}

// TestMaxMembers holds that a group takes as many members as it says, that
// those can come back, and that there is room again when one has left.
func TestMaxMembers(t *testing.T) {
	s := open(t)
	r, err := s.group(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	open := func(name string) (*session, error) {
		m := newSession(name)
		return m, r.call(t.Context(), func(c *core) error { return c.open(m, 0, schedule.Credits{}) })
	}
	var last *session
	for i := range maxMembers {
		if last, err = open(fmt.Sprint("m", i)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = open("late")
	wantReason(t, err, sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_MEMBERS)
	_, err = s.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "late"})
	wantReason(t, err, sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_MEMBERS)
	res, err := s.GetConsumerGroupStatus(t.Context(), &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: "w"})
	if err != nil || res.GetStatus().GetMembersTotal() != maxMembers {
		t.Errorf("status = %v, %v, want %d members", res, err, maxMembers)
	}
	if _, err := open("m7"); err != nil {
		t.Errorf("a member that comes back: %v", err)
	}
	if err := r.call(t.Context(), func(c *core) error { c.leave(last); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pull(t.Context(), &sluicev1.PullRequest{ConsumerGroupId: "w", Member: "late"}); err != nil {
		t.Errorf("a pull after a member has left: %v", err)
	}
}

// TestRemovedIsSaid removes events that a group has not settled: they are not
// pending any more, and a log line and a metric say that nobody will get them.
func TestRemovedIsSaid(t *testing.T) {
	f := openFragile(t)
	f.create(&sluicev1.ConsumerGroup{})
	f.write("a", "b", "c", "d", "e")
	pending := func(n uint32) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); f.standing().GetPending() != n; {
			if time.Now().After(end) {
				t.Fatalf("status = %v, want %d pending", f.standing(), n)
			}
		}
	}
	pending(5)
	if err := f.events.Trim(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	pending(2)
	said := f.log.count("retention has removed events", "group=w", "pending_events=3", "first_sequence=4")
	if v := f.metric("sluice_group_removed_events_total"); said != 1 || v != "3" {
		t.Errorf("%d lines, metric %s, want 1 and 3", said, v)
	}
}
