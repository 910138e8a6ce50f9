package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluicegate/sluice/client"
	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// explain returns err, which came from the gateway, as something to act on: what
// is wrong in a few words, and what to do next.
func (g *gateway) explain(err error) error {
	if reason, facts := client.Reason(err); reason != sluicev1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		said := status.Convert(err).Message()
		if next := advice(reason, facts); next != "" {
			return fmt.Errorf("%s: %s", said, next)
		}
		return errors.New(said)
	}
	s, ok := status.FromError(err)
	switch code := s.Code(); {
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded:
		return fmt.Errorf("%s did not answer within %v: is the address right? Else allow more with --timeout", g.addr, g.timeout)
	case !ok:
		return err
	case code == codes.Unavailable:
		return g.unreachable(s.Message())
	case code == codes.Unimplemented:
		return fmt.Errorf("%s does not know the call: is --addr the gRPC address of a gateway as new as this program? (%s)", g.addr, s.Message())
	}
	return errors.New(s.Message())
}

// unreachable returns the error for a connection that could not be made. detail
// is what gRPC says of it.
func (g *gateway) unreachable(detail string) error {
	if _, inner, ok := strings.Cut(detail, `desc = "`); ok {
		detail = strings.TrimSuffix(strings.TrimPrefix(inner, "transport: "), `"`)
	}
	switch {
	case strings.Contains(detail, "handshake failed"):
		return fmt.Errorf("no TLS with %s: add --plaintext if it speaks none and the network between is trusted (%s)", g.addr, detail)
	case strings.Contains(detail, "server preface"):
		return fmt.Errorf("%s does not speak gRPC: --addr is the gateway's gRPC address, 9090 by default (%s)", g.addr, detail)
	}
	return fmt.Errorf("cannot reach %s: is `sluice serve` running there? Else say where with --addr (%s)", g.addr, detail)
}

// advice returns what to do about an error with this reason and these facts; ""
// when what the gateway says is enough.
func advice(reason sluicev1.ErrorReason, facts map[string]string) string {
	switch reason {
	case sluicev1.ErrorReason_ERROR_REASON_CALLBACK_NOT_ACCEPTED:
		return "the path (--path) names a source, and the body's token must be that source's; `sluice config check` shows them"
	case sluicev1.ErrorReason_ERROR_REASON_CALLBACK_TOO_LARGE:
		return "the gateway's max_body is " + facts["max_bytes"] + " bytes"
	case sluicev1.ErrorReason_ERROR_REASON_LOG_UNAVAILABLE:
		return "try again in a moment; nothing is lost by posting twice. The gateway's log says why"
	case sluicev1.ErrorReason_ERROR_REASON_LOG_FULL:
		return "free some disk, raise max_bytes or shorten max_age on the gateway, then try again"
	case sluicev1.ErrorReason_ERROR_REASON_DRAINING:
		return "try again once it has restarted"
	case sluicev1.ErrorReason_ERROR_REASON_INVALID_CURSOR:
		return "a cursor is copied whole from an event: `sluice events get SEQUENCE --json`"
	case sluicev1.ErrorReason_ERROR_REASON_CURSOR_OF_ANOTHER_LOG:
		return "start from a time or an end of this log instead, such as --from 10m or --from earliest"
	case sluicev1.ErrorReason_ERROR_REASON_CURSOR_AHEAD_OF_LOG:
		return "the log has lost events, or was replaced; start from a time or an end of it, such as --from 10m or --from earliest"
	case sluicev1.ErrorReason_ERROR_REASON_CURSOR_TOO_OLD:
		oldest := "the oldest event held"
		if first := facts["first_sequence"]; first != "" {
			oldest += ", " + first
		}
		return "start again with --from earliest, which is " + oldest + ", or pass over what is gone with `sluice tail --skip-gaps`"
	case sluicev1.ErrorReason_ERROR_REASON_EVENT_DAMAGED:
		return damagedAdvice(facts)
	case sluicev1.ErrorReason_ERROR_REASON_INVALID_FILTER, sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST:
		return "" // names the field
	case sluicev1.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN:
		return "list again from the first page"
	case sluicev1.ErrorReason_ERROR_REASON_EVENT_NOT_FOUND:
		return "it was removed, or is not written yet; `sluice events list` shows what there is"
	case sluicev1.ErrorReason_ERROR_REASON_QUARANTINE_ENTRY_NOT_FOUND:
		return "it was moved, discarded or removed; `sluice quarantine list` shows what there is"
	default:
		return groupAdvice(reason, facts)
	}
}

// damagedAdvice is advice about records that are stored and cannot be read.
func damagedAdvice(facts map[string]string) string {
	const all = "`sluice verify` shows all that is damaged"
	last, err := strconv.ParseUint(facts["last_sequence"], 10, 64)
	if facts["log"] != "EVENTS" || err != nil {
		return all
	}
	return fmt.Sprintf("read on behind it with --from %d, or with `sluice tail --skip-gaps`; %s", last+1, all)
}

// groupAdvice is advice about consumer groups.
func groupAdvice(reason sluicev1.ErrorReason, facts map[string]string) string {
	switch reason {
	case sluicev1.ErrorReason_ERROR_REASON_GROUP_NOT_FOUND:
		return "`sluice groups list` shows what there is, `sluice groups create` makes one"
	case sluicev1.ErrorReason_ERROR_REASON_GROUP_EXISTS:
		return "change it with `sluice groups update`, or delete it first"
	case sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_GROUPS:
		return "the gateway takes " + facts["max_groups"] + "; delete one that is not in use with `sluice groups delete`"
	case sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS:
		return "the gateway takes " + facts["max_streams"] + "; end some, or read as a consumer group: its members share one reader"
	case sluicev1.ErrorReason_ERROR_REASON_TOO_MANY_MEMBERS:
		return "the group takes " + facts["max_members"] + "; `sluice groups show` lists them. One member can work on many chats: raise its --concurrency instead"
	case sluicev1.ErrorReason_ERROR_REASON_EXPRESSION_TOO_EXPENSIVE:
		return "--kind, --type, --source, --chat and the other flags are looked at before --expr, and cost next to nothing: use them to leave less for it"
	case sluicev1.ErrorReason_ERROR_REASON_INVALID_LEASE:
		return "a lease is copied whole from its delivery"
	case sluicev1.ErrorReason_ERROR_REASON_LEASE_OF_ANOTHER_GROUP:
		return "settle it in the group that handed it out; if that was deleted, there is nothing to settle"
	case sluicev1.ErrorReason_ERROR_REASON_MEMBER_REPLACED:
		return "another worker runs under this name: give each its own --member, or leave it out"
	case sluicev1.ErrorReason_ERROR_REASON_MEMBER_SILENT:
		return "the line to the gateway was dead for a while; connect again"
	case sluicev1.ErrorReason_ERROR_REASON_SEEK_NOT_BY_CHAT:
		return "leave --chat-key out to move the whole group"
	case sluicev1.ErrorReason_ERROR_REASON_GROUP_HAS_NO_LEADER:
		return "try again in a moment. If it stays so, the gateways do not reach each other: their advertise_addr must be their gRPC address for the others"
	default:
		return ""
	}
}
