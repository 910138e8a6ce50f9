package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newQuarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Look after callbacks that are no events",
		Long: `A callback that is accepted but is not JSON cannot become an event. It is kept in
quarantine, as durably as an event, its token cut out, until it is moved,
discarded, or older than the gateway's quarantine_max_age.`,
	}
	cmd.AddCommand(
		newQuarantineListCommand(),
		newQuarantineShowCommand(),
		newQuarantineReparseCommand(),
		newQuarantineDiscardCommand(),
		newQuarantineRejectedCommand(),
	)
	return cmd
}

func newQuarantineListCommand() *cobra.Command {
	req := &sluicev1.ListQuarantineEntriesRequest{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what is in quarantine, in order of receipt",
		Long: `List what is in quarantine, in order of receipt: number, time, source, why it is no
event, length in bytes, path and content type.`,
		Example: `  sluice quarantine list
  sluice quarantine list --source acme --reason SYNTAX --limit 0 --json`,
		Args: cobra.NoArgs,
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&req.Sources, "source", nil, "only entries of this source; can be repeated")
	flags.StringArrayVar(&req.Reasons, "reason", nil, "only entries with this reason, such as SYNTAX; can be repeated")
	limit := flags.Uint64("limit", 50, "the most entries to list; 0 is all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var listed uint64
		err := g.quarantine(func(c sluicev1.QuarantineServiceClient) error {
			for {
				if left := *limit - listed; *limit > 0 && left < 100 { // else the server's page is as good
					req.PageSize = int32(left)
				}
				page, err := c.ListQuarantineEntries(cmd.Context(), req)
				if err != nil {
					return g.explain(err)
				}
				for _, q := range page.GetEntries() {
					if err := format.quarantined(cmd.OutOrStdout(), q); err != nil {
						return err
					}
					listed++
				}
				req.PageToken = page.GetNextPageToken()
				if req.GetPageToken() == "" || *limit > 0 && listed >= *limit {
					return nil
				}
			}
		})
		if err == nil && listed == 0 && !format.json {
			fmt.Fprintln(cmd.ErrOrStderr(), "sluice: nothing in quarantine matches")
		}
		return err
	}
	return cmd
}

func newQuarantineShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NUMBER",
		Short: "Show one entry with its body",
		Example: `  sluice quarantine show 3
  sluice quarantine show 3 --raw > body`,
		Args: cobra.ExactArgs(1),
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	raw := cmd.Flags().Bool("raw", false, "print the body alone, byte for byte")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		numbers, err := entryNumbers(args)
		if err != nil {
			return err
		}
		return g.quarantine(func(c sluicev1.QuarantineServiceClient) error {
			res, err := c.GetQuarantineEntry(cmd.Context(), &sluicev1.GetQuarantineEntryRequest{Sequence: numbers[0]})
			switch out := cmd.OutOrStdout(); {
			case err != nil:
				return g.explain(err)
			case *raw:
				_, err = out.Write(res.GetEntry().GetRaw())
				return err
			case format.json:
				return show.JSON(out, res.GetEntry())
			default:
				return show.QuarantineDetail(out, res.GetEntry(), time.Local)
			}
		})
	}
	return cmd
}

func newQuarantineReparseCommand() *cobra.Command {
	req := &sluicev1.ReparseQuarantineRequest{}
	cmd := &cobra.Command{
		Use:   "reparse {NUMBER... | --all}",
		Short: "Move into the log what can be read by now",
		Long: `Have the gateway's decoder read entries again, in order of receipt, and move those
that it can read to the end of the log. The others stay where they are.

An upgrade may have taught the decoder to read what it could not before: see
with --all --dry-run. To do it again after an error is safe.`,
		Example: `  sluice quarantine reparse --all --dry-run
  sluice quarantine reparse 3 4`,
		Args: cobra.ArbitraryArgs,
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	cmd.Flags().BoolVar(&req.All, "all", false, "every entry")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if req.GetAll() == (len(args) > 0) {
			return usagef("name entries, or all of them with --all")
		}
		numbers, err := entryNumbers(args)
		if err != nil {
			return err
		}
		r := reparsed{format: format, out: cmd.OutOrStdout(), dryRun: req.GetDryRun()}
		err = g.quarantine(func(c sluicev1.QuarantineServiceClient) error {
			for req.Sequences = range batches(numbers) {
				for more := true; more; more = req.GetPageToken() != "" {
					page, err := c.ReparseQuarantine(cmd.Context(), req)
					if err != nil {
						return g.explain(err)
					}
					if err := r.print(page.GetEntries()); err != nil {
						return err
					}
					req.PageToken = page.GetNextPageToken()
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if missing := len(numbers) - r.entries; missing > 0 {
			return fmt.Errorf("%d of %d not in quarantine", missing, len(numbers))
		}
		if r.entries == 0 && !format.json {
			fmt.Fprintln(cmd.ErrOrStderr(), "sluice: nothing is in quarantine")
		}
		return nil
	}
	return cmd
}

// reparsed shows what became of entries that were read again.
type reparsed struct {
	*format
	out     io.Writer
	dryRun  bool
	entries int // shown so far
}

func (r *reparsed) print(entries []*sluicev1.ReparsedEntry) error {
	for _, e := range entries {
		r.entries++
		if r.json {
			if err := show.JSON(r.out, e); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(r.out, "%d: %s\n", e.GetSequence(), r.became(e)); err != nil {
			return err
		}
	}
	return nil
}

// became says what became of an entry.
func (r *reparsed) became(e *sluicev1.ReparsedEntry) string {
	kinds := strings.Join(e.GetKinds(), ", ")
	switch {
	case e.GetReason() != "":
		return "stays, still no event: " + e.GetReason()
	case r.dryRun:
		return "would become " + kinds
	}
	return kinds + ", " + outcome(&sluicev1.ReceiveCallbackResponse{Sequences: e.GetEventSequences(), Duplicate: e.GetDuplicate()})
}

func newQuarantineDiscardCommand() *cobra.Command {
	req := &sluicev1.DiscardQuarantineEntriesRequest{}
	cmd := &cobra.Command{
		Use:     "discard NUMBER... --reason TEXT",
		Short:   "Remove entries for good",
		Long:    `Remove entries for good. The gateway's log says which, and why.`,
		Example: `  sluice quarantine discard 3 4 --reason "a scanner's"`,
		Args:    cobra.MinimumNArgs(1),
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the gateway's log; required")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if req.GetReason() == "" {
			return usagef("say why with --reason")
		}
		numbers, err := entryNumbers(args)
		if err != nil {
			return err
		}
		gone := &sluicev1.DiscardQuarantineEntriesResponse{}
		err = g.quarantine(func(c sluicev1.QuarantineServiceClient) error {
			for req.Sequences = range batches(numbers) {
				res, err := c.DiscardQuarantineEntries(cmd.Context(), req)
				if err != nil {
					return g.explain(err)
				}
				gone.Discarded = append(gone.Discarded, res.GetDiscarded()...)
			}
			return nil
		})
		switch missing := len(numbers) - len(gone.GetDiscarded()); {
		case err != nil && len(gone.GetDiscarded()) > 0:
			return fmt.Errorf("%d discarded, then: %w", len(gone.GetDiscarded()), err)
		case err != nil:
			return err
		case missing > 0:
			err = fmt.Errorf("%d of %d not in quarantine", missing, len(numbers))
		}
		if format.json {
			return errors.Join(show.JSON(cmd.OutOrStdout(), gone), err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d discarded\n", len(gone.GetDiscarded()))
		return err
	}
	return cmd
}

func newQuarantineRejectedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rejected",
		Short: "Show the latest callbacks that were not accepted",
		Long: `Show the latest callbacks that were not accepted since the gateway was started, at
most 32, newest first: time, source ("-" is nobody's), why, length in bytes and
shape. Of what they said nothing is kept but the names and types of the JSON.

The reasons: path, no source has the URL; token, not one of the source's;
signature, wrong or out of date; no_credential, there was none.`,
		Example: `  sluice quarantine rejected`,
		Args:    cobra.NoArgs,
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return g.quarantine(func(c sluicev1.QuarantineServiceClient) error {
			res, err := c.ListRejections(cmd.Context(), &sluicev1.ListRejectionsRequest{})
			if err != nil {
				return g.explain(err)
			}
			for _, r := range res.GetRejections() {
				if err := format.rejected(cmd.OutOrStdout(), r); err != nil {
					return err
				}
			}
			if len(res.GetRejections()) == 0 && !format.json {
				fmt.Fprintln(cmd.ErrOrStderr(), "sluice: no callback was turned away since the gateway was started")
			}
			return nil
		})
	}
	return cmd
}

// quarantine runs do with a client of the gateway's quarantine.
func (g *gateway) quarantine(do func(sluicev1.QuarantineServiceClient) error) error {
	c, err := g.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return do(sluicev1.NewQuarantineServiceClient(c.Conn()))
}

// quarantined shows an entry of a list on out.
func (f *format) quarantined(out io.Writer, q *sluicev1.QuarantineEntry) error {
	if f.json {
		return show.JSON(out, q)
	}
	return show.QuarantineLine(out, q, time.Local)
}

// rejected shows a callback that was not accepted on out.
func (f *format) rejected(out io.Writer, r *sluicev1.Rejection) error {
	if f.json {
		return show.JSON(out, r)
	}
	return show.RejectionLine(out, r, time.Local)
}

// entryNumbers returns the numbers of entries that args are, each once.
func entryNumbers(args []string) ([]uint64, error) {
	var numbers []uint64
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil || n == 0 {
			return nil, usagef("%q is not the number of an entry, which is from 1; `sluice quarantine list` shows them", arg)
		}
		if !slices.Contains(numbers, n) {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// maxNumbers is how many entries a request can name.
const maxNumbers = 1000

// batches yields numbers in order, as many as a request can name at a time; nil
// once when there are none.
func batches(numbers []uint64) iter.Seq[[]uint64] {
	if len(numbers) == 0 {
		return slices.Values([][]uint64{nil})
	}
	slices.Sort(numbers)
	return slices.Chunk(numbers, maxNumbers)
}
