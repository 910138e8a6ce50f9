// Command bench measures Sluice from the outside, as its users meet it: the
// binary that ships, in a child process, on an empty data directory, over
// sockets.
//
//	bench ingest      callbacks per second and their latency, beside the limit and the floor server
//	bench subscribe   events per second to gRPC subscribers, and delivery latency
//	bench groups      what consumer groups do: deliveries settled, latency, memory, restarts
//	bench large       what the size of the log matters to: memory, start, first page
//	bench fill        a data directory with many events in it
//	bench plot        a picture of what -benchstat has saved
//	bench load        the load alone, at a server that already runs
//	bench limit       the limit server alone
//	bench floor       the floor server alone
//	bench slowdisk    a directory whose syncs are slow
//
// Without a command it runs the first four, with the flags that all of them have.
// The tables it prints are Markdown, for README.md beside it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills at once
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // main may
	}
}

// A command runs with its own arguments and prints to out.
type command func(ctx context.Context, args []string, out io.Writer) error

var commands = map[string]command{
	"ingest":    runIngest,
	"subscribe": runSubscribe,
	"groups":    runGroups,
	"large":     runLarge,
	"fill":      runFill,
	"plot":      runPlot,
	"load":      runLoad,
	"limit":     runLimit,
	"floor":     runFloor,
	"slowdisk":  runSlowDisk,
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 && commands[args[0]] != nil {
		return commands[args[0]](ctx, args[1:], out)
	}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("usage: bench [%s] [-help]", strings.Join(slices.Sorted(maps.Keys(commands)), "|"))
	}
	for i, name := range []string{"ingest", "subscribe", "groups", "large"} {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := commands[name](ctx, args, out); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// counts is a flag: positive whole numbers separated by commas.
type counts []int

func (c *counts) String() string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(*c)), ","), "[]")
}

// Set implements flag.Value.
func (c *counts) Set(s string) error {
	*c = nil
	for field := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a positive number", field)
		}
		*c = append(*c, n)
	}
	return nil
}
