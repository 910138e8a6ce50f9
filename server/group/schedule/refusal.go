package schedule

import (
	"cmp"
	"slices"
)

// A refusal is a member that gave a chat back as not its own.
type refusal struct {
	member string
	until  int64 // it does not get the chat before
}

// maxRefusals is how many members can have refused a chat at a time. When so
// many have, nobody gets it before the first of the refusals is over.
const maxRefusals = 32

// refuse keeps c from a member for the duration of a lease.
func (s *Scheduler) refuse(c *chat, member string) {
	if c.trouble == nil {
		c.trouble = &trouble{}
	}
	all := slices.DeleteFunc(c.refusals(s.now), func(r refusal) bool { return r.member == member })
	i, _ := slices.BinarySearchFunc(all, member, func(r refusal, name string) int { return cmp.Compare(r.member, name) })
	c.trouble.refusals = slices.Insert(all, i, refusal{member, s.now + int64(s.cfg.Lease.Duration)})
}

// refusals returns those that are not over at now, by member.
func (c *chat) refusals(now int64) []refusal {
	if c.trouble == nil {
		return nil
	}
	var all []refusal
	for _, r := range c.trouble.refusals {
		if r.until > now {
			all = append(all, r)
		}
	}
	return all
}

// firstEnd is when the first of some refusals is over.
func firstEnd(all []refusal) int64 {
	end := int64(never)
	for _, r := range all {
		end = min(end, r.until)
	}
	return end
}

// A shun is the chats that wait for any member but those that refused them.
type shun struct {
	members []string
	queue   queue
}

// shun returns the queue of chats that these members refused, which is made if
// need be.
func (s *Scheduler) shun(refusals []refusal) *shun {
	same := func(r refusal, member string) bool { return r.member == member }
	for _, q := range s.shunned {
		if slices.EqualFunc(refusals, q.members, same) {
			return q
		}
	}
	q := &shun{}
	for _, r := range refusals {
		q.members = append(q.members, r.member)
	}
	s.shunned = append(s.shunned, q)
	return q
}
