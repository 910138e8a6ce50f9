package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// Handle every new text that a customer writes, for as long as the program runs.
func Example() {
	c, err := client.Dial("127.0.0.1:9090")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	isSelf := false
	sub := c.Subscribe(client.SubscribeOptions{
		Name: "greeter",
		Filter: &sluicev1.EventFilter{
			MessageTypes: []sluicev1.MessageType{sluicev1.MessageType_MESSAGE_TYPE_TEXT},
			IsSelf:       &isSelf,
		},
	})
	for e, err := range sub.Events(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		m := e.GetMessage()
		fmt.Println(m.GetChatId(), m.GetText().GetText())
	}
}

// Go on where the program was before it was restarted. The cursor is stored
// after the event was handled: an event that was being handled when the program
// died comes again.
func ExampleSubscription_Cursor() {
	c, err := client.Dial("127.0.0.1:9090")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	const place = "cursor"
	start := client.Earliest() // the first time
	if stored, err := os.ReadFile(place); err == nil {
		start = client.Cursor(string(stored))
	}
	sub := c.Subscribe(client.SubscribeOptions{Start: start})
	for e, err := range sub.Events(context.Background()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.GetKey()) // handle it
		if err := os.WriteFile(place, []byte(e.GetCursor()), 0o600); err != nil {
			fmt.Println(err)
			return
		}
	}
}

// See what happens to the connection, and give up when there was none for a
// minute.
func ExampleSubscribeOptions() {
	c, err := client.Dial("127.0.0.1:9090")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	ctx, giveUp := context.WithCancelCause(context.Background())
	defer giveUp(nil)
	lost := time.Now()
	sub := c.Subscribe(client.SubscribeOptions{
		OnConnect: func(o *sluicev1.Opened) {
			lost = time.Time{}
			slog.Info("subscribed", "last_sequence", o.GetLastSequence())
		},
		OnDisconnect: func(err error, wait time.Duration) {
			slog.Warn("not subscribed", "err", err, "wait", wait)
			switch {
			case lost.IsZero():
				lost = time.Now()
			case time.Since(lost) > time.Minute:
				giveUp(err)
			}
		},
	})
	for e, err := range sub.Events(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.GetSequence())
	}
}

// Answer what customers write, once per turn: the group "bot" has turn.quiet set,
// so that a delivery holds all that a chat said until it fell quiet.
func ExampleClient_Consume() {
	c, err := client.Dial("127.0.0.1:9090")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	reply := func(_ context.Context, d *sluicev1.Delivery) error {
		for _, e := range d.GetEvents() {
			fmt.Println(e.GetChatKey(), e.GetMessage().GetText().GetText())
		}
		if time.Now().Hour() < 8 {
			return &client.NackError{Reason: "nobody is up", Delay: time.Hour}
		}
		return nil // done: it never comes again
	}
	err = c.Consume(ctx, "bot", reply, client.ConsumeOptions{
		OnUnsettled: func(d *sluicev1.Delivery, outcome sluicev1.Outcome) {
			slog.Warn("may come again", "sequence", d.GetEvents()[0].GetSequence(), "outcome", outcome)
		},
	})
	fmt.Println(err)
}

// Branch on the reason of an error, never on its text.
func ExampleReason() {
	c, err := client.Dial("127.0.0.1:9090")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	_, err = c.GetEvent(context.Background(), &sluicev1.GetEventRequest{Sequence: 42})
	switch reason, _ := client.Reason(err); {
	case reason == sluicev1.ErrorReason_ERROR_REASON_EVENT_NOT_FOUND:
		fmt.Println("it was removed")
	case err != nil:
		fmt.Println(err)
	}
}

// List the newest events of a conversation.
func ExampleClient_ListEvents() {
	c, err := client.Dial("127.0.0.1:9090")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	req := &sluicev1.ListEventsRequest{
		NewestFirst: true,
		Filter:      &sluicev1.EventFilter{ChatIds: []string{"60aa00000000000000000c01"}},
	}
	for e, err := range c.ListEvents(context.Background(), req) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.GetSequence(), e.GetReceiveTime().AsTime())
	}
}
