package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/cluster"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/group"
	"github.com/sluicegate/sluice/server/ingest"
)

// openEngine opens the storage that the configuration asks for.
func (s *Server) openEngine(ctx context.Context) error {
	maxRecord := ingest.MaxRecord(int(s.cfg.MaxBody))
	if s.cfg.NATSURL == "" {
		e, err := local.Open(ctx, local.Config{
			Dir:            s.cfg.DataDir,
			WALFailoverDir: s.cfg.WALFailoverDir,
			CommitTimeout:  s.cfg.CommitTimeout,
			MaxRecord:      maxRecord,
			MinFree:        uint64(s.cfg.MinFree), //nolint:gosec // Validate refuses a negative one
			AcceptDataLoss: s.cfg.AcceptDataLoss,
			Whole:          []string{group.CatalogLog}, // without it nobody knows which groups there are
			Logger:         s.logger,
			Registerer:     s.cfg.Registry,
		})
		if err != nil {
			return s.openError("open the log", err)
		}
		s.engine, s.maxRecord = e, maxRecord
		return nil
	}
	e, err := cluster.Open(ctx, cluster.Config{
		URL:            string(s.cfg.NATSURL),
		Credentials:    s.cfg.NATSCredentials,
		CommitTimeout:  s.cfg.CommitTimeout,
		MaxRecord:      maxRecord,
		AcceptUnsynced: s.cfg.AcceptUnsyncedNodes,
		Logger:         s.logger,
		Registerer:     s.cfg.Registry,
	})
	if err != nil {
		return s.openError("open the log", err)
	}
	s.engine, s.cluster, s.maxRecord = e, e, min(maxRecord, e.MaxRecord())
	return nil
}

// openLogs opens the log of events and the quarantine.
func (s *Server) openLogs(ctx context.Context) (events, inQuarantine *eventlog.Log, err error) {
	events, err = s.engine.Log(ctx, eventlog.LogConfig{
		Name:         eventsLog,
		DedupeWindow: s.cfg.DedupeWindow,
		MaxAge:       s.cfg.MaxAge,
		MaxBytes:     int64(s.cfg.MaxBytes),
		DropOldest:   s.cfg.OnFull == OnFullDropOldest,
	})
	if err != nil {
		return nil, nil, s.openError("open the log", err)
	}
	inQuarantine, err = s.engine.Log(ctx, eventlog.LogConfig{
		Name:         quarantineLog,
		DedupeWindow: s.cfg.DedupeWindow,
		MaxAge:       s.cfg.QuarantineMaxAge,
		MaxBytes:     int64(s.cfg.QuarantineMaxBytes),
		DropOldest:   true, // what nobody can read must not stop what everybody can
		Deletes:      true,
	})
	if err != nil {
		return nil, nil, s.openError("open the quarantine", err)
	}
	return events, inQuarantine, nil
}

// leaseBucket is where the leases of groups are in a cluster.
const leaseBucket = "GROUP_LEADERS"

// openLeases opens what says which gateway of a cluster leads which group.
// On one machine there are none: this gateway leads all.
func (s *Server) openLeases(ctx context.Context) error {
	if s.cluster == nil {
		return nil
	}
	address, err := s.advertised()
	if err != nil {
		return err
	}
	s.leases, err = s.cluster.Leases(ctx, cluster.LeaseConfig{Bucket: leaseBucket, Value: address, TTL: s.cfg.leaseTTL})
	return err
}

// checkMaxBody returns the largest callback that the storage can hold, and warns
// when that is less than max_body: a larger one would be answered 503, time and
// again.
func (s *Server) checkMaxBody() (Size, error) {
	most := Size(ingest.MaxBody(s.maxRecord))
	switch {
	case most < minMaxBody:
		return 0, fmt.Errorf("the nodes of nats_url take messages of %v, which holds no callback: raise their max_payload", Size(s.maxRecord))
	case most < s.cfg.MaxBody:
		s.logger.Warn("the nodes of nats_url take no callback of max_body: a larger one than they take is answered 413; raise their max_payload",
			"max_body", s.cfg.MaxBody.String(), "effective_max_body", most.String())
		return most, nil
	}
	return s.cfg.MaxBody, nil
}

// openError returns err as something to act on.
func (s *Server) openError(doing string, err error) error {
	var lost *eventlog.DataLossError
	switch {
	case !errors.As(err, &lost):
		return fmt.Errorf("%s: %w", doing, err)
	case s.cfg.AcceptDataLoss:
		return fmt.Errorf("%s: %w; --accept-data-loss cannot help: put the data back from a copy", doing, err)
	case lost.Log == "": // perhaps only its write-ahead log, and that can be cut
		return fmt.Errorf("%s: %w; put the data back from a copy, or try to go on with what is left with --accept-data-loss", doing, err)
	}
	return fmt.Errorf("%s: %w; put the data back from a copy, or go on with what is left with --accept-data-loss", doing, err)
}

// A StorageError is what Run returns when the storage has failed for good. What
// is on the disk is for the next start to read.
type StorageError struct{ Err error }

func (e *StorageError) Error() string { return "the storage has failed: " + e.Err.Error() }

// Unwrap returns why.
func (e *StorageError) Unwrap() error { return e.Err }

// IsDataLoss reports whether New has failed because the storage holds less than
// it acknowledged, or is damaged.
func IsDataLoss(err error) bool {
	var lost *eventlog.DataLossError
	return errors.As(err, &lost)
}
