package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/client"
	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read all that is stored, and say what is damaged",
		Long: `Read every record of every log, and say what cannot be read, cannot be decoded or
is out of order. Nothing is changed.

With --data-dir it reads the directory of a gateway that is stopped, and checks
the indexes, too. Else it asks the gateway at --addr, which goes on serving.

--ledger compares the log with ids that somebody else has written down: a file
with a message id or an event's key on each line, or a JSON object with a field
"message_id" or "key". Empty lines and those that begin with # do not count. An
id that no event has any more is missing, also where retention has removed it.

Exit codes: 0 when all is well, 1 when it could not be found out, 2 for a wrong
command line, 3 when something is damaged or missing.`,
		Example: `  sluice verify
  sluice verify --data-dir data --ledger acknowledged.txt`,
		Args: cobra.NoArgs,
	}
	v := verification{gateway: addGatewayFlags(cmd)}
	flags := cmd.Flags()
	flags.StringVar(&v.dataDir, "data-dir", "", "directory `DIR` of a gateway that is stopped")
	flags.StringVar(&v.ledgerFile, "ledger", "", "`FILE` with ids that the log must hold, one a line")
	flags.BoolVar(&v.json, "json", false, "print one JSON object a line, for programs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if v.dataDir != "" && flags.Changed("addr") {
			return usagef("--data-dir is for a gateway that is stopped, --addr for one that runs: give one of them")
		}
		v.out, v.bar = cmd.OutOrStdout(), newProgressBar(cmd.ErrOrStderr())
		return v.run(cmd.Context())
	}
	return cmd
}

// verification is the command verify.
type verification struct {
	*gateway
	dataDir    string
	ledgerFile string
	json       bool

	out    io.Writer
	bar    *progressBar
	ledger *ledger // nil without one
}

func (v *verification) run(ctx context.Context) error {
	var err error
	if v.ledgerFile != "" {
		if v.ledger, err = readLedger(v.ledgerFile); err != nil {
			return err
		}
	}
	var report *sluicev1.VerifyReport
	if v.dataDir != "" {
		report, err = v.offline(ctx)
	} else {
		report, err = v.online(ctx)
	}
	v.bar.clear()
	if err != nil {
		return err
	}
	if err := v.print(report); err != nil {
		return err
	}
	var wrong []string
	if !report.GetOk() {
		wrong = append(wrong, "the logs are damaged")
	}
	if n := v.ledger.missing(); n > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of the ledger's ids are missing", n))
	}
	if wrong != nil {
		return &exitCodeError{exitProblems, errors.New(strings.Join(wrong, ", and "))}
	}
	return nil
}

// online has the gateway verify its logs, and looks for the ledger's ids in a
// stream of all events.
func (v *verification) online(ctx context.Context) (*sluicev1.VerifyReport, error) {
	c, err := v.dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	stream, err := sluicev1.NewLogServiceClient(c.Conn()).VerifyLog(ctx, &sluicev1.VerifyLogRequest{})
	if err != nil {
		return nil, v.explain(err)
	}
	var report *sluicev1.VerifyReport
	for report == nil {
		frame, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errors.New("the gateway ended the verification without a report")
		case err != nil:
			return nil, v.explain(err)
		}
		v.bar.show(frame.GetProgress())
		report = frame.GetReport()
	}
	if v.ledger == nil {
		return report, nil
	}
	return report, v.findOnline(ctx, c)
}

func (v *verification) findOnline(ctx context.Context, c *client.Client) error {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	events := c.Subscribe(client.SubscribeOptions{
		Start: client.Earliest(), Stop: client.Latest(), Name: "sluice verify",
		OnGap:        func(*sluicev1.Gap) {}, // what is in it is missing, unless it comes again
		OnDisconnect: func(err error, _ time.Duration) { giveUp(err) },
	}).Events(ctx)
	for e, err := range events {
		if err != nil {
			return v.explain(err)
		}
		v.ledger.found(e.GetKey(), e.GetMessage().GetMessageId())
	}
	return nil
}

// A summary is what is printed of a verification as a whole, as JSON.
type summary struct {
	OK       bool           `json:"ok"`
	Problems []string       `json:"problems"`
	Ledger   *ledgerSummary `json:"ledger,omitempty"`
}

type ledgerSummary struct {
	IDs          int      `json:"ids"`
	Missing      int      `json:"missing"`
	FirstMissing []string `json:"first_missing"`
}

// print writes the report.
func (v *verification) print(report *sluicev1.VerifyReport) error {
	if v.json {
		return v.printJSON(report)
	}
	if err := show.Verified(v.out, report); err != nil {
		return err
	}
	if v.ledger == nil {
		return nil
	}
	text := fmt.Sprintf("ledger: %d ids, %d missing\n", v.ledger.count, v.ledger.missing())
	for _, id := range v.ledger.firstMissing() {
		text += "  missing: " + show.Visible(id) + "\n"
	}
	_, err := io.WriteString(v.out, text)
	return err
}

func (v *verification) printJSON(report *sluicev1.VerifyReport) error {
	for _, l := range report.GetLogs() {
		if err := show.JSON(v.out, l); err != nil {
			return err
		}
	}
	s := summary{OK: report.GetOk() && v.ledger.missing() == 0, Problems: append([]string{}, report.GetProblems()...)}
	if v.ledger != nil {
		s.Ledger = &ledgerSummary{IDs: v.ledger.count, Missing: v.ledger.missing(), FirstMissing: v.ledger.firstMissing()}
	}
	return json.NewEncoder(v.out).Encode(s)
}
