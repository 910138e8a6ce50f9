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

// CatalogLog is the name of the log that says which groups there are.
const CatalogLog = "GROUPS"

// An entry is a group of the catalog.
type entry struct {
	group       *sluicev1.ConsumerGroup // all defaults filled in; never modified
	incarnation uint64                  // random: tells it from a deleted one of its name
	first       uint64                  // sequence of the first event it comes to
	epoch       string                  // of the log of events, when first was chosen
}

// journalLog is the name of the log that an entry's state lives in.
func journalLog(incarnation uint64) string { return fmt.Sprintf("GROUP_%016X", incarnation) }

// A catalog is the groups that there are: a fold of a log with a record for
// each change, under "set.<incarnation>.<first>.<epoch>" or "delete.<incarnation>".
// Gateways of one cluster share the log. A change is stored right behind what
// was folded, or not at all: eventlog.ErrConflict says that there is more to
// fold. Only its owner may use a catalog, from one goroutine at a time.
type catalog struct {
	engine eventlog.Engine
	log    *eventlog.Log
	end    uint64           // sequence up to which the log is folded
	groups map[uint64]entry // by incarnation
	dying  map[uint64]bool  // deleted, but their logs may still be there
}

// openCatalog reads the catalog.
func openCatalog(ctx context.Context, engine eventlog.Engine) (*catalog, error) {
	log, err := engine.Log(ctx, eventlog.LogConfig{Name: CatalogLog, Deletes: true})
	if err != nil {
		return nil, err
	}
	c := &catalog{engine: engine, log: log, groups: map[uint64]entry{}, dying: map[uint64]bool{}}
	return c, c.catchUp(ctx)
}

// catchUp folds all changes that there are. A damaged record is an error: without
// it nobody knows which groups there are.
func (c *catalog) catchUp(ctx context.Context) error {
	from := c.end + 1
	next := from
	end, err := readToEnd(ctx, c.log, from, func(rec eventlog.Record) error {
		if rec.Sequence == next {
			next++
		}
		if err := c.fold(rec); err != nil {
			return fmt.Errorf("record %d: %w", rec.Sequence, err)
		}
		return nil
	}, func(d *eventlog.DamagedError) error { return d })
	if err != nil {
		return err
	}
	if next <= end { // not all of them were there
		_, err := c.log.Read(from).Next(ctx, 1)
		var gone *eventlog.TruncatedError
		if errors.As(err, &gone) && gone.First > from {
			// Another gateway has compacted it: what it has left says all.
			clear(c.groups)
			c.end = gone.First - 1
			return c.catchUp(ctx)
		}
		if err != nil {
			return err
		}
	}
	c.end = end
	return nil
}

var errCatalog = errors.New("not a record of the catalog")

// fold takes over a change. Doing so again changes nothing, in order.
func (c *catalog) fold(rec eventlog.Record) error {
	verb, args, _ := strings.Cut(rec.Subject, ".")
	name, rest, _ := strings.Cut(args, ".")
	incarnation, err := strconv.ParseUint(name, 16, 64)
	if err != nil {
		return errCatalog
	}
	switch verb {
	case "set":
		position, epoch, _ := strings.Cut(rest, ".")
		first, err := strconv.ParseUint(position, 10, 64)
		if err != nil {
			return errCatalog
		}
		group := &sluicev1.ConsumerGroup{}
		if err := proto.Unmarshal(rec.Data, group); err != nil {
			return err
		}
		c.groups[incarnation] = entry{group: group, incarnation: incarnation, first: first, epoch: epoch}
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

// named returns the group of that name.
func (c *catalog) named(name string) (entry, bool) {
	for _, e := range c.groups {
		if e.group.GetName() == name {
			return e, true
		}
	}
	return entry{}, false
}

// set stores a group that is new or has changed.
func (c *catalog) set(ctx context.Context, e entry) error {
	data, err := proto.Marshal(e.group)
	if err != nil {
		return err
	}
	err = c.append(ctx, fmt.Sprintf("set.%016x.%d.%s", e.incarnation, e.first, e.epoch), data)
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

// bury removes the log of a deleted group, which this gateway does not use any
// more. Each gateway does so: one that learned late of the deletion may have
// made the log anew.
func (c *catalog) bury(ctx context.Context, incarnation uint64) error {
	if err := c.engine.Remove(ctx, journalLog(incarnation)); err != nil {
		return err
	}
	delete(c.dying, incarnation)
	return nil
}

// append stores a change behind what was folded.
func (c *catalog) append(ctx context.Context, subject string, data []byte) error {
	err := c.log.AppendAt(ctx, c.end+1, eventlog.Record{Subject: subject, Data: data})
	if err == nil {
		c.end++
	}
	return err
}

// compact writes the groups anew when most records of the log are history. It
// can fail at any point, and changes nothing that is to be remembered: what is
// before the new records goes only when nothing came between them.
func (c *catalog) compact(ctx context.Context) error {
	if c.log.State().Count < uint64(64+4*(len(c.groups)+len(c.dying))) {
		return nil
	}
	first := c.end + 1
	for _, e := range c.entries() {
		if err := c.set(ctx, e); err != nil {
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

// readToEnd calls visit for each record of l from the one at first on, and damaged
// for what cannot be read of them, and returns the sequence at which the log ends:
// AppendAt of the next fails when there is more by then.
func readToEnd(ctx context.Context, l *eventlog.Log, first uint64, visit func(eventlog.Record) error, damaged func(*eventlog.DamagedError) error) (uint64, error) {
	end, err := l.End(ctx)
	if err != nil {
		return 0, err
	}
	return end, scan(ctx, l, first, end, visit, damaged)
}
