package verify_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
	"github.com/sluicegate/sluice/server/verify"
)

func open(tb testing.TB, how func(context.Context, local.Config) (*local.Engine, error), cfg local.Config) *local.Engine {
	tb.Helper()
	e, err := how(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func closeEngine(tb testing.TB, e *local.Engine) {
	tb.Helper()
	if err := e.Close(context.WithoutCancel(tb.Context())); err != nil {
		tb.Error(err)
	}
}

// TestRun has a log of each sort: with removed records, with some that are not
// what they should be, and an empty one.
func TestRun(t *testing.T) {
	e := open(t, local.Open, local.Config{Dir: t.TempDir()})
	defer closeEngine(t, e)
	logs := map[string]*eventlog.Log{}
	for _, name := range []string{verify.Events, verify.Quarantine, "GROUPS", "GROUP_1"} {
		l, err := e.Log(t.Context(), eventlog.LogConfig{Name: name, Deletes: true})
		if err != nil {
			t.Fatal(err)
		}
		logs[name] = l
	}
	put := func(name string, data []byte, err error) {
		t.Helper()
		if err == nil {
			_, err = logs[name].Append(t.Context(), eventlog.Record{Subject: "s", Data: data})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		data, err := record.Encode(event(i))
		put(verify.Events, data, err)
	}
	data, err := record.Encode(&sluicev1.Event{ChatKey: "c"})
	put(verify.Events, data, err)
	put(verify.Events, []byte{0xff}, nil)
	for range 6 {
		data, err := proto.Marshal(&sluicev1.QuarantineEntry{Source: "acme", Raw: []byte("[")})
		put(verify.Quarantine, data, err)
	}
	put(verify.Quarantine, []byte{0xff}, nil)
	for _, n := range []uint64{1, 3, 4} { // the first is gone as if it had never been
		if err := logs[verify.Quarantine].Delete(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	put("GROUP_1", []byte("any"), nil)

	var seen []string
	report, err := verify.Run(t.Context(), verify.Config{Engine: e, Event: func(id record.Identity) { seen = append(seen, id.MessageID) }})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 11 || seen[9] != "m-9" || seen[10] != "" {
		t.Errorf("events = %q", seen)
	}
	for _, l := range report.GetLogs() {
		if l.GetEpoch() == "" || (l.GetBytes() == 0) != (l.GetRecords() == 0) {
			t.Errorf("log %v has no epoch or a wrong size", l)
		}
		l.Epoch, l.Bytes, l.Problems = "", 0, cut(l.GetProblems())
	}
	want := &sluicev1.VerifyReport{Logs: []*sluicev1.VerifiedLog{
		{
			Name: "EVENTS", FirstSequence: 1, LastSequence: 12, Records: 12, Undecodable: 1,
			Problems: []string{"event 11 has no key", "record 12 cannot be decoded"},
		},
		{Name: "GROUPS", FirstSequence: 1},
		{Name: "GROUP_1", FirstSequence: 1, LastSequence: 1, Records: 1},
		{
			Name: "QUARANTINE", FirstSequence: 2, LastSequence: 7, Records: 4, Removed: 2, Undecodable: 1,
			Problems: []string{"record 7 cannot be decoded"},
		},
	}}
	if diff := cmp.Diff(want, report, protocmp.Transform()); diff != "" {
		t.Errorf("report differs (-want +got):\n%s", diff)
	}
}

// cut leaves of each problem what it says before the cause.
func cut(problems []string) []string {
	for i, p := range problems {
		for j, r := range p {
			if r == ':' {
				problems[i] = p[:j]
				break
			}
		}
	}
	return problems
}
