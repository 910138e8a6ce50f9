package drift

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"golang.org/x/time/rate"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/eventlog"
	"github.com/sluicegate/sluice/server/eventlog/local"
	"github.com/sluicegate/sluice/server/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is a writer that hands on what is logged, a line at a time.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// next returns the next line.
func (l lines) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was logged")
		return ""
	}
}

func newLog(t *testing.T) *eventlog.Log {
	t.Helper()
	engine, err := local.Open(t.Context(), local.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	l, err := engine.Log(t.Context(), eventlog.LogConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendTo(t *testing.T, l *eventlog.Log, subject string, e *sluicev1.Event) {
	t.Helper()
	data, err := record.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: subject, Data: data}); err != nil {
		t.Fatal(err)
	}
}

func post(t *testing.T, l *eventlog.Log, path, body string) {
	t.Helper()
	e := event(t, 0, path, body)
	appendTo(t, l, record.Subject(e), e)
}

// run starts a service on log that ends with the test.
func run(t *testing.T, l *eventlog.Log) (*Service, lines, *prometheus.Registry) {
	t.Helper()
	said, registry := make(lines, 100), prometheus.NewRegistry() // more lines than any test makes
	s, err := New(Config{Log: l, Logger: slog.New(slog.NewTextHandler(said, nil)), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s, said, registry
}

func report(t *testing.T, s *Service) *sluicev1.GetDriftResponse {
	t.Helper()
	res, err := s.GetDrift(t.Context(), &sluicev1.GetDriftRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

const plain = `{"data":{"messageId":"1","type":7,"payload":{"text":"hello"}}}`

// TestServiceFollowsTheLog has a history, which is no news, and goes on with
// what comes.
func TestServiceFollowsTheLog(t *testing.T) {
	l := newLog(t)
	post(t, l, "/", plain)
	post(t, l, "/old", plain)
	post(t, l, "/", plain)
	s, said, registry := run(t, l)
	if line := said.next(t); !strings.Contains(line, "level=INFO") || !strings.Contains(line, "sequence=3 odd_events=1") {
		t.Errorf("line = %q", line)
	}
	res := report(t, s)
	if len(res.GetFindings()) != 1 || res.GetSequence() != 3 || !res.GetCaughtUp() || res.GetOddEvents() != 1 {
		t.Errorf("report = %v", res)
	}

	post(t, l, "/old", plain)
	post(t, l, "/", `{"data":{"messageId":"1","type":77,"payload":{},"mood":"geheim"}}`)
	first, second := said.next(t), said.next(t)
	if !strings.Contains(first, `level=WARN msg="the vendor sends something that the schema does not know" kind=ENUM_VALUE name=message.type sequence=5 number=77`) {
		t.Errorf("line = %q", first)
	}
	if !strings.Contains(second, `kind=FIELD name=data.mood sequence=5`) || strings.Contains(first+second, "geheim") {
		t.Errorf("line = %q", second)
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP sluice_drift_events_total Events since the start that held something that the schema does not know.
# TYPE sluice_drift_events_total counter
sluice_drift_events_total 2
# HELP sluice_drift_findings Things in the log that the schema does not know, by kind.
# TYPE sluice_drift_findings gauge
sluice_drift_findings{kind="ANOMALY"} 0
sluice_drift_findings{kind="ENUM_VALUE"} 1
sluice_drift_findings{kind="FIELD"} 1
sluice_drift_findings{kind="PATH"} 1
sluice_drift_findings{kind="SHAPE"} 0
`))
	if err != nil {
		t.Error(err)
	}

	// Another one comes to the same.
	again, said, _ := run(t, l)
	said.next(t)
	if got := report(t, again).GetFindings(); len(got) != 3 || got[2].GetCount() != 2 || got[2].GetName() != "/old" {
		t.Errorf("after a restart: %v", got)
	}
}

// TestServiceDecodesOnlyWhatIsOdd puts odd events under subjects that say that
// they are not, and under ones that say nothing.
func TestServiceDecodesOnlyWhatIsOdd(t *testing.T) {
	l := newLog(t)
	clean := record.Subject(event(t, 0, "/", plain))
	appendTo(t, l, clean, event(t, 0, "/hidden", plain))
	appendTo(t, l, strings.TrimSuffix(clean, ".plain"), event(t, 0, "/seen", plain))
	s, said, _ := run(t, l)
	said.next(t)
	if got := report(t, s).GetFindings(); len(got) != 1 || got[0].GetName() != "/seen" {
		t.Errorf("findings = %v, want /seen", got)
	}
}

// TestWarningsAreBounded makes more news than a minute has lines for.
func TestWarningsAreBounded(t *testing.T) {
	said := make(lines, 100) // more than are made
	s, err := New(Config{Log: newLog(t), Logger: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	f := follower{Service: s, warnings: rate.NewLimiter(0, warnBurst)}
	const more = 5
	for i := range uint64(warnBurst + more) {
		f.observe(event(t, i+1, fmt.Sprint("/", i), plain))
	}
	f.warnings = rate.NewLimiter(rate.Inf, 0)
	f.observe(event(t, 1000, "/late", plain))
	close(said)
	var all []string
	for line := range said {
		all = append(all, line)
	}
	if len(all) != warnBurst+1 || !strings.Contains(all[warnBurst], fmt.Sprint("lines_left_out=", more)) {
		t.Errorf("%d lines, want %d, the last of which tells of %d more: %q", len(all), warnBurst+1, more, all[len(all)-1])
	}
}

// TestGarbageIsPassedOver has a record that is no event before one that is.
func TestGarbageIsPassedOver(t *testing.T) {
	l := newLog(t)
	if _, err := l.Append(t.Context(), eventlog.Record{Subject: "s", Data: []byte{0xff}}); err != nil {
		t.Fatal(err)
	}
	post(t, l, "/new", plain)
	s, said, _ := run(t, l)
	if line := said.next(t); !strings.Contains(line, "level=WARN") || !strings.Contains(line, "sequence=1") {
		t.Errorf("line = %q", line)
	}
	said.next(t)
	if got := report(t, s).GetFindings(); len(got) != 1 {
		t.Errorf("findings = %v", got)
	}
}
