package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/verify"
)

// offline verifies the directory of a gateway that is stopped. It is the one
// client command that opens a log itself.
func (v *verification) offline(ctx context.Context) (report *sluicev1.VerifyReport, err error) {
	engine, err := local.OpenReadOnly(ctx, local.Config{Dir: v.dataDir, Logger: slog.New(slog.DiscardHandler)})
	var lost *eventlog.DataLossError
	if errors.As(err, &lost) {
		return nil, &exitCodeError{exitProblems, fmt.Errorf("%s cannot be opened as it is: %w", v.dataDir, err)}
	}
	if errors.Is(err, local.ErrInUse) {
		err = fmt.Errorf("%w; without --data-dir a gateway that runs is asked", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.Close(context.WithoutCancel(ctx))) }()
	report, err = verify.Run(ctx, verify.Config{
		Engine:  engine,
		Stopped: true,
		Progress: func(p *sluicev1.VerifyProgress) error {
			v.bar.show(p)
			return nil
		},
		Event: func(id record.Identity) { v.ledger.found(id.Key, id.MessageID) },
	})
	return report, err
}
