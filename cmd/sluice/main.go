// Command sluice is the gateway and its tools: serve runs it, the other
// commands are gRPC clients of one that runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc/grpclog"
)

// Exit codes.
const (
	exitOK       = 0
	exitError    = 1  // it did not work
	exitUsage    = 2  // the command line makes no sense
	exitProblems = 3  // verify has found something
	exitDataLoss = 65 // EX_DATAERR: the start was refused, the log has lost data
	exitStorage  = 74 // EX_IOERR: the storage has failed for good
)

// An exitCodeError is an error with an exit code of its own.
type exitCodeError struct {
	code int
	err  error
}

func (e *exitCodeError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong.
func (e *exitCodeError) Unwrap() error { return e.err }

func main() {
	// What gRPC and grpc-gateway would print by themselves is not ours to
	// vouch for, and what matters of it comes back as an error.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))

	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // a second one kills at once, from before anything ends on
		cancel()
	}()

	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr)) //nolint:forbidigo // main may
}

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	var own *exitCodeError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "sluice: %v\nRun \"%s --help\" for what it takes.\n", err, cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintln(stderr, "sluice:", err)
	if errors.As(err, &own) {
		return own.code
	}
	return exitError
}
