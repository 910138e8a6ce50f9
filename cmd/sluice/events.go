package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newEventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Look at what the log holds",
	}
	cmd.AddCommand(newEventsListCommand(), newEventsGetCommand(), newEventsRetypeCommand())
	return cmd
}

func newEventsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List events, newest first",
		Example: `  sluice events list --limit 10
  sluice events list --from 2h --chat 60aa00000000000000000c01 --oldest-first
  sluice events list --kind send_result --limit 0 --json`,
		Args: cobra.NoArgs,
	}
	g, sel, format := addGatewayFlags(cmd), addSelectionFlags(cmd), addFormatFlags(cmd)
	flags := cmd.Flags()
	limit := flags.Uint64("limit", 50, "the most events to list; 0 is all")
	oldestFirst := flags.Bool("oldest-first", false, "list in the order of the log")
	raw := flags.Bool("raw", false, "with --json: add the vendor's body, its token cut out")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		req := &sluicev1.ListEventsRequest{NewestFirst: !*oldestFirst, IncludeRaw: *raw}
		var err error
		if req.Start, req.Stop, err = sel.positions(time.Now()); err != nil {
			return err
		}
		if req.Filter, err = sel.eventFilter(); err != nil {
			return err
		}
		if *limit > 0 && *limit < 100 { // else the server's page is as good
			req.PageSize = int32(*limit)
		}
		c, err := g.dial()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		display := format.printer(cmd.OutOrStdout())
		var listed uint64
		for e, err := range c.ListEvents(cmd.Context(), req) {
			if err != nil {
				return g.explain(err)
			}
			if err := display(e); err != nil {
				return err
			}
			if listed++; listed == *limit {
				break
			}
		}
		if listed == 0 && !format.json {
			fmt.Fprintln(cmd.ErrOrStderr(), "sluice: no event matches")
		}
		return nil
	}
	return cmd
}

func newEventsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get SEQUENCE",
		Short:   "Show everything about one event",
		Example: `  sluice events get 42 --raw`,
		Args:    cobra.ExactArgs(1),
	}
	g := addGatewayFlags(cmd)
	format := addFormatFlags(cmd)
	raw := cmd.Flags().Bool("raw", false, "add the vendor's body, its token cut out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sequence, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return usagef("%q is not the sequence of an event, which is a number from 1", args[0])
		}
		c, err := g.dial()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		e, err := c.GetEvent(cmd.Context(), &sluicev1.GetEventRequest{Sequence: sequence, IncludeRaw: *raw})
		if err != nil {
			return g.explain(err)
		}
		if format.json {
			return show.JSON(cmd.OutOrStdout(), e)
		}
		return show.Detail(cmd.OutOrStdout(), e, time.Local)
	}
	return cmd
}
