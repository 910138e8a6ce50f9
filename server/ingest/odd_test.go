package ingest

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/record"
)

// record.Odd looks for numbers without a name only in events that Sluice did
// not decode: in the others each of them is an anomaly.
func TestNumbersWithoutANameAreAnomalies(t *testing.T) {
	names, err := filepath.Glob(filepath.Join("..", "callback", "testdata", "corpus", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`\b[0-9]{1,5}\b`)
	unnamed := make(map[string]bool)
	for _, name := range names {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range number.FindAllIndex(body, -1) {
			edited := string(body[:at[0]]) + "98765" + string(body[at[1]:])
			for _, e := range callback.Decode([]byte(edited)).GetEvents() {
				for field := range record.UnnamedValues(e) {
					unnamed[field] = true
					if len(e.GetAnomalies()) == 0 {
						t.Errorf("%s: %s has a number without a name and no anomaly: %s", name, field, edited)
					}
				}
			}
		}
	}
	if len(unnamed) < 8 {
		t.Errorf("only %v had a number without a name: the corpus says nothing about the others", unnamed)
	}
}
