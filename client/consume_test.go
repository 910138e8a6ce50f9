package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

var errStop = errors.New("enough")

func ack(*sluicev1.Delivery) error { return nil }

// handler returns a Handler that needs no context.
func handler(do func(*sluicev1.Delivery) error) client.Handler {
	return func(_ context.Context, d *sluicev1.Delivery) error { return do(d) }
}

// shape is a settlement as text.
func shape(s *sluicev1.Settlement) string {
	switch v := s.GetVerdict().(type) {
	case *sluicev1.Settlement_Ack:
		return "ack " + s.GetLease()
	case *sluicev1.Settlement_Nack:
		return strings.TrimSpace(fmt.Sprintf("nack %s %s %v", s.GetLease(), v.Nack.GetReason(), v.Nack.GetDelay().AsDuration()))
	case *sluicev1.Settlement_Release:
		return fmt.Sprintf("release %s %v", s.GetLease(), v.Release.GetNotMe())
	case *sluicev1.Settlement_Park:
		return fmt.Sprintf("park %s %s", s.GetLease(), v.Park.GetReason())
	case *sluicev1.Settlement_Extend:
		return fmt.Sprintf("extend %s %v", s.GetLease(), v.Extend.GetBy().AsDuration())
	}
	return "nothing"
}

func shapes(items []*sluicev1.Settlement) []string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = shape(item)
	}
	return texts
}

func TestVerdicts(t *testing.T) {
	long := strings.Repeat("é", 200)
	tests := map[string]struct {
		err  error
		want string
	}{
		"nil":           {nil, "ack l"},
		"any error":     {errors.New("said: my secret"), "nack l the handler failed 0s"},
		"nack":          {&client.NackError{Reason: "busy"}, "nack l busy 0s"},
		"nack, wrapped": {fmt.Errorf("secret: %w", &client.NackError{Reason: "busy", Delay: time.Minute}), "nack l busy 1m0s"},
		"nack, absurd":  {&client.NackError{Reason: "\xff" + long, Delay: 1 << 62}, "nack l \ufffd" + long[:252] + " 24h0m0s"},
		"nack, before":  {&client.NackError{Delay: -1}, "nack l  0s"},
		"release":       {&client.ReleaseError{}, "release l false"},
		"not me":        {&client.ReleaseError{NotMe: true}, "release l true"},
		"park":          {&client.ParkError{Reason: "nonsense"}, "park l nonsense"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				c, _ := playGroup(t, func(p *peer) error {
					p.opened()
					p.deliver(delivery("l", "c", 1))
					item := p.verdicts(1)[0]
					if got := shape(item); got != tt.want {
						t.Errorf("verdict = %q, want %q", got, tt.want)
					}
					p.settled(done(item))
					stop(errStop)
					return p.serve()
				})
				err := c.Consume(ctx, "g", handler(func(*sluicev1.Delivery) error { return tt.err }), client.ConsumeOptions{
					OnUnsettled: func(_ *sluicev1.Delivery, o sluicev1.Outcome) { t.Errorf("unsettled: %v", o) },
				})
				if !errors.Is(err, errStop) {
					t.Errorf("Consume() = %v, want %v", err, errStop)
				}
			})
		})
	}
}

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var opens []*sluicev1.ConsumeOpen
		step := func(p *peer) error {
			opens = append(opens, p.open)
			return status.Error(codes.InvalidArgument, "no")
		}
		c, _ := playGroup(t, step)
		opts := client.ConsumeOptions{Member: "m", IncludeRaw: true, HeartbeatInterval: time.Second}
		for range 2 {
			if err := c.Consume(t.Context(), "g", handler(ack), opts); status.Code(err) != codes.InvalidArgument {
				t.Errorf("Consume() = %v, want INVALID_ARGUMENT", err)
			}
			opts = client.ConsumeOptions{}
		}
		want := &sluicev1.ConsumeOpen{ConsumerGroupId: "g", Member: "m", IncludeRaw: true, HeartbeatInterval: durationpb.New(time.Second)}
		if diff := cmp.Diff(want, opens[0], protocmp.Transform()); diff != "" {
			t.Errorf("open (-want +got):\n%s", diff)
		}
		if name := opens[1].GetMember(); !strings.Contains(name, fmt.Sprint(os.Getpid())) || len(name) > 128 {
			t.Errorf("member = %q, want one that names the process", name)
		}
	})
}

// TestChatsSideBySide: handlers run at once up to the bound, and those of a chat
// one after the other.
func TestChatsSideBySide(t *testing.T) {
	tests := map[string]struct {
		order       sluicev1.Order
		concurrency int
		want        time.Duration // for four deliveries of 1 s each, two of chat a
		firstAll    []string      // what begins at once
	}{
		"by chat":   {sluicev1.Order_ORDER_CHAT, 3, 2 * time.Second, []string{"1", "3", "4"}},
		"bounded":   {sluicev1.Order_ORDER_CHAT, 2, 2 * time.Second, []string{"1", "3"}},
		"one":       {sluicev1.Order_ORDER_CHAT, 1, 4 * time.Second, []string{"1"}},
		"no order":  {sluicev1.Order_ORDER_NONE, 4, time.Second, []string{"1", "2", "3", "4"}},
		"all order": {sluicev1.Order_ORDER_TOTAL, 4, 4 * time.Second, []string{"1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				c, script := playGroup(t, func(p *peer) error {
					p.opened()
					p.deliver(delivery("1", "a", 1), delivery("2", "a", 2), delivery("3", "b", 3), delivery("4", "c", 4))
					p.settled(done(p.verdicts(1)[0]))
					for range 3 {
						p.settled(done(p.verdicts(1)[0]))
					}
					stop(errStop)
					return p.serve()
				})
				script.group.Order = tt.order
				var mu sync.Mutex
				var begun []string
				begin := time.Now()
				_ = c.Consume(ctx, "g", handler(func(d *sluicev1.Delivery) error {
					mu.Lock()
					if time.Since(begin) == 0 {
						begun = append(begun, d.GetLease())
					}
					mu.Unlock()
					<-time.After(time.Second)
					return nil
				}), client.ConsumeOptions{Concurrency: tt.concurrency})
				slices.Sort(begun)
				if took := time.Since(begin); took != tt.want || !slices.Equal(begun, tt.firstAll) {
					t.Errorf("took %v and began %v at once, want %v and %v", took, begun, tt.want, tt.firstAll)
				}
			})
		})
	}
}

// TestWhatFollowsAFailureGoesBack: of a chat, nothing is handled behind an event
// that failed.
func TestWhatFollowsAFailureGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		c, _ := playGroup(t, func(p *peer) error {
			p.opened()
			p.deliver(delivery("1", "a", 1), delivery("2", "a", 2))
			items := p.verdicts(2)
			if got, want := shapes(items), []string{"nack 1 no 0s", "release 2 false"}; !slices.Equal(got, want) {
				t.Errorf("verdicts = %q, want %q", got, want)
			}
			p.deliver(delivery("3", "a", 3)) // crossed the nack on the line
			synctest.Wait()
			p.settled(done(items[0]), result("2", sluicev1.Outcome_OUTCOME_LEASE_LOST))
			p.revoke("3")
			stop(errStop)
			return p.serve()
		})
		var handled []string
		_ = c.Consume(ctx, "g", handler(func(d *sluicev1.Delivery) error {
			handled = append(handled, d.GetLease())
			return &client.NackError{Reason: "no"}
		}), client.ConsumeOptions{OnUnsettled: func(d *sluicev1.Delivery, o sluicev1.Outcome) { t.Errorf("unsettled %s: %v", d.GetLease(), o) }})
		if handled[0] != "1" || slices.Contains(handled, "2") {
			t.Errorf("handled %q, want 1 alone, or 3 behind it once its verdict was stored", handled)
		}
	})
}

// TestCreditsCountDeliveries: a turn takes the place of one event.
func TestCreditsCountDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		c, _ := playGroup(t, func(p *peer) error {
			p.opened()
			want := func(when string, events uint32) {
				if got := p.credits(); got.GetEvents() != events || got.GetBytes() != 99 {
					t.Errorf("%s: credits = %v, want %d events and 99 bytes", when, got, events)
				}
			}
			want("at first", 5)
			p.deliver(delivery("1", "a", 1, 2, 3))
			want("with a turn", 7)
			p.settled(done(p.verdicts(1)[0]))
			want("after it", 5)
			stop(errStop)
			got := p.credits()
			if got.GetEvents() != 0 {
				t.Errorf("at the end: credits = %v, want none", got)
			}
			return p.serve()
		})
		_ = c.Consume(ctx, "g", handler(func(*sluicev1.Delivery) error {
			<-time.After(time.Second)
			return nil
		}), client.ConsumeOptions{Concurrency: 3, Prefetch: 2, MaxBytes: 99})
	})
}

// TestExtends: leases are extended at a third of their duration, for as long as
// their handlers run.
func TestExtends(t *testing.T) {
	for name, byServer := range map[string]bool{"by the member": false, "by the server": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				begin := time.Now()
				var got []string
				c, script := playGroup(t, func(p *peer) error {
					p.opened()
					p.deliver(delivery("l", "c", 1))
					for {
						item := p.verdicts(1)[0]
						got = append(got, fmt.Sprint(shape(item), time.Since(begin)))
						p.settled(done(item))
						if item.GetExtend() == nil {
							break
						}
					}
					stop(errStop)
					return p.serve()
				})
				script.group.Lease.ExtendWhileConnected = byServer
				_ = c.Consume(ctx, "g", handler(func(*sluicev1.Delivery) error {
					<-time.After(25 * time.Second)
					return nil
				}), client.ConsumeOptions{})
				want := []string{"extend l 0s10s", "extend l 0s20s", "ack l25s"}
				if byServer {
					want = want[2:]
				}
				if !slices.Equal(got, want) {
					t.Errorf("settlements = %q, want %q", got, want)
				}
			})
		})
	}
}

// TestLostLease: however the lease is lost, the handler is told, its verdict is
// not sent, and that is reported.
func TestLostLease(t *testing.T) {
	lost := errors.New("the connection is lost")
	tests := map[string][]func(*peer) error{
		"revoked": {func(p *peer) error {
			p.opened()
			p.deliver(delivery("l", "c", 1))
			synctest.Wait()
			p.revoke("l")
			return p.serve()
		}},
		"not extended": {func(p *peer) error {
			p.opened()
			p.deliver(delivery("l", "c", 1))
			p.verdicts(1)
			p.settled(result("l", sluicev1.Outcome_OUTCOME_LEASE_LOST))
			return p.serve()
		}},
		"not held after a break": {
			func(p *peer) error {
				p.opened()
				p.deliver(delivery("l", "c", 1))
				synctest.Wait()
				return lost
			},
			func(p *peer) error {
				p.opened()
				return p.serve()
			},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				c, script := playGroup(t, steps...)
				var reported []sluicev1.Outcome
				_ = c.Consume(ctx, "g", func(ctx context.Context, _ *sluicev1.Delivery) error {
					<-ctx.Done()
					if !errors.Is(context.Cause(ctx), client.ErrLeaseLost) {
						t.Errorf("cause = %v, want %v", context.Cause(ctx), client.ErrLeaseLost)
					}
					return ctx.Err()
				}, client.ConsumeOptions{OnUnsettled: func(_ *sluicev1.Delivery, o sluicev1.Outcome) {
					reported = append(reported, o)
					stop(errStop)
				}})
				if want := []sluicev1.Outcome{sluicev1.Outcome_OUTCOME_LEASE_LOST}; !slices.Equal(reported, want) {
					t.Errorf("reported %v, want %v", reported, want)
				}
				if len(script.settled) > 0 {
					t.Errorf("settled %v", script.settled)
				}
			})
		})
	}
}

// TestReconnect: handlers go on over a break, verdicts wait for the next stream,
// those whose outcome is unknown are sent again, and a delivery that was lost on
// the way is given back.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		c, _ := playGroup(t,
			func(p *peer) error {
				p.opened()
				p.deliver(delivery("quick", "a", 1), delivery("slow", "b", 2))
				p.verdicts(1) // and never answers
				return errLost
			},
			func(*peer) error { return errLost },
			func(p *peer) error {
				p.opened("slow", "unseen")
				items := p.verdicts(2)
				got := shapes(items)
				slices.Sort(got)
				if want := []string{"ack quick", "release unseen false"}; !slices.Equal(got, want) {
					t.Errorf("verdicts = %q, want %q", got, want)
				}
				p.settled(result("quick", sluicev1.Outcome_OUTCOME_ALREADY_DONE), result("unseen", sluicev1.Outcome_OUTCOME_DONE))
				for item := p.verdicts(1)[0]; ; item = p.verdicts(1)[0] {
					p.settled(done(item))
					if item.GetExtend() == nil {
						if shape(item) != "ack slow" {
							t.Errorf("verdict = %q, want that of slow", shape(item))
						}
						break
					}
				}
				stop(errStop)
				return p.serve()
			},
		)
		connects, disconnects := 0, 0
		err := c.Consume(ctx, "g", func(ctx context.Context, d *sluicev1.Delivery) error {
			if d.GetLease() == "slow" {
				<-time.After(time.Minute)
			}
			return ctx.Err()
		}, client.ConsumeOptions{
			OnConnect:    func(*sluicev1.ConsumeOpened) { connects++ },
			OnDisconnect: func(error, time.Duration) { disconnects++ },
			OnUnsettled:  func(d *sluicev1.Delivery, o sluicev1.Outcome) { t.Errorf("unsettled %s: %v", d.GetLease(), o) },
		})
		if !errors.Is(err, errStop) || connects != 2 || disconnects != 2 {
			t.Errorf("Consume() = %v after %d connects and %d disconnects, want %v after 2 and 2", err, connects, disconnects, errStop)
		}
	})
}

func TestOutcomes(t *testing.T) {
	for outcome, reported := range map[sluicev1.Outcome]bool{
		sluicev1.Outcome_OUTCOME_DONE:          false,
		sluicev1.Outcome_OUTCOME_ALREADY_DONE:  true,
		sluicev1.Outcome_OUTCOME_LEASE_LOST:    true,
		sluicev1.Outcome_OUTCOME_UNKNOWN_LEASE: true,
		sluicev1.Outcome_OUTCOME_RETRY:         false,
	} {
		t.Run(outcome.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				c, _ := playGroup(t, func(p *peer) error {
					p.opened()
					p.deliver(delivery("l", "c", 1))
					item := p.verdicts(1)[0]
					p.settled(result("l", outcome))
					if outcome == sluicev1.Outcome_OUTCOME_RETRY {
						if again := p.verdicts(1)[0]; shape(again) != shape(item) {
							t.Errorf("sent %q again, want %q", shape(again), shape(item))
						}
						p.settled(done(item))
					}
					stop(errStop)
					return p.serve()
				})
				var got []sluicev1.Outcome
				_ = c.Consume(ctx, "g", handler(ack), client.ConsumeOptions{
					OnUnsettled: func(_ *sluicev1.Delivery, o sluicev1.Outcome) { got = append(got, o) },
				})
				if (len(got) == 1 && got[0] == outcome) != reported || len(got) > 1 {
					t.Errorf("reported %v, want %v: %v", got, outcome, reported)
				}
			})
		})
	}
}

// TestDrain: when the context ends, what waits goes back at once, and handlers
// have their time.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		var got []string
		c, script := playGroup(t, func(p *peer) error {
			p.opened()
			p.deliver(delivery("done", "a", 1), delivery("behind", "a", 2), delivery("told", "b", 3))
			synctest.Wait()
			stop(errStop)
			begin := time.Now()
			for range 3 {
				item := p.verdicts(1)[0]
				got = append(got, fmt.Sprint(shape(item), " ", time.Since(begin)))
				p.settled(done(item))
			}
			return p.serve()
		})
		script.group.Lease.ExtendWhileConnected = true
		err := c.Consume(ctx, "g", func(ctx context.Context, d *sluicev1.Delivery) error {
			if d.GetLease() == "done" {
				<-time.After(3 * time.Second)
				return ctx.Err()
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}, client.ConsumeOptions{DrainTimeout: 4 * time.Second})
		if !errors.Is(err, errStop) {
			t.Errorf("Consume() = %v, want %v", err, errStop)
		}
		want := []string{"release behind false 0s", "ack done 3s", "release told false 4s"}
		if !slices.Equal(got, want) || len(script.settled) > 0 {
			t.Errorf("verdicts = %q and by call %v, want %q", got, script.settled, want)
		}
	})
}

// TestLeavesNothingBehind: a delivery that crosses the end on the line is given
// back by a call.
func TestLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		c, script := playGroup(t, func(p *peer) error {
			p.opened()
			p.credits()
			stop(errStop)
			for p.next() != nil {
			}
			p.deliver(delivery("late", "a", 1))
			return nil
		})
		_ = c.Consume(ctx, "g", handler(ack), client.ConsumeOptions{})
		if got := shapes(script.settled); !slices.Equal(got, []string{"release late false"}) {
			t.Errorf("settled by call: %q, want late released", got)
		}
	})
}

func TestErrorsThatEndConsume(t *testing.T) {
	for code := codes.OK + 1; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refused := status.Error(code, "no")
				ends := slices.Contains([]codes.Code{
					codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.NotFound,
					codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.DataLoss,
				}, code)
				wantEnd(t, refused, ends)
			})
		})
	}
	t.Run("replaced", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, err := status.New(codes.Aborted, "no").WithDetails(&errdetails.ErrorInfo{Domain: "sluice", Reason: "MEMBER_REPLACED"})
			if err != nil {
				t.Fatal(err)
			}
			wantEnd(t, s.Err(), true)
		})
	})
}

// wantEnd has the server end a stream with refused while a handler runs, which
// ends the member, or does not.
func wantEnd(t *testing.T, refused error, ends bool) {
	t.Helper()
	ctx, stop := context.WithCancelCause(t.Context())
	c, script := playGroup(t,
		func(p *peer) error {
			p.opened()
			p.deliver(delivery("l", "c", 1))
			synctest.Wait()
			return refused
		},
		func(p *peer) error {
			p.opened()
			stop(errStop)
			return p.serve()
		},
	)
	err := c.Consume(ctx, "g", func(ctx context.Context, _ *sluicev1.Delivery) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}, client.ConsumeOptions{})
	switch {
	case ends && (status.Code(err) != status.Code(refused) || script.streams != 1):
		t.Errorf("Consume() = %v after %d streams, want %v after 1", err, script.streams, refused)
	case !ends && (!errors.Is(err, errStop) || script.streams != 2):
		t.Errorf("Consume() = %v after %d streams, want %v after 2", err, script.streams, errStop)
	}
}

// TestSilence: each side gives signs of life, and one that misses three counts as
// gone.
func TestSilence(t *testing.T) {
	silent := func(p *peer) error {
		<-p.stream.Context().Done()
		return p.stream.Context().Err()
	}
	tests := map[string]struct {
		step func(*peer) error
		want time.Duration
	}{
		"nothing at all": {silent, 10 * time.Second},
		"after opened": {func(p *peer) error {
			p.opened()
			return silent(p)
		}, 3 * memberHeartbeat},
		"lively for a while": {func(p *peer) error {
			p.opened()
			for beats := 0; beats < 7; {
				if p.next().GetHeartbeat() != nil {
					p.beat()
					beats++
				}
			}
			return silent(p)
		}, (7 + 3) * memberHeartbeat},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := playGroup(t, tt.step)
				begin := time.Now()
				ctx, stop := context.WithCancelCause(t.Context())
				_ = c.Consume(ctx, "g", handler(ack), client.ConsumeOptions{OnDisconnect: func(err error, _ time.Duration) { stop(err) }})
				if took := time.Since(begin); took != tt.want {
					t.Errorf("gave up after %v (%v), want %v", took, context.Cause(ctx), tt.want)
				}
			})
		})
	}
}

// TestPanic: a panic of a handler ends the program, which this test runs as
// another process.
func TestPanic(t *testing.T) {
	const wanted = "the handler's own panic"
	if os.Getenv("SLUICE_TEST_PANIC") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanic$")
		cmd.Env = append(os.Environ(), "SLUICE_TEST_PANIC=1")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: "+wanted) {
			t.Errorf("the program ended with %v, want the panic:\n%s", err, out)
		}
		return
	}
	c, _ := playGroup(t, func(p *peer) error {
		p.opened()
		p.deliver(delivery("l", "c", 1))
		return p.serve()
	})
	_ = c.Consume(t.Context(), "g", handler(func(*sluicev1.Delivery) error { panic(wanted) }), client.ConsumeOptions{})
}
