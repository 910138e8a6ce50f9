package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/record"
)

func TestParsePosition(t *testing.T) {
	zone := time.FixedZone("", 8*60*60)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, zone)
	cursor := record.Cursor{Epoch: "0123456789abcdef", Sequence: 42}.String()
	tests := map[string]*sluicev1.Position{
		"":                          nil,
		"earliest":                  client.Earliest(),
		"latest":                    client.Latest(),
		"now":                       client.Latest(),
		"42":                        client.Sequence(42),
		"18446744073709551615":      client.Sequence(1<<64 - 1),
		"2026-02-28T10:00:00Z":      client.ReceiveTime(time.Date(2026, 2, 28, 10, 0, 0, 0, time.UTC)),
		"2026-02-28T10:00:00+08:00": client.ReceiveTime(time.Date(2026, 2, 28, 2, 0, 0, 0, time.UTC)),
		"2026-02-28T10:00:00.5Z":    client.ReceiveTime(time.Date(2026, 2, 28, 10, 0, 0, 5e8, time.UTC)),
		"2026-02-28":                client.ReceiveTime(time.Date(2026, 2, 28, 0, 0, 0, 0, zone)),
		"10m":                       client.ReceiveTime(now.Add(-10 * time.Minute)),
		"10m ago":                   client.ReceiveTime(now.Add(-10 * time.Minute)),
		"1h30m":                     client.ReceiveTime(now.Add(-90 * time.Minute)),
		"2d":                        client.ReceiveTime(now.Add(-48 * time.Hour)),
		"2d ago":                    client.ReceiveTime(now.Add(-48 * time.Hour)),
		cursor:                      client.Cursor(cursor),
	}
	for in, want := range tests {
		got, err := parsePosition(in, now)
		if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("parsePosition(%q): %v (-want +got):\n%s", in, err, diff)
		}
	}
	for _, in := range []string{"yesterday", "-1", "-10m", "ago", "1.5d", "earliest!", "2026-13-01"} {
		if got, err := parsePosition(in, now); err == nil || !strings.Contains(err.Error(), "earliest") {
			t.Errorf("parsePosition(%q) = %v, %v, want an error that says what there is", in, got, err)
		}
	}
}

func TestSelection(t *testing.T) {
	tests := map[string]struct {
		args []string
		want *sluicev1.EventFilter
		err  string
	}{
		"none": {want: &sluicev1.EventFilter{}},
		"all": {
			args: []string{
				"--source", "acme", "--bot", "b1,b2", "--chat", "c1", "--chat", "c2", "--room", "R:1",
				"--type", "text,6,Mini-Program,777", "--kind", "message", "--self", "--mention", "--expr", "a, b",
			},
			want: &sluicev1.EventFilter{
				Sources: []string{"acme"}, BotIds: []string{"b1", "b2"}, ChatIds: []string{"c1", "c2"}, RoomWxids: []string{"R:1"},
				MessageTypes: []sluicev1.MessageType{
					sluicev1.MessageType_MESSAGE_TYPE_TEXT, sluicev1.MessageType_MESSAGE_TYPE_IMAGE,
					sluicev1.MessageType_MESSAGE_TYPE_MINI_PROGRAM, 777,
				},
				Kinds: []string{"message"}, IsSelf: proto.Bool(true), MentionSelf: proto.Bool(true), Expression: "a, b",
			},
		},
		"not self":   {args: []string{"--not-self"}, want: &sluicev1.EventFilter{IsSelf: proto.Bool(false)}},
		"both":       {args: []string{"--self", "--not-self"}, err: "not-self"},
		"wrong type": {args: []string{"--type", "txt"}, err: "wecom_system"},
		"wrong from": {args: []string{"--from", "x"}, err: "--from"},
		"wrong to":   {args: []string{"--to", "x"}, err: "--to"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true}
			s := addSelectionFlags(cmd)
			var got *sluicev1.EventFilter
			cmd.RunE = func(*cobra.Command, []string) (err error) {
				if _, _, err = s.positions(time.Now()); err == nil {
					got, err = s.eventFilter()
				}
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
		})
	}
}

// TestTypeNames holds that every type of the schema can be asked for by name.
func TestTypeNames(t *testing.T) {
	names := typeNames()
	if !slices.Contains(names, "text") || len(names) != len(sluicev1.MessageType_name) {
		t.Fatalf("typeNames() = %v", names)
	}
	for _, name := range names {
		if got, err := parseType(name); err != nil || sluicev1.MessageType_name[int32(got)] != typePrefix+strings.ToUpper(name) {
			t.Errorf("parseType(%q) = %v, %v", name, got, err)
		}
	}
}

func TestReachable(t *testing.T) {
	for in, want := range map[string]string{
		":9090":            "127.0.0.1:9090",
		"0.0.0.0:9090":     "127.0.0.1:9090",
		"[::]:9090":        "127.0.0.1:9090",
		"127.0.0.2:9090":   "127.0.0.2:9090",
		"gateway:9090":     "gateway:9090",
		"unix:///run/sock": "unix:///run/sock",
	} {
		if got := reachable(in); got != want {
			t.Errorf("reachable(%q) = %q, want %q", in, got, want)
		}
	}
}
