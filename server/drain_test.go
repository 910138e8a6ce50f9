package server_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/servertest"
)

// TestDrainEndsStreams holds that a subscription, over gRPC and in both forms
// over HTTP, is told and ended, and that the stop is clean although the clients
// stay connected.
func TestDrainEndsStreams(t *testing.T) {
	srv := servertest.Start(t)
	stream, err := sluicev1.NewEventServiceClient(srv.Conn()).Subscribe(t.Context(), &sluicev1.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := stream.Recv(); err != nil || res.GetOpened() == nil {
		t.Fatalf("Recv() = %v, %v, want opened", res, err)
	}
	lines := make(map[string]*bufio.Scanner)
	for _, accept := range []string{"", "text/event-stream"} {
		lines[accept] = subscribe(t, http.MethodGet, srv.HTTPURL()+"/v1/events:subscribe", accept, "")
		if !lines[accept].Scan() {
			t.Fatalf("Accept %q: no first line: %v", accept, lines[accept].Err())
		}
	}

	srv.Stop()

	var last *sluicev1.SubscribeResponse
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("Recv() = %v, want io.EOF at the end", err)
		}
		last = res
	}
	if last.GetGoingAway().GetReason() != "DRAINING" || last.GetCursor() == "" {
		t.Errorf("the last frame is %v, want going_away with a cursor", last)
	}
	for accept, lines := range lines {
		var text strings.Builder
		for lines.Scan() {
			text.WriteString(lines.Text())
		}
		if lines.Err() != nil || !strings.Contains(text.String(), "DRAINING") {
			t.Errorf("Accept %q ends with %v after %s, want DRAINING in it", accept, lines.Err(), text.String())
		}
	}
}

// TestDrainEndsForeignStreams holds the same for the streams of gRPC's own
// services, whose clients stay for ever.
func TestDrainEndsForeignStreams(t *testing.T) {
	srv := servertest.Start(t)
	health := watchHealth(t, srv, "")
	health.until(healthv1.HealthCheckResponse_SERVING)
	reflection, err := reflectionv1.NewServerReflectionClient(srv.Conn()).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := reflection.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := reflection.Recv(); err != nil {
		t.Fatal(err)
	}

	srv.Stop()

	for err = nil; err == nil; { // it may be told NOT_SERVING first
		_, err = health.stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("Watch() ends with %v, want %v", err, codes.Unavailable)
	}
	if _, err := reflection.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("ServerReflectionInfo() ends with %v, want %v", err, codes.Unavailable)
	}
}

// TestDrainFinishesCallback holds that a callback that has begun to arrive is
// taken, stored and answered, while nothing new gets in.
func TestDrainFinishesCallback(t *testing.T) {
	cfg := testConfig(t)
	srv := run(t, cfg)
	// The callback is under way once the server has asked for its body.
	conn := dial(t, srv.CallbackAddr())
	write(t, conn, fmt.Sprintf("POST /message HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+
		"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(callback)))
	answers := bufio.NewReader(conn)
	if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("answer %q, %v, want 100", line, err)
	}
	if _, err := answers.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	watch := watchAddr(t, srv.GRPCAddr())
	watch.until(healthv1.HealthCheckResponse_SERVING)

	srv.cancel()

	for { // until the drain has begun
		if res, err := watch.stream.Recv(); err != nil || res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			break
		}
	}
	if got := get(t, "http://"+srv.HTTPAddr()+"/readyz"); got.code != http.StatusServiceUnavailable || !strings.Contains(got.body, "stopping") {
		t.Errorf("/readyz = %d %s, want 503 while callbacks finish", got.code, got.body)
	}
	write(t, conn, callback)
	res, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatalf("the callback got no answer: %v", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("the callback got %d, want 200", res.StatusCode)
	}
	srv.wait(nil)

	again := run(t, cfg)
	if got := get(t, "http://"+again.HTTPAddr()+"/v1/events"); !strings.Contains(got.body, `"sequence"`) {
		t.Errorf("after a restart the log holds %s, want the callback", got.body)
	}
	again.stop(nil)
}

// watchAddr watches the health of a server without servertest.
func watchAddr(t *testing.T, addr string) healthWatch {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return healthWatch{t, stream}
}

// TestDrainTimeout holds that clients who do not let go are cut off in time, and
// that the log is closed in order all the same.
func TestDrainTimeout(t *testing.T) {
	cfg := testConfig(t)
	cfg.CommitTimeout, cfg.DrainTimeout = 500*time.Millisecond, 500*time.Millisecond
	srv := run(t, cfg)
	unread(t, srv)
	conn := dial(t, srv.CallbackAddr()) // a callback whose body never comes
	write(t, conn, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	srv.stop([]string{"callbacks: requests were cut at the drain timeout", "grpc: calls were cut at the drain timeout"})
	if took := time.Since(began); took > 2*cfg.DrainTimeout {
		t.Errorf("the drain took %v, want about %v", took, cfg.DrainTimeout)
	}
	if _, err := io.ReadAll(conn); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the callback's connection is still open: %v", err)
	}
	run(t, cfg).stop(nil) // the log was closed: it opens again
}

// unread opens a subscription that is not read, and returns when nothing more
// can be sent on it.
func unread(t *testing.T, srv running) {
	t.Helper()
	conn, err := grpc.NewClient(srv.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	long := strings.Replace(callback, "hello", strings.Repeat("x", 500<<10), 1) // more than HTTP/2 lets a stream have on its way
	if _, err := sluicev1.NewCallbackServiceClient(conn).ReceiveCallback(t.Context(), &sluicev1.ReceiveCallbackRequest{
		Callback: &sluicev1.Callback{Body: []byte(long)},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := sluicev1.NewEventServiceClient(conn).Subscribe(t.Context(), &sluicev1.SubscribeRequest{
		Start:      &sluicev1.Position{At: &sluicev1.Position_Anchor{Anchor: sluicev1.Anchor_ANCHOR_EARLIEST}},
		IncludeRaw: true,
	}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		if strings.Contains(get(t, "http://"+srv.HTTPAddr()+"/metrics").body, "\nsluice_subscription_events_total 1\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the event was not sent")
		}
	}
}

// TestRestart holds that what servertest restarts is the same gateway.
func TestRestart(t *testing.T) {
	srv := servertest.Start(t)
	srv.MustPost("/message", callback)
	before := srv.Config
	srv.Restart()
	if srv.Config.GRPCAddr != before.GRPCAddr || srv.Config.CallbackAddr != before.CallbackAddr {
		t.Errorf("after Restart the addresses are %s and %s, want %s and %s",
			srv.Config.GRPCAddr, srv.Config.CallbackAddr, before.GRPCAddr, before.CallbackAddr)
	}
	res, err := sluicev1.NewEventServiceClient(srv.Conn()).GetEvent(t.Context(), &sluicev1.GetEventRequest{Sequence: 1}, grpc.WaitForReady(true))
	if err != nil || res.GetEvent().GetSequence() != 1 {
		t.Errorf("after Restart GetEvent(1) = %v, %v", res, err)
	}
}
