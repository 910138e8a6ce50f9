package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

func newGroupsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "groups",
		Short: "Look after consumer groups",
		Long: `A consumer group is a set of workers that share the events of the log: each event
is worked on by one of them until it is acknowledged, and what a chat says stays
in order. "sluice consume" is such a worker.`,
	}
	cmd.AddCommand(
		newGroupsCreateCommand(),
		newGroupsListCommand(),
		newGroupsShowCommand(),
		newGroupsUpdateCommand(),
		newGroupsDeleteCommand(),
		newGroupsSeekCommand(),
		newGroupsPauseCommand("pause", "Hand nothing out; what is handed out can be settled", true),
		newGroupsPauseCommand("resume", "Hand out again", false),
	)
	return cmd
}

func newGroupsCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a group",
		Example: `  sluice groups create bot --kind message --not-self --quiet 2s
  sluice groups create archive --start earliest --order none`,
		Args: cobra.ExactArgs(1),
	}
	g, config, format := addGatewayFlags(cmd), addGroupFlags(cmd), addFormatFlags(cmd)
	start := cmd.Flags().String("start", "latest", "where to begin: "+positionHelp)
	complete(cmd, "start", []string{"earliest", "latest"})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		group, _, err := config.read(cmd)
		if err != nil {
			return err
		}
		if group.Start, err = parsePosition(*start, time.Now()); err != nil {
			return usagef("--start: %w", err)
		}
		return g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			res, err := c.CreateConsumerGroup(cmd.Context(), &sluicev1.CreateConsumerGroupRequest{ConsumerGroupId: args[0], ConsumerGroup: group})
			if err != nil {
				return g.explain(err)
			}
			return format.group(cmd, res.GetConsumerGroup())
		})
	}
	return cmd
}

func newGroupsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the groups by name",
		Args:  cobra.NoArgs,
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		listed := 0
		err := g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			req := &sluicev1.ListConsumerGroupsRequest{}
			for {
				page, err := c.ListConsumerGroups(cmd.Context(), req)
				if err != nil {
					return g.explain(err)
				}
				for _, group := range page.GetConsumerGroups() {
					listed++
					if err := format.groupLine(cmd, group); err != nil {
						return err
					}
				}
				req.PageToken = page.GetNextPageToken()
				if req.GetPageToken() == "" {
					return nil
				}
			}
		})
		if err == nil && listed == 0 && !format.json {
			fmt.Fprintln(cmd.ErrOrStderr(), "sluice: there is no group; `sluice groups create` makes one")
		}
		return err
	}
	return cmd
}

func newGroupsShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show how a group works and how it stands",
		Long: `Show how a group works and how it stands: what is pending and outstanding, how far
it is behind the log, the chats that do not go on, those that wait longest first,
and the members. With --json these are two objects.`,
		Args: cobra.ExactArgs(1),
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			group, err := c.GetConsumerGroup(cmd.Context(), &sluicev1.GetConsumerGroupRequest{ConsumerGroupId: args[0]})
			if err != nil {
				return g.explain(err)
			}
			status, err := c.GetConsumerGroupStatus(cmd.Context(), &sluicev1.GetConsumerGroupStatusRequest{ConsumerGroupId: args[0]})
			if err != nil {
				return g.explain(err)
			}
			out := cmd.OutOrStdout()
			if !format.json {
				return show.GroupStatus(out, group.GetConsumerGroup(), status.GetStatus(), time.Now())
			}
			if err := show.JSON(out, group); err != nil {
				return err
			}
			return show.JSON(out, status)
		})
	}
	return cmd
}

func newGroupsUpdateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "update NAME",
		Short:   "Change a group while it runs",
		Long:    `Change what the flags say of a group while it runs; the rest stays as it is.`,
		Example: `  sluice groups update bot --max-attempts 3 --on-exhausted divert-chat`,
		Args:    cobra.ExactArgs(1),
	}
	g, config, format := addGatewayFlags(cmd), addGroupFlags(cmd), addFormatFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		group, mask, err := config.read(cmd)
		if err != nil {
			return err
		}
		if len(mask.GetPaths()) == 0 {
			return usagef("say what to change")
		}
		return g.updateGroup(cmd, format, args[0], group, mask)
	}
	return cmd
}

func newGroupsPauseCommand(use, short string, paused bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use + " NAME",
		Short: short,
		Args:  cobra.ExactArgs(1),
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		mask := &fieldmaskpb.FieldMask{Paths: []string{"paused"}}
		return g.updateGroup(cmd, format, args[0], &sluicev1.ConsumerGroup{Paused: paused}, mask)
	}
	return cmd
}

// updateGroup changes a group, and shows it as it is then.
func (g *gateway) updateGroup(cmd *cobra.Command, format *format, name string, group *sluicev1.ConsumerGroup, mask *fieldmaskpb.FieldMask) error {
	return g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
		req := &sluicev1.UpdateConsumerGroupRequest{ConsumerGroupId: name, ConsumerGroup: group, UpdateMask: mask}
		res, err := c.UpdateConsumerGroup(cmd.Context(), req)
		if err != nil {
			return g.explain(err)
		}
		return format.group(cmd, res.GetConsumerGroup())
	})
}

func newGroupsDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a group and all it remembers, its dead letters included",
		Args:  cobra.ExactArgs(1),
	}
	g := addGatewayFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			_, err := c.DeleteConsumerGroup(cmd.Context(), &sluicev1.DeleteConsumerGroupRequest{ConsumerGroupId: args[0]})
			if err != nil {
				return g.explain(err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), show.Visible(args[0])+" deleted")
			return err
		})
	}
	return cmd
}

func newGroupsSeekCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "seek NAME PLACE",
		Short: "Move a group, or some chats of it, to a place in the log",
		Long: `Move a group, or some chats of it, to a place in the log, which is
` + positionHelp + `.

Everything from there on comes again, and what waits before it does not come any
more; see with --dry-run. What is handed out is taken back.`,
		Example: `  sluice groups seek bot 2h --dry-run
  sluice groups seek bot 1042 --chat-key acme/60aa00000000000000000c01`,
		Args: cobra.ExactArgs(2),
	}
	g, format := addGatewayFlags(cmd), addFormatFlags(cmd)
	req := &sluicev1.SeekConsumerGroupRequest{}
	cmd.Flags().StringArrayVar(&req.ChatKeys, "chat-key", nil, "only this chat, by its chat_key; can be repeated")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen, and change nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if req.To, err = parsePosition(args[1], time.Now()); err != nil || req.GetTo() == nil {
			return usagef("%q is no place in the log, which is %s", args[1], positionHelp)
		}
		req.ConsumerGroupId = args[0]
		return g.groups(func(c sluicev1.ConsumerGroupServiceClient) error {
			res, err := c.SeekConsumerGroup(cmd.Context(), req)
			switch {
			case err != nil:
				return g.explain(err)
			case format.json:
				return show.JSON(cmd.OutOrStdout(), res)
			}
			come := "come"
			if req.GetDryRun() {
				come = "would come"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d events %s again, %d not any more; the next is %d\n",
				res.GetAgain(), come, res.GetSkipped(), res.GetSequence())
			return err
		})
	}
	return cmd
}

// groups runs do with a client of the gateway's groups.
func (g *gateway) groups(do func(sluicev1.ConsumerGroupServiceClient) error) error {
	c, err := g.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return do(sluicev1.NewConsumerGroupServiceClient(c.Conn()))
}

// group shows a group in full.
func (f *format) group(cmd *cobra.Command, group *sluicev1.ConsumerGroup) error {
	if f.json {
		return show.JSON(cmd.OutOrStdout(), group)
	}
	return show.Group(cmd.OutOrStdout(), group, time.Local)
}

// groupLine shows a group of a list.
func (f *format) groupLine(cmd *cobra.Command, group *sluicev1.ConsumerGroup) error {
	if f.json {
		return show.JSON(cmd.OutOrStdout(), group)
	}
	return show.GroupLine(cmd.OutOrStdout(), group)
}
