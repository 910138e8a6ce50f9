package server

import "fmt"

// engineNotes says which engine keeps the log, and what the settings that are of
// one engine only come to.
func (c Config) engineNotes() []string {
	if c.NATSURL != "" {
		unsynced := "the start is refused if a node is seen not to sync each write"
		if c.AcceptUnsyncedNodes {
			unsynced = "a node that does not sync each write is accepted: a power cut may take what was answered 0"
		}
		return []string{
			"The log is kept by the cluster engine: three replicas of each record in the JetStream of nats_url.",
			"  accept_unsynced_nodes: " + unsynced,
			"  advertise_addr: " + either(c.AdvertiseAddr, "where the other gateways reach this one", "unset, the address of grpc_addr"),
			"  not in force: data_dir, wal_failover_dir, min_free, accept_data_loss",
		}
	}
	return []string{
		"The log is kept by the local engine: a database on this machine, in data_dir.",
		"  wal_failover_dir: " + either(c.WALFailoverDir, "where the write-ahead log moves while the disk of data_dir stalls",
			fmt.Sprintf("unset, so that callbacks are answered 503 while the disk of data_dir stalls for longer than %v", c.CommitTimeout)),
		"  min_free: " + either(min(c.MinFree, 1), fmt.Sprintf("callbacks are answered 503 while the disk has less than %v left", c.MinFree),
			"0, so that nothing is done before the disk is full"),
		"  accept_data_loss: " + either(c.AcceptDataLoss, "a log that holds less than was acknowledged is opened with what is left, and its cursors of before become invalid",
			"the start is refused if the log holds less than was acknowledged"),
		"  not in force: nats_credentials, accept_unsynced_nodes, advertise_addr",
	}
}

// either returns set where value is not the zero value, and else unset.
func either[T comparable](value T, set, unset string) string {
	var zero T
	if value != zero {
		return set
	}
	return unset
}
