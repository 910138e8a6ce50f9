package eventlog

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// TestUnansweredPublishIsRepeated plays a leader that dies with a publish: the
// next one must get the same record under the same identity, and its answer
// counts.
func TestUnansweredPublishIsRepeated(t *testing.T) {
	e := openEngine(t, Config{Dir: t.TempDir(), Sync: SyncAlways, Logger: testLogger(t)})
	var ids []string
	_, err := runningNode(t, e).read.Subscribe("PLAYED.>", func(m *nats.Msg) {
		if ids = append(ids, m.Header.Get(server.JSMsgId)+" "+string(m.Data)); len(ids) == 1 {
			return
		}
		if err := m.Respond([]byte(`{"stream":"PLAYED","seq":7}`)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := runningNode(t, e).read.Flush(); err != nil {
		t.Fatal(err)
	}
	l := &Log{engine: e, cfg: LogConfig{Name: "PLAYED"}, grown: make(chan struct{})}
	if a := mustAppend(t, l, "id", "data"); a.Sequence != 7 {
		t.Errorf("Append = %+v, want sequence 7", a)
	}
	if len(ids) != 2 || ids[0] != "id data" || ids[1] != ids[0] {
		t.Errorf("published %q, want the same twice", ids)
	}
}
