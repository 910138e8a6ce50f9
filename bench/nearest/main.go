// Command nearest is what one would build from parts to do what Sluice does for a
// callback: Benthos takes it by HTTP and gives it to JetStream, which syncs each
// message to the disk and knows duplicates by the vendor's message id; then it
// answers. It makes no types of the body, knows no tokens, and orders nothing.
//
// `bench ingest` builds it and starts it as it does the limit server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
)

// pipeline is the configuration of Benthos; %q is the address. The output is
// this program's: the one for NATS is no part of Benthos itself.
const pipeline = `
http:
  enabled: false
logger:
  level: ERROR
input:
  http_server:
    address: %q
    path: /message
pipeline:
  processors:
    - mapping: |
        meta id = this.data.messageId
        root = content()
output:
  broker:
    pattern: fan_out_sequential
    outputs:
      - synced_jetstream: {}
      - sync_response: {}
        processors:
          - mapping: root = """{"errcode":0,"errmsg":"ok"}"""
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nearest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) > 0 && args[0] == "serve" {
		args = args[1:]
	}
	flags := flag.NewFlagSet("nearest", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "where to listen")
	dir := flags.String("dir", "", "data directory, empty or missing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	js, shutdown, err := startJetStream(ctx, *dir)
	if err != nil {
		return err
	}
	defer shutdown()
	const inFlight = 1024 // more than the load has connections
	err = service.RegisterOutput("synced_jetstream", service.NewConfigSpec(),
		func(*service.ParsedConfig, *service.Resources) (service.Output, int, error) {
			return &output{js}, inFlight, nil
		})
	if err != nil {
		return err
	}
	builder := service.NewStreamBuilder()
	if err := builder.SetYAML(fmt.Sprintf(pipeline, *addr)); err != nil {
		return err
	}
	stream, err := builder.Build()
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = stream.StopWithin(10 * time.Second) })
	if err := stream.Run(context.WithoutCancel(ctx)); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// startJetStream starts a NATS server within this process, with a stream whose
// messages are synced before they are acknowledged.
func startJetStream(ctx context.Context, dir string) (js jetstream.JetStream, shutdown func(), err error) {
	s, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true})
	if err != nil {
		return nil, nil, err
	}
	go s.Start()
	shutdown = func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	if !s.ReadyForConnections(10 * time.Second) {
		shutdown()
		return nil, nil, errors.New("the NATS server does not start")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err == nil {
		js, err = jetstream.New(conn)
	}
	if err == nil {
		_, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name: "EVENTS", Subjects: []string{"events"}, Storage: jetstream.FileStorage, Duplicates: 2 * time.Minute,
		})
	}
	if err != nil {
		shutdown()
		return nil, nil, err
	}
	return js, shutdown, nil
}

// An output writes messages to JetStream. It is safe for concurrent use.
type output struct{ js jetstream.JetStream }

// Connect implements service.Output.
func (*output) Connect(context.Context) error { return nil }

// Write implements service.Output: it returns nil once the message is synced.
func (o *output) Write(ctx context.Context, m *service.Message) error {
	body, err := m.AsBytes()
	if err != nil {
		return err
	}
	id, ok := m.MetaGet("id")
	if !ok {
		return errors.New("the callback has no message id")
	}
	_, err = o.js.Publish(ctx, "events", body, jetstream.WithMsgID(id))
	return err
}

// Close implements service.Output.
func (*output) Close(context.Context) error { return nil }
