package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluicegate/sluice/server"
)

func newServeCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Serve takes callbacks, keeps them in the log and streams them, until it gets
SIGINT or SIGTERM. It then lets go of its clients in order, for at most
--drain-timeout; a second signal ends it at once, and loses nothing that was
answered 0.

The sources may change while it runs, tokens in files among it: it reads them
again within seconds of a change, and at once on SIGHUP. If something is wrong
with them it says so and goes on with those it has. Every other setting needs a
restart.

Without any flag it keeps its log in ./data, can be reached from this machine
only, and accepts callbacks from anybody on it.

` + configHelp + `

Exit codes: 0 after a clean stop, 1 on an error, 2 for a wrong command line.
65: the start was refused, because the log holds less than was acknowledged, or
is damaged; nothing was changed, and starting again does not help.
74: a write to the disk failed, or data_dir was replaced, after which nothing
can be promised any more in this process; start it again, it reads what is on
the disk.`,
		Example: `  sluice serve
  sluice serve --callback-addr :8080 --source 'name=acme,path=/hook-7f3a,token=env:ACME_TOKEN'
  sluice serve --config sluice.yaml --log-format json`,
		Args: cobra.NoArgs,
	}
	flags.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, _, err := flags.load()
		if err != nil {
			return err
		}
		if os.Getenv("GOGC") == "" {
			go tuneCollector(cmd.Context())
		}
		hangup := make(chan os.Signal, 1) // one more says nothing new
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		cfg.Hangup = hangup
		logger := newLogger(cfg, cmd.ErrOrStderr())
		srv, err := server.New(cmd.Context(), cfg, logger)
		if server.IsDataLoss(err) {
			return &exitCodeError{exitDataLoss, err}
		}
		if err != nil {
			return err
		}
		printStart(cmd.OutOrStdout(), srv, cfg)
		err = srv.Run(cmd.Context())
		if failed := (*server.StorageError)(nil); errors.As(err, &failed) {
			return &exitCodeError{exitStorage, err}
		}
		return err
	}
	return cmd
}

func newLogger(cfg server.Config, to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == server.LogJSON {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}

// sampleCallback is the example of the vendor's own page.
const sampleCallback = `{"orgId":"string","token":"string","botId":"string","imBotId":"string","botUserId":"string",` +
	`"chatId":"string","avatar":"string","coworker":true,"imContactId":"string","imRoomId":"string",` +
	`"roomWecomChatId":"string","roomTopic":"string","messageId":"string","isSelf":true,"sendBy":"string","source":0,` +
	`"externalUserId":"string","contactName":"string","contactType":0,"messageType":0,"payload":{"content":"string"}}`

// printStart tells whoever started the gateway what to do with it.
func printStart(w io.Writer, srv *server.Server, cfg server.Config) {
	path, body := "/message", sampleCallback
	if len(cfg.Sources) > 0 { // its path and tokens are secrets, and this may be kept in a log
		name := cfg.Sources[0].Name
		if cfg.Sources[0].Path != "/" && cfg.Sources[0].Path != "" {
			path = "/<path of " + name + ">" + path
		}
		body = strings.Replace(body, `"token":"string"`, `"token":"<token of `+name+`>"`, 1)
	}
	tail := os.Args[0] + " tail --from earliest"
	if addr := srv.GRPCAddr(); addr != server.DefaultConfig().GRPCAddr {
		tail += " --addr " + reachable(addr)
	}
	fmt.Fprintf(w, `Sluice takes callbacks and streams events.

  callbacks   http://%s    for the vendor
  gRPC API    %s
  HTTP API    http://%s    and /metrics, /readyz, /openapi.json

Post a callback:

  curl -H 'Content-Type: application/json' -d '%s' 'http://%s%s'

Watch the events, from the first one on:

  %s

`, srv.CallbackAddr(), srv.GRPCAddr(), srv.HTTPAddr(), body, reachable(srv.CallbackAddr()), path, tail)
}
