package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// subscribe passes the frames of a subscription to each, over a connection of
// its own, until that returns false or the subscription has reached its stop.
func (s *server) subscribe(ctx context.Context, req *sluicev1.SubscribeRequest, each func(*sluicev1.SubscribeResponse) bool) error {
	conn, err := grpc.NewClient(s.grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()                 // it was only read from
	req.HeartbeatInterval = durationpb.New(time.Second) // a frame at least this often, so that each learns when to end
	stream, err := sluicev1.NewEventServiceClient(conn).Subscribe(ctx, req)
	if err != nil {
		return err
	}
	for {
		frame, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("subscribe: %w", err)
		case !each(frame):
			return nil
		}
	}
}

// read returns how many events a subscription brings, at least until it has
// brought enough, with a client that decodes them.
func (s *server) read(ctx context.Context, req *sluicev1.SubscribeRequest, enough int) (got int, err error) {
	err = s.subscribe(ctx, req, func(f *sluicev1.SubscribeResponse) bool {
		got += len(f.GetEvents().GetEvents())
		return got < enough
	})
	return got, err
}

// readRaw is read with a client that only counts: it takes next to no processor
// time from the server beside it.
func (s *server) readRaw(ctx context.Context, req *sluicev1.SubscribeRequest, enough int) (got int, err error) {
	conn, err := grpc.NewClient(s.grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // it was only read from
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, sluicev1.EventService_Subscribe_FullMethodName, grpc.ForceCodec(bytesCodec{}))
	if err != nil {
		return 0, err
	}
	message, err := proto.Marshal(req)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(stream.SendMsg(&message), stream.CloseSend()); err != nil {
		return 0, err
	}
	for got < enough {
		var frame []byte
		if err := stream.RecvMsg(&frame); err != nil {
			return got, fmt.Errorf("subscribe: %w", err)
		}
		n, err := eventsIn(frame)
		if err != nil {
			return got, err
		}
		got += n
	}
	return got, nil
}

// eventsIn counts the events of an encoded SubscribeResponse.
func eventsIn(frame []byte) (n int, err error) {
	batch := (&sluicev1.SubscribeResponse{}).ProtoReflect().Descriptor().Fields().ByName("events").Number()
	one := (&sluicev1.EventBatch{}).ProtoReflect().Descriptor().Fields().ByName("events").Number()
	err = fields(frame, batch, func(events []byte) error {
		return fields(events, one, func([]byte) error {
			n++
			return nil
		})
	})
	return n, err
}

// fields passes the contents of each field of that number to visit.
func fields(message []byte, number protowire.Number, visit func([]byte) error) error {
	for len(message) > 0 {
		got, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		n = protowire.ConsumeFieldValue(got, kind, message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if got == number && kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(message)
			if err := visit(content); err != nil {
				return err
			}
		}
		message = message[n:]
	}
	return nil
}

// bytesCodec leaves messages as they are; a message is a *[]byte.
type bytesCodec struct{}

// Marshal implements encoding.Codec.
func (bytesCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("send a %T", v)
	}
	return *b, nil
}

// Unmarshal implements encoding.Codec.
func (bytesCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("receive into a %T", v)
	}
	*b = data
	return nil
}

// Name implements encoding.Codec: what is sent is what proto would have.
func (bytesCodec) Name() string { return "proto" }
