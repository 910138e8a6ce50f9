package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// headerRoom is what the headers of a record may add to it, in bytes.
	headerRoom = 1 << 10

	// minPayload is the least that a server must take.
	minPayload = 64<<10 + headerRoom

	// nodesTimeout bounds the wait for the nodes to describe themselves, and
	// nodesSilence the wait for another one.
	nodesTimeout = 2 * time.Second
	nodesSilence = 300 * time.Millisecond
)

// A node is what a server says of itself, where the account may ask.
type node struct {
	Server struct {
		Name string `json:"name"`
	} `json:"server"`
	Data struct {
		MaxPayload int `json:"max_payload"`
		JetStream  struct {
			Config *struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	} `json:"data"`
}

// check refuses a cluster that would lose records or take none, and lowers
// MaxRecord to what every server takes.
func (e *Engine) check(ctx context.Context) error {
	nodes := e.nodes(ctx)
	payload := int(min(e.write.nc.MaxPayload(), e.read.nc.MaxPayload()))
	where := e.write.nc.ConnectedServerName()
	var unsynced, synced []string
	for _, n := range nodes {
		if n.Data.MaxPayload > 0 && n.Data.MaxPayload < payload {
			payload, where = n.Data.MaxPayload, n.Server.Name
		}
		switch cfg := n.Data.JetStream.Config; {
		case cfg == nil: // it keeps nothing
		case cfg.SyncAlways:
			synced = append(synced, n.Server.Name)
		default:
			unsynced = append(unsynced, n.Server.Name)
		}
	}
	if payload < minPayload {
		return fmt.Errorf("the NATS server %s takes messages of %d bytes at most: set max_payload to %d or more on every server",
			where, payload, cmp.Or(e.cfg.MaxRecord, defaultMaxRecord)+headerRoom)
	}
	limit := payload - headerRoom
	if e.cfg.MaxRecord == 0 {
		e.cfg.MaxRecord = min(limit, defaultMaxRecord)
	}
	if limit < e.cfg.MaxRecord {
		e.logger.Warn("the NATS servers take less than the largest record: raise max_payload on every server; until then larger records are refused",
			"server", where, "max_payload", payload, "max_payload_wanted", e.cfg.MaxRecord+headerRoom, "max_record", limit)
		e.cfg.MaxRecord = limit
	}
	switch {
	case len(unsynced) > 0 && !e.cfg.AcceptUnsynced:
		return fmt.Errorf("the NATS servers %s acknowledge records before they are on the disk, and can lose them: "+
			"set sync_interval: always in their jetstream section, or set accept_unsynced_nodes", strings.Join(unsynced, ", "))
	case len(unsynced) > 0:
		e.logger.Warn("NATS servers acknowledge records before they are on the disk, and can lose them, which is accepted",
			"servers", unsynced)
	case len(synced) == 0:
		e.logger.Warn("cannot see whether the NATS servers sync each record before they acknowledge it: " +
			"check that each has sync_interval: always in its jetstream section, " +
			"or let the account import $SYS.REQ.SERVER.PING.VARZ from the system account")
	default:
		e.logger.Info("the NATS servers sync each record", "servers", synced)
	}
	return nil
}

// nodes asks the servers to describe themselves. None answers where the account
// may not ask.
func (e *Engine) nodes(ctx context.Context) (nodes []node) {
	answers := make(chan *nats.Msg, 64)
	reply, cancel := e.read.listen(func(m *nats.Msg) {
		select {
		case answers <- m:
		default: // of a cluster larger than that the first ones will do
		}
	})
	defer cancel()
	e.read.send(&nats.Msg{Subject: "$SYS.REQ.SERVER.PING.VARZ", Reply: reply})
	limit := time.NewTimer(nodesTimeout)
	defer limit.Stop()
	silence := time.NewTimer(nodesTimeout)
	defer silence.Stop()
	for {
		select {
		case m := <-answers:
			var n node
			if m.Header.Get(headerStatus) != "" {
				return nodes
			}
			if err := json.Unmarshal(m.Data, &n); err == nil {
				nodes = append(nodes, n)
			}
			silence.Reset(nodesSilence)
		case <-silence.C:
			return nodes
		case <-limit.C:
			return nodes
		case <-ctx.Done():
			return nodes
		}
	}
}
