package group

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
)

// catalogLog is the name of the log that says which groups there are.
const catalogLog = "GROUPS"

// An entry is a group of the catalog.
type entry struct {
	group       *sluicev1.ConsumerGroup // all defaults filled in; never modified
	incarnation uint64                  // random: tells it from a deleted one of its name
	first       uint64                  // sequence of the first event it comes to
}

// journalLog is the name of the log that an entry's state lives in.
func journalLog(incarnation uint64) string { return fmt.Sprintf("GROUP_%016X", incarnation) }

// A catalog is the groups that there are: a fold of a log with a record for
// each change, under "set.<incarnation>.<first>" or "delete.<incarnation>".
// Only its owner may use it, from one goroutine at a time.
type catalog struct {
	engine  *eventlog.Engine
	log     *eventlog.Log
	groups  map[uint64]entry // by incarnation
	dying   map[uint64]bool  // deleted, but their logs may still be there
	records int              // that the log holds
}

// openCatalog reads the catalog, and ends deletions that a crash interrupted.
func openCatalog(ctx context.Context, engine *eventlog.Engine) (*catalog, error) {
	log, err := engine.Log(ctx, eventlog.LogConfig{Name: catalogLog})
	if err != nil {
		return nil, err
	}
	c := &catalog{engine: engine, log: log, groups: map[uint64]entry{}, dying: map[uint64]bool{}}
	for r := c.log.Read(0); r.Position() < c.log.Durable(); {
		records, err := r.Next(ctx, maxRead)
		if err != nil {
			return nil, err
		}
		for _, rec := range records {
			if err := c.fold(rec); err != nil {
				return nil, fmt.Errorf("record %d: %w", rec.Sequence, err)
			}
		}
	}
	for incarnation := range maps.Clone(c.dying) {
		if err := c.bury(ctx, incarnation); err != nil {
			return nil, err
		}
	}
	return c, nil
}

var errCatalog = errors.New("not a record of the catalog")

// fold takes over a change.
func (c *catalog) fold(rec eventlog.Record) error {
	c.records++
	verb, args, _ := strings.Cut(rec.Subject, ".")
	name, rest, _ := strings.Cut(args, ".")
	incarnation, err := strconv.ParseUint(name, 16, 64)
	if err != nil {
		return errCatalog
	}
	switch verb {
	case "set":
		first, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			return errCatalog
		}
		group := &sluicev1.ConsumerGroup{}
		if err := proto.Unmarshal(rec.Data, group); err != nil {
			return err
		}
		for other, e := range c.groups {
			if e.group.GetName() == group.GetName() && other != incarnation {
				delete(c.groups, other) // nobody was told that it exists
				c.dying[other] = true
			}
		}
		c.groups[incarnation] = entry{group: group, incarnation: incarnation, first: first}
	case "delete":
		delete(c.groups, incarnation)
		c.dying[incarnation] = true
	default:
		return errCatalog
	}
	return nil
}

// entries returns the groups, by name.
func (c *catalog) entries() []entry {
	return slices.SortedFunc(maps.Values(c.groups), func(a, b entry) int {
		return strings.Compare(a.group.GetName(), b.group.GetName())
	})
}

// set stores a group that is new or has changed.
func (c *catalog) set(ctx context.Context, e entry) error {
	data, err := proto.Marshal(e.group)
	if err != nil {
		return err
	}
	err = c.append(ctx, fmt.Sprintf("set.%016x.%d", e.incarnation, e.first), data)
	if err != nil {
		return err
	}
	c.groups[e.incarnation] = e
	return nil
}

// delete deletes a group. Its own log goes with bury.
func (c *catalog) delete(ctx context.Context, incarnation uint64) error {
	if err := c.append(ctx, fmt.Sprintf("delete.%016x", incarnation), nil); err != nil {
		return err
	}
	delete(c.groups, incarnation)
	c.dying[incarnation] = true
	return nil
}

// bury removes the log of a deleted group, which nobody uses any more.
func (c *catalog) bury(ctx context.Context, incarnation uint64) error {
	if err := c.engine.Remove(ctx, journalLog(incarnation)); err != nil {
		return err
	}
	delete(c.dying, incarnation)
	return nil
}

// append stores a change. The ID lets the log try again by itself.
func (c *catalog) append(ctx context.Context, subject string, data []byte) error {
	_, err := c.log.Append(ctx, eventlog.Record{Subject: subject, ID: newID(), Data: data})
	if err == nil {
		c.records++
	}
	return err
}

// compact writes the groups anew when most records of the log are history. It
// can fail at any point, and changes nothing that is to be remembered.
func (c *catalog) compact(ctx context.Context) error {
	if c.records < 64+4*(len(c.groups)+len(c.dying)) {
		return nil
	}
	first := c.log.Durable() + 1
	c.records = 0
	for _, e := range c.entries() {
		data, err := proto.Marshal(e.group)
		if err != nil {
			return err
		}
		if err := c.append(ctx, fmt.Sprintf("set.%016x.%d", e.incarnation, e.first), data); err != nil {
			return err
		}
	}
	for incarnation := range c.dying {
		if err := c.append(ctx, fmt.Sprintf("delete.%016x", incarnation), nil); err != nil {
			return err
		}
	}
	return c.log.Trim(ctx, first)
}
