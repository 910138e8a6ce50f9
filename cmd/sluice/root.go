package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// A usageError is a command line that makes no sense. Commands return one for
// what cobra cannot check itself.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong.
func (e *usageError) Unwrap() error { return e.err }

// usagef returns a usageError.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// newRootCommand returns the command with all its subcommands.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "A gate between a messaging vendor's callbacks and the services that act on them",
		Long: `Sluice takes a messaging vendor's callbacks, makes each durable before it
answers, types it as protobuf, and streams it over gRPC to whoever wants it.

  sluice serve                   run the gateway
  sluice tail --from earliest    watch the events of one that runs
  sluice consume bot --exec CMD  work on them, as one of a group`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(
		newServeCommand(),
		newTailCommand(),
		newPostCommand(),
		newEventsCommand(),
		newQuarantineCommand(),
		newDriftCommand(),
		newGroupsCommand(),
		newConsumeCommand(),
		newDeadLettersCommand(),
		newVerifyCommand(),
		newConfigCommand(),
		newVersionCommand(),
	)
	checkUsage(root)
	return root
}

// checkUsage makes what cobra finds wrong with a command line a usageError, and
// a command that only has subcommands say so.
func checkUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	if cmd.HasSubCommands() {
		cmd.Args = noSuchCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	args := cmd.Args
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return &usageError{err}
		}
		return nil
	}
	for _, sub := range cmd.Commands() {
		checkUsage(sub)
	}
}

// noSuchCommand takes no arguments, and says which subcommand one may have
// meant.
func noSuchCommand(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2 // letters
	hint := ""
	if meant := cmd.SuggestionsFor(given[0]); len(meant) > 0 {
		hint = ", did you mean " + strings.Join(meant, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q for %q%s", given[0], cmd.CommandPath(), hint)
}
