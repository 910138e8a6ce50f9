package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/sluicegate/sluice/client"
	"github.com/sluicegate/sluice/cmd/sluice/internal/show"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// exitRelease is the exit code of a command that gives its delivery back:
// EX_TEMPFAIL of sysexits.h.
const exitRelease = 75

func newConsumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consume GROUP {--exec COMMAND | --json}",
		Short: "Work as a member of a consumer group",
		Long: `Work as a member of a consumer group until interrupted, and then let the commands
that run come to their end.

With --exec a shell runs COMMAND for each delivery, and has it as a line of JSON
on its standard input. The events of a chat come one after the other. The exit
code is the verdict:

  0    done: the events never come again
  75   not for me: they are given back, at no cost of an attempt, and come to
       another member, or here again after the duration of a lease
  else failed: they come again after a while

The environment has SLUICE_CHAT_KEY, SLUICE_ATTEMPT (from 1), and SLUICE_FENCE,
which grows each time the chat changes hands. When the lease is lost, the command
and what it has started are killed.

With --json alone, each delivery is printed as a line and counts as done.`,
		Example: `  sluice groups create bot --kind message --not-self --quiet 2s
  sluice consume bot --exec ./bot.sh`,
		Args: cobra.ExactArgs(1),
	}
	c := consumer{gateway: addGatewayFlags(cmd), format: addFormatFlags(cmd)}
	flags := cmd.Flags()
	flags.StringVar(&c.command, "exec", "", "the command to run for each delivery")
	flags.StringVar(&c.opts.Member, "member", "", "name of this worker within the group (default one that no other has)")
	flags.IntVar(&c.opts.Concurrency, "concurrency", 16, "the most deliveries to work on at once, each of another chat")
	flags.BoolVar(&c.opts.IncludeRaw, "raw", false, "add the vendor's body, its token cut out")
	flags.DurationVar(&c.opts.DrainTimeout, "drain-timeout", 20*time.Second, "how long the commands that run may take after an interrupt")
	flags.Int64VarP(&c.count, "count", "n", 0, "end after this many deliveries; 0 is never")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if c.opts.Concurrency < 1 || c.count < 0 {
			return usagef("--concurrency must be at least 1, and --count must not be negative")
		}
		if (c.command == "") == !c.json {
			return usagef("say what to do with the deliveries: --exec COMMAND, or --json to print them")
		}
		c.out, c.notes = shared(cmd.OutOrStdout()), shared(cmd.ErrOrStderr())
		return c.run(cmd.Context(), args[0])
	}
	return cmd
}

// consumer is the command consume.
type consumer struct {
	*gateway
	*format
	opts    client.ConsumeOptions
	command string // for a shell; "" prints
	count   int64

	out   io.Writer // of the commands, or for deliveries; safe for concurrent use
	notes io.Writer // for everything else; likewise
}

// run works until ctx is done, which is no error.
func (c *consumer) run(ctx context.Context, group string) error {
	gw, err := c.dial()
	if err != nil {
		return err
	}
	defer func() { _ = gw.Close() }()

	working, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	patience := time.AfterFunc(c.timeout, func() { giveUp(context.DeadlineExceeded) })
	defer patience.Stop()
	var connected, lost bool
	c.opts.OnConnect = func(*sluicev1.ConsumeOpened) {
		patience.Stop()
		if lost {
			fmt.Fprintln(c.notes, "sluice: connected again")
		}
		connected, lost = true, false
	}
	c.opts.OnDisconnect = func(err error, _ time.Duration) {
		switch {
		case !connected:
			giveUp(err) // a wrong address does not become right
		case !lost:
			fmt.Fprintf(c.notes, "sluice: connection lost, reconnecting (%s)\n", status.Convert(err).Message())
		}
		lost = true
	}
	c.opts.OnUnsettled = func(d *sluicev1.Delivery, _ sluicev1.Outcome) {
		c.note(d, "the lease was lost before the outcome was stored; it may come again")
	}

	handle := c.exec
	if c.command == "" {
		handle = func(_ context.Context, d *sluicev1.Delivery) error {
			err := show.JSON(c.out, d)
			if err != nil {
				giveUp(err) // the next would fare no better
				return &client.ReleaseError{}
			}
			return nil
		}
	}
	var enough atomic.Bool
	if c.count > 0 {
		c.opts.Concurrency = int(min(int64(c.opts.Concurrency), c.count))
		handle = first(working, c.count, handle, func() { enough.Store(true); giveUp(nil) })
	}
	err = gw.Consume(working, group, handle, c.opts)
	if ctx.Err() != nil || enough.Load() {
		return nil // as it was asked to
	}
	return c.explain(err)
}

// first returns a handler that hands n deliveries to handle, and calls done,
// which ends working, when n have come to their end. Any more it gives back
// then: at once they would only come again.
func first(working context.Context, n int64, handle client.Handler, done func()) client.Handler {
	var begun, ended atomic.Int64
	return func(ctx context.Context, d *sluicev1.Delivery) error {
		if begun.Add(1) > n {
			select {
			case <-working.Done():
			case <-ctx.Done():
			}
			return &client.ReleaseError{}
		}
		defer func() {
			if ended.Add(1) == n {
				done()
			}
		}()
		return handle(ctx, d)
	}
}

// exec runs the command on a delivery.
func (c *consumer) exec(ctx context.Context, d *sluicev1.Delivery) error {
	var stdin bytes.Buffer
	if err := show.JSON(&stdin, d); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.command) //nolint:gosec // running what the user says is the point
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &stdin, c.out, c.notes
	cmd.Env = append(os.Environ(),
		"SLUICE_FENCE="+strconv.FormatUint(d.GetChatFence(), 10),
		"SLUICE_ATTEMPT="+strconv.FormatUint(uint64(d.GetAttempt()), 10),
		"SLUICE_CHAT_KEY="+d.GetEvents()[0].GetChatKey())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is for us alone, and a kill for all of it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if context.Cause(ctx) != nil {
		c.note(d, "killed: "+context.Cause(ctx).Error())
		return err
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case !ok:
		c.note(d, err.Error())
		return &client.NackError{Reason: "the command could not be run"}
	case exit.ExitCode() == exitRelease:
		return &client.ReleaseError{NotMe: true}
	}
	c.note(d, exit.Error())
	return &client.NackError{Reason: exit.Error()}
}

// note says something of a delivery, without what it says itself.
func (c *consumer) note(d *sluicev1.Delivery, what string) {
	fmt.Fprintf(c.notes, "sluice: event %d, attempt %d: %s\n", d.GetEvents()[0].GetSequence(), d.GetAttempt(), what)
}

// shared returns a writer that several commands can write to at once.
func shared(out io.Writer) io.Writer {
	if file, ok := out.(*os.File); ok {
		return file // which they then have without a pipe between
	}
	return &locked{out: out}
}

// locked is a writer that is safe for concurrent use.
type locked struct {
	mu  sync.Mutex
	out io.Writer
}

// Write writes b at once.
func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}
