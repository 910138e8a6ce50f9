package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newEventsRetypeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retype --from PLACE",
		Short: "Have today's decoder read old events again",
		Long: `Have the gateway's decoder read the stored bodies of events again that an earlier
version of it typed. An event that becomes another one is appended once more, as
a revision of the old one, which stays where it is; see with --dry-run.

To do it again, after an error for example, changes nothing more.`,
		Example: `  sluice events retype --from earliest --dry-run
  sluice events retype --from 2d --kind other`,
		Args: cobra.NoArgs,
	}
	g, sel, format := addGatewayFlags(cmd), addSelectionFlags(cmd), addFormatFlags(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "say what would change, and append nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if sel.from == "" {
			return usagef("say where to begin with --from, such as --from earliest")
		}
		req := &sluicev1.RetypeEventsRequest{DryRun: *dryRun}
		var err error
		if req.Start, req.Stop, err = sel.positions(time.Now()); err != nil {
			return err
		}
		if req.Filter, err = sel.eventFilter(); err != nil {
			return err
		}
		c, err := g.dial()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		stream, err := sluicev1.NewEventServiceClient(c.Conn()).RetypeEvents(cmd.Context(), req)
		if err != nil {
			return g.explain(err)
		}
		for {
			frame, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return g.explain(err)
			}
			if err := format.retyped(cmd.OutOrStdout(), frame, *dryRun); err != nil {
				return err
			}
		}
	}
	return cmd
}

// retyped shows a frame on out.
func (f *format) retyped(out io.Writer, frame *sluicev1.RetypeEventsResponse, dryRun bool) error {
	s := frame.GetSummary()
	switch {
	case f.json:
		return show.JSON(out, frame)
	case s == nil:
		return show.Retyped(out, frame.GetEvent())
	}
	changed := "changed"
	if dryRun {
		changed = "would change"
	}
	_, err := fmt.Fprintf(out, "%d of %d events %s; %d stay the same, %d are up to date, %d have newer revisions, %d cannot be typed\n",
		s.GetChanged(), s.GetRead(), changed, s.GetUnchanged(), s.GetCurrent(), s.GetSuperseded(), s.GetUndecodable())
	return err
}
