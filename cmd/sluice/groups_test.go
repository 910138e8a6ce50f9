package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/servertest"
)

func TestGroupFlags(t *testing.T) {
	tests := map[string]struct {
		args  []string
		want  *sluicev1.ConsumerGroup
		paths []string
		err   string
	}{
		"none": {want: &sluicev1.ConsumerGroup{}},
		"some": {
			args: []string{"--kind", "message", "--not-self", "--quiet", "0", "--backoff", "1s,1m", "--max-rate", "0"},
			want: &sluicev1.ConsumerGroup{
				Filter: &sluicev1.EventFilter{Kinds: []string{"message"}, IsSelf: proto.Bool(false)},
				Turn:   &sluicev1.TurnPolicy{Quiet: durationpb.New(0)},
				Retry:  &sluicev1.RetryPolicy{Backoff: []*durationpb.Duration{durationpb.New(time.Second), durationpb.New(time.Minute)}},
				Limits: &sluicev1.GroupLimits{},
			},
			paths: []string{"filter.is_self", "filter.kinds", "limits.max_events_per_second", "retry.backoff", "turn.quiet"},
		},
		"words": {
			args: []string{"--order", "total", "--on-exhausted", "divert-chat"},
			want: &sluicev1.ConsumerGroup{
				Order: sluicev1.Order_ORDER_TOTAL,
				Retry: &sluicev1.RetryPolicy{OnExhausted: sluicev1.OnExhausted_ON_EXHAUSTED_DIVERT_CHAT},
			},
			paths: []string{"order", "retry.on_exhausted"},
		},
		"wrong order":        {args: []string{"--order", "unspecified"}, err: "chat, none, total"},
		"wrong on-exhausted": {args: []string{"--on-exhausted", "stop"}, err: "block-chat"},
		"wrong type":         {args: []string{"--type", "txt"}, err: "--type"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true}
			c := addGroupFlags(cmd)
			var got *sluicev1.ConsumerGroup
			var paths []string
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				group, mask, err := c.read(cmd)
				got, paths = group, mask.GetPaths()
				return err
			}
			cmd.SetArgs(tt.args)
			err := cmd.Execute()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("err = %v, want it to mention %q", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if diff := cmp.Diff(tt.paths, paths); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGroupFlagsForgetNothing holds that every field of a group that can be
// changed has a flag, but for paused, which has commands, and what the server sets.
func TestGroupFlagsForgetNothing(t *testing.T) {
	has := map[string]bool{"name": true, "start": true, "paused": true, "create_time": true, "update_time": true, "pause_reason": true}
	for _, p := range addGroupFlags(&cobra.Command{}).paths {
		has[p.path] = true
	}
	fields := (*sluicev1.ConsumerGroup)(nil).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if has[string(f.Name())] {
			continue
		}
		if f.Message() == nil {
			t.Errorf("%s has no flag", f.Name())
			continue
		}
		for j := range f.Message().Fields().Len() {
			if path := fmt.Sprintf("%s.%s", f.Name(), f.Message().Fields().Get(j).Name()); !has[path] {
				t.Errorf("%s has no flag", path)
			}
		}
	}
}

func TestGroups(t *testing.T) {
	srv := servertest.Start(t)
	command(t, srv, "groups", "list").want(t, 0, ``, `sluice: there is no group.*\n`)
	command(t, srv, "groups", "create", "w", "--start", "earliest", "--backoff", "1h", "--kind", "message").want(t, 0,
		`name +w\n.*kinds +message\n.*backoff +1h0m0s\n.*`, ``)
	command(t, srv, "groups", "create", "w", "--order", "none").want(t, 1, ``, "sluice: .*`sluice groups update`.*\n")
	command(t, srv, "groups", "update", "w", "--max-attempts", "2", "--quiet", "1m").want(t, 0, `.*max_attempts +2\n.*quiet +1m0s\n.*`, ``)
	command(t, srv, "groups", "update", "w", "--quiet", "0").want(t, 0, `name +w\n.*`, ``)
	command(t, srv, "groups", "update", "w").want(t, 2, ``, `sluice: say what to change\n.*`)
	command(t, srv, "groups", "update", "w", "--max-attempts", "-2").want(t, 1, ``, `sluice: .*max_attempts.*\n`)
	command(t, srv, "groups", "pause", "w").want(t, 0, `.*paused +true\n.*`, ``)
	command(t, srv, "groups", "list").want(t, 0, `w +chat +paused\n`, ``)
	command(t, srv, "groups", "resume", "w", "--json").want(t, 0, `\{"name":"w",[^\n]*\}\n`, ``)
	command(t, srv, "groups", "list", "--json").want(t, 0, `\{"name":"w",[^\n]*\}\n`, ``)

	srv.MustPost("/", message(1, "a"))
	srv.MustPost("/", message(2, "b"))
	command(t, srv, "consume", "w", "--json", "-n", "2").want(t, 0,
		`\{"lease":[^\n]*"sequence":"1"[^\n]*\}\n\{"lease":[^\n]*"sequence":"2"[^\n]*\}\n`, ``)
	command(t, srv, "groups", "seek", "w", "2", "--dry-run").want(t, 0, `1 events would come again, 0 not any more; the next is 2\n`, ``)
	command(t, srv, "groups", "seek", "w", "2", "--chat-key", "default/60aa00000000000000000c01", "--json").want(t, 0, `\{"again":"1","sequence":"2"\}\n`, ``)
	command(t, srv, "groups", "seek", "w", "nowhere").want(t, 2, ``, `sluice: "nowhere" is no place .*`)
	command(t, srv, "consume", "w", "--exec", "exit 3", "-n", "1").want(t, 0, ``, `sluice: event 2, attempt 1: exit status 3\n`)
	command(t, srv, "groups", "show", "w").want(t, 0,
		`name +w\n.*\npending +1\noutstanding +0\nlag +1 events, the oldest is 2, \S+ ago\n.*\nblocked chats +1\n`+
			` +default/60aa00000000000000000c01 +retrying for \S+, again in \S+ +event 2, 1 waiting +1 attempt, nack by \S+: exit status 3\n.*`, ``)
	command(t, srv, "groups", "show", "w", "--json").want(t, 0, `\{"consumerGroup":\{[^\n]*\}\}\n\{"status":\{[^\n]*\}\}\n`, ``)
	command(t, srv, "groups", "delete", "w").want(t, 0, `w deleted\n`, ``)
	command(t, srv, "groups", "show", "w").want(t, 1, ``, "sluice: .*`sluice groups create` makes one\n")
}

func TestDeadLetters(t *testing.T) {
	srv := servertest.Start(t)
	command(t, srv, "groups", "create", "w", "--start", "earliest", "--max-attempts", "1").want(t, 0, `.*`, ``)
	command(t, srv, "deadletters", "list", "w").want(t, 0, ``, `sluice: no dead letter matches\n`)
	for n := 1; n <= 3; n++ {
		srv.MustPost("/", message(n, "text"))
	}
	command(t, srv, "consume", "w", "--exec", "exit 4", "-n", "3").want(t, 0, ``, `(sluice: event [123], attempt 1: exit status 4\n){3}`)
	command(t, srv, "deadletters", "list", "w").want(t, 0,
		`( +[123]  \d\d-\d\d \d\d:\d\d:\d\d  default/60aa00000000000000000c01  -         1 attempt, nack by \S+: exit status 4\n){3}`, ``)
	command(t, srv, "deadletters", "list", "w", "--limit", "1", "--json").want(t, 0, `\{"event":\{"sequence":"1"[^\n]*\}\n`, ``)
	command(t, srv, "deadletters", "redrive", "w", "--all", "--dry-run").want(t, 0, `3 events of 1 chats would be redriven\n`, ``)
	command(t, srv, "deadletters", "redrive", "w", "1", "--rate", "5", "--json").want(t, 0, `\{"events":1,"chats":1\}\n`, ``)
	command(t, srv, "deadletters", "discard", "w", "2").want(t, 2, ``, `sluice: say why with --reason\n.*`)
	command(t, srv, "deadletters", "discard", "w", "2", "--reason", "test").want(t, 0, `1 events of 1 chats discarded\n`, ``)
	for _, wrong := range [][]string{{}, {"3", "--all"}, {"three"}} {
		command(t, srv, append([]string{"deadletters", "redrive", "w"}, wrong...)...).want(t, 2, ``, `sluice: .*`)
	}
	command(t, srv, "consume", "w", "--exec", "true", "-n", "1").want(t, 0, ``, ``)
	command(t, srv, "deadletters", "list", "w").want(t, 0, ` +3 [^\n]*\n`, ``)
}

// TestConsumeExec runs a command that shows what it is given.
func TestConsumeExec(t *testing.T) {
	srv := servertest.Start(t)
	command(t, srv, "groups", "create", "w", "--start", "earliest", "--lease", "1s").want(t, 0, `.*`, ``)
	srv.MustPost("/", message(1, "hello"))
	done := filepath.Join(t.TempDir(), "done")
	script := `if [ -e ` + done + ` ]; then
		echo "$SLUICE_CHAT_KEY $SLUICE_ATTEMPT $SLUICE_FENCE"; cat
	else
		touch ` + done + `; exit 75
	fi`
	command(t, srv, "consume", "w", "--exec", script, "-n", "2").want(t, 0,
		`default/60aa00000000000000000c01 1 \d+\n\{"lease":[^\n]*"text":"hello"[^\n]*\}\n`, ``)
	command(t, srv, "consume", "w").want(t, 2, ``, `sluice: say what to do .*`)
	command(t, srv, "consume", "w", "--json", "--exec", "true").want(t, 2, ``, `sluice: say what to do .*`)
	command(t, srv, "consume", "none", "--json").want(t, 1, ``, "sluice: .*`sluice groups list`.*\n")
}

// TestConsumeKillsOnLostLease moves the group while a command runs. The command
// counts as ended when nobody holds its output any more, what it has started
// included.
func TestConsumeKillsOnLostLease(t *testing.T) {
	srv := servertest.Start(t)
	command(t, srv, "groups", "create", "w", "--start", "earliest").want(t, 0, `.*`, ``)
	srv.MustPost("/", message(1, "hello"))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out, lines := io.Pipe()
	notes, noted := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"consume", "w", "--exec", "sleep 600 & echo; wait", "--addr", srv.GRPCAddr()}, lines, noted)
		_ = noted.Close()
	}()
	read, note := newLineReader(out), newLineReader(notes)
	read(t) // it runs
	command(t, srv, "groups", "seek", "w", "latest").want(t, 0, `0 events come again, 1 not any more; .*`, ``)
	if got := note(t); !matches(`sluice: event 1, attempt 1: killed: the lease is lost\n`, got) {
		t.Errorf("note = %q", got)
	}
	if got := note(t); !matches(`sluice: event 1, attempt 1: the lease was lost .*\n`, got) {
		t.Errorf("note = %q", got)
	}
	interrupt()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
}
