package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/descriptorpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
)

func TestExplain(t *testing.T) {
	tests := map[string]struct {
		err  error
		want []string // substrings
		not  string
	}{
		"refused": {
			err:  status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:9090: connect: connection refused"`),
			want: []string{"cannot reach gw:9090", "`sluice serve`", "--addr", "dial tcp 127.0.0.1:9090: connect: connection refused)"},
			not:  "desc",
		},
		"no TLS": {
			err:  status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: first record does not look like a TLS handshake"`),
			want: []string{"gw:9090", "--plaintext"},
		},
		"not gRPC": {
			err:  status.Error(codes.Unavailable, `connection error: desc = "error reading server preface: http2: frame too large"`),
			want: []string{"gw:9090", "9090 by default"},
		},
		"no answer":      {err: context.DeadlineExceeded, want: []string{"gw:9090", "10s", "--timeout"}},
		"late answer":    {err: status.Error(codes.DeadlineExceeded, "late"), want: []string{"gw:9090", "10s", "--timeout"}},
		"another server": {err: status.Error(codes.Unimplemented, "unknown service"), want: []string{"gw:9090", "--addr", "unknown service"}},
		"internal":       {err: status.Error(codes.Internal, "internal error"), want: []string{"internal error"}, not: "rpc error"},
		"a file":         {err: errors.New("open x: no such file"), want: []string{"open x: no such file"}},
		"too old": {
			err: &apierror.Error{
				Code: codes.OutOfRange, Reason: sluicev1.ErrorReason_ERROR_REASON_CURSOR_TOO_OLD,
				Message: "retention has passed the position", Metadata: map[string]string{"first_sequence": "100"},
			},
			want: []string{"retention has passed the position: start again with --from earliest", "100", "--skip-gaps"},
		},
		"a field": {
			err:  apierror.InvalidField("heartbeat_interval", "must be from 1s to 1h"),
			want: []string{"heartbeat_interval: must be from 1s to 1h"},
		},
	}
	g := &gateway{addr: "gw:9090", timeout: 10 * time.Second}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := g.explain(tt.err).Error()
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("explain = %q, want it to mention %q", got, want)
				}
			}
			if tt.not != "" && strings.Contains(got, tt.not) {
				t.Errorf("explain = %q, want no %q in it", got, tt.not)
			}
		})
	}
}

// TestAdviceForgetsNothing fails for a reason that nobody thought about.
func TestAdviceForgetsNothing(t *testing.T) {
	enough := map[sluicev1.ErrorReason]bool{ // what the gateway says names the field
		sluicev1.ErrorReason_ERROR_REASON_UNSPECIFIED:     true,
		sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER:  true,
		sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST: true,
	}
	for n, name := range sluicev1.ErrorReason_name {
		reason := sluicev1.ErrorReason(n)
		options, _ := reason.Descriptor().Values().ByNumber(reason.Number()).Options().(*descriptorpb.EnumValueOptions)
		if options.GetDeprecated() {
			continue // not sent any more
		}
		if got := advice(reason, map[string]string{"max_bytes": "1"}); (got == "") != enough[reason] {
			t.Errorf("advice(%s) = %q", name, got)
		}
	}
}
