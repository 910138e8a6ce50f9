package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newDriftCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drift",
		Short: "Show what the vendor sends that the schema does not know",
		Long: `Show what the vendor sends that the schema does not know, newest first: fields,
anomalies, numbers without a name, sub-paths and shapes of callbacks, with how
many events they were found in, when, and the last of these events. Of values
only the type and the length are kept; sluice events get --raw shows them.`,
		Example: `  sluice drift
  sluice drift --json`,
		Args: cobra.NoArgs,
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := g.dial()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		report, err := sluicev1.NewDriftServiceClient(c.Conn()).GetDrift(cmd.Context(), &sluicev1.GetDriftRequest{})
		if err != nil {
			return g.explain(err)
		}
		notes := cmd.ErrOrStderr()
		if !report.GetCaughtUp() {
			fmt.Fprintf(notes, "sluice: the gateway is still looking, it is at event %d\n", report.GetSequence())
		}
		if n := report.GetFindingsLeftOff(); n > 0 {
			fmt.Fprintf(notes, "sluice: the list is full, more was met %d times\n", n)
		}
		if format.json {
			for _, f := range report.GetFindings() {
				if err := show.JSON(cmd.OutOrStdout(), f); err != nil {
					return err
				}
			}
			return nil
		}
		if len(report.GetFindings()) == 0 {
			fmt.Fprintf(notes, "sluice: nothing up to event %d\n", report.GetSequence())
			return nil
		}
		return show.Drift(cmd.OutOrStdout(), report.GetFindings(), time.Local)
	}
	return cmd
}
