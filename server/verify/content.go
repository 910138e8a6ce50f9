package verify

import (
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/record"
)

// content verifies what is in a record.
func (c *check) content(rec eventlog.Record) {
	var err error
	switch c.log.Name() {
	case Events:
		err = c.event(rec)
	case Quarantine:
		err = proto.Unmarshal(rec.Data, &sluicev1.QuarantineEntry{})
	}
	if err != nil {
		c.found.Undecodable++
		c.problem("record %d cannot be decoded: %v", rec.Sequence, err)
	}
}

// event verifies an event. It walks the fields and does not make messages of
// them, which would take several times as long: what is in a field was checked
// when the event was encoded, and the storage has a checksum over it.
func (c *check) event(rec eventlog.Record) error {
	id, err := record.ParseIdentity(rec.Data)
	if err != nil {
		return err
	}
	if id.Key == "" {
		c.problem("event %d has no key", rec.Sequence)
	}
	if id.ChatKey == "" {
		c.problem("event %d has no chat_key", rec.Sequence)
	}
	if c.Event != nil {
		c.Event(id)
	}
	return nil
}
