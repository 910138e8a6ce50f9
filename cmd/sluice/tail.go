package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newTailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show events as they arrive",
		Long: `Show events as they arrive, or from a place in the log on, until interrupted.

A lost connection is made again, and reading goes on where it was: every event
is shown once. What in a text would not print, or would control the terminal,
is shown as an escape such as \n; --json shows it exactly.`,
		Example: `  sluice tail
  sluice tail --from earliest --to latest --json
  sluice tail --from 10m --type text --not-self --expr 'event.message.text.text.contains("invoice")'`,
		Args: cobra.NoArgs,
	}
	t := tail{gateway: addGatewayFlags(cmd), selection: addSelectionFlags(cmd), format: addFormatFlags(cmd)}
	flags := cmd.Flags()
	flags.Uint64VarP(&t.count, "count", "n", 0, "end after this many events; 0 is never")
	flags.BoolVar(&t.raw, "raw", false, "with --json: add the vendor's body, its token cut out")
	flags.BoolVar(&t.skipGaps, "skip-gaps", false, "go on where retention removed events before they could be read, and where stored ones are damaged")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t.notes = cmd.ErrOrStderr()
		return t.run(cmd.Context(), t.printer(cmd.OutOrStdout()))
	}
	return cmd
}

// tail is the command of that name.
type tail struct {
	*gateway
	*selection
	*format
	count    uint64
	raw      bool
	skipGaps bool

	notes io.Writer // for what is not an event
}

// run shows events until ctx is done, which is no error.
func (t *tail) run(ctx context.Context, display func(*sluicev1.Event) error) error {
	opts, err := t.options()
	if err != nil {
		return err
	}
	c, err := t.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()

	following, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	patience := time.AfterFunc(t.timeout, func() { giveUp(context.DeadlineExceeded) })
	defer patience.Stop()
	var connected, lost bool
	opts.OnConnect = func(*sluicev1.Opened) {
		patience.Stop()
		if lost {
			fmt.Fprintln(t.notes, "sluice: connected again")
		}
		connected, lost = true, false
	}
	opts.OnDisconnect = func(err error, _ time.Duration) {
		switch {
		case !connected:
			giveUp(err) // a wrong address does not become right
		case !lost:
			fmt.Fprintf(t.notes, "sluice: connection lost, reconnecting (%s)\n", status.Convert(err).Message())
		}
		lost = true
	}

	var shown uint64
	for e, err := range c.Subscribe(opts).Events(following) {
		if ctx.Err() != nil {
			return nil // interrupted
		}
		if err != nil {
			return t.explain(err)
		}
		if err := display(e); err != nil {
			return err
		}
		if shown++; shown == t.count {
			return nil
		}
	}
	return nil
}

// options returns what the flags ask for.
func (t *tail) options() (client.SubscribeOptions, error) {
	from, to, err := t.positions(time.Now())
	if err != nil {
		return client.SubscribeOptions{}, err
	}
	filter, err := t.eventFilter()
	if err != nil {
		return client.SubscribeOptions{}, err
	}
	opts := client.SubscribeOptions{Start: from, Stop: to, Filter: filter, IncludeRaw: t.raw, Name: "sluice tail"}
	if t.skipGaps {
		opts.OnGap = func(g *sluicev1.Gap) {
			fmt.Fprintln(t.notes, "sluice:", gapNote(g))
		}
	}
	return opts, nil
}

// gapNote says which events a stream has left out, and why.
func gapNote(g *sluicev1.Gap) string {
	events := fmt.Sprintf("events %d to %d were", g.GetFirstSequence(), g.GetLastSequence())
	if g.GetFirstSequence() == g.GetLastSequence() {
		events = fmt.Sprintf("event %d was", g.GetFirstSequence())
	}
	if g.GetReason() == sluicev1.GapReason_GAP_REASON_DAMAGED {
		return events + " passed over: stored, but damaged; `sluice verify` shows all that is"
	}
	return events + " removed before they could be read"
}
