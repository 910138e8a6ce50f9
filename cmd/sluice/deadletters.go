package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newDeadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deadletters",
		Short: "Look after what a group has given up",
		Long: `A group gives an event up when its attempts are used up, or its worker said that
trying again is useless. It is then among the group's dead letters until it is
redriven or discarded.`,
	}
	cmd.AddCommand(newDeadLettersListCommand(), newDeadLettersRedriveCommand(), newDeadLettersDiscardCommand())
	return cmd
}

func newDeadLettersListCommand() *cobra.Command {
	req := &sluicev1.ListDeadLettersRequest{}
	cmd := &cobra.Command{
		Use:   "list GROUP",
		Short: "List dead letters, in order of sequence",
		Long: `List dead letters, in order of sequence: the event's sequence, when it was given up,
its chat, whether that is diverted or blocked, how often it was tried, and how the
last attempt ended.`,
		Example: `  sluice deadletters list bot
  sluice deadletters list bot --limit 0 --json`,
		Args: cobra.ExactArgs(1),
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&req.ChatKeys, "chat-key", nil, "only of this chat, by its chat_key; can be repeated")
	flags.BoolVar(&req.IncludeRaw, "raw", false, "with --json: add the vendor's body, its token cut out")
	limit := flags.Uint64("limit", 50, "the most letters to list; 0 is all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.ConsumerGroupId = args[0]
		var listed uint64
		err := g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			for {
				if left := *limit - listed; *limit > 0 && left < 100 { // else the server's page is as good
					req.PageSize = int32(left)
				}
				page, err := c.ListDeadLetters(cmd.Context(), req)
				if err != nil {
					return g.explain(err)
				}
				for _, d := range page.GetDeadLetters() {
					if err := format.deadLetter(cmd.OutOrStdout(), d); err != nil {
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
			fmt.Fprintln(cmd.ErrOrStderr(), "sluice: no dead letter matches")
		}
		return err
	}
	return cmd
}

func newDeadLettersRedriveCommand() *cobra.Command {
	req := &sluicev1.RedriveDeadLettersRequest{}
	cmd := &cobra.Command{
		Use:   "redrive GROUP {SEQUENCE... | --chat-key KEY | --all}",
		Short: "Deliver dead letters again",
		Long: `Deliver dead letters again, in order within each chat and before anything newer of
it, their attempts counted from 1. Diverted and blocked chats go on.`,
		Example: `  sluice deadletters redrive bot --all --dry-run
  sluice deadletters redrive bot --all --rate 10
  sluice deadletters redrive bot 1042 1044`,
		Args: cobra.MinimumNArgs(1),
	}
	g, format, sel := addGatewayFlags(cmd), addFormatFlags(cmd), addLetterFlags(cmd)
	cmd.Flags().Uint32Var(&req.MaxEventsPerSecond, "rate", 0, "how many to hand out a second at most; 0 is without bound")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if req.Selection, err = readSelection(sel, args[1:]); err != nil {
			return err
		}
		req.ConsumerGroupId = args[0]
		return g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			res, err := c.RedriveDeadLetters(cmd.Context(), req)
			switch {
			case err != nil:
				return g.explain(err)
			case format.json:
				return show.JSON(cmd.OutOrStdout(), res)
			}
			return became(cmd.OutOrStdout(), res.GetEvents(), res.GetChats(), "redriven", req.GetDryRun())
		})
	}
	return cmd
}

func newDeadLettersDiscardCommand() *cobra.Command {
	req := &sluicev1.DiscardDeadLettersRequest{}
	cmd := &cobra.Command{
		Use:   "discard GROUP {SEQUENCE... | --chat-key KEY | --all} --reason TEXT",
		Short: "Settle dead letters without delivering them",
		Long: `Settle dead letters without delivering them; the events stay in the log. The
gateway's log says how many, and why. A chat goes on when the event that stopped
it is discarded.`,
		Example: `  sluice deadletters discard bot 1042 --reason "answered by hand"`,
		Args:    cobra.MinimumNArgs(1),
	}
	g, format, sel := addGatewayFlags(cmd), addFormatFlags(cmd), addLetterFlags(cmd)
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why, for the gateway's log; required")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if req.GetReason() == "" {
			return usagef("say why with --reason")
		}
		var err error
		if req.Selection, err = readSelection(sel, args[1:]); err != nil {
			return err
		}
		req.ConsumerGroupId = args[0]
		return g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			res, err := c.DiscardDeadLetters(cmd.Context(), req)
			switch {
			case err != nil:
				return g.explain(err)
			case format.json:
				return show.JSON(cmd.OutOrStdout(), res)
			}
			return became(cmd.OutOrStdout(), res.GetEvents(), res.GetChats(), "discarded", req.GetDryRun())
		})
	}
	return cmd
}

// addLetterFlags gives cmd the flags that say which dead letters, and returns
// what they set.
func addLetterFlags(cmd *cobra.Command) *sluicev1.DeadLetterSelection {
	sel := &sluicev1.DeadLetterSelection{}
	cmd.Flags().StringArrayVar(&sel.ChatKeys, "chat-key", nil, "those of this chat, by its chat_key; can be repeated")
	cmd.Flags().BoolVar(&sel.All, "all", false, "all of them")
	return sel
}

// readSelection adds the sequences that args are to sel.
func readSelection(sel *sluicev1.DeadLetterSelection, args []string) (*sluicev1.DeadLetterSelection, error) {
	for _, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil || n == 0 {
			return nil, usagef("%q is not the sequence of an event, which is a number from 1; `sluice deadletters list` shows them", arg)
		}
		sel.Sequences = append(sel.Sequences, n)
	}
	some := len(sel.GetSequences())+len(sel.GetChatKeys()) > 0
	if some == sel.GetAll() {
		return nil, usagef("name events or chats, or all of them with --all")
	}
	return sel, nil
}

// became says what became of dead letters, or would.
func became(out io.Writer, events, chats uint32, what string, dryRun bool) error {
	if dryRun {
		what = "would be " + what
	}
	_, err := fmt.Fprintf(out, "%d events of %d chats %s\n", events, chats, what)
	return err
}

// deadLetter shows a dead letter on out.
func (f *format) deadLetter(out io.Writer, d *sluicev1.DeadLetter) error {
	if f.json {
		return show.JSON(out, d)
	}
	return show.DeadLetterLine(out, d, time.Local)
}
