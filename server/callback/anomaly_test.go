package callback

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
)

// TestAnomalies has a body for each anomaly: the least that shows it, and what
// is nearest to it without.
func TestAnomalies(t *testing.T) {
	const message = `{"data":{"messageId":"m","type":6,%s}}`
	many := &strings.Builder{}
	for i := range 500 {
		fmt.Fprintf(many, `,"a longer name %d":0`, i)
	}
	tests := map[string]struct{ with, without string }{
		BOM:                {"\xef\xbb\xbf{}", "{}"},
		DottedName:         {`"payload":{"artwork.width":1}`, `"payload":{"artwork":{"width":1}}`},
		DuplicateName:      {`"chatId":"a","chatId":"a"`, `"chatId":"a","chatid":"a"`},
		InvalidUTF8:        {`"avatar":"\ud83d"`, `"avatar":"\ud83d\ude0a"`},
		ItemForList:        {`"type":7,"payload":{"mention":"a"}`, `"type":7,"payload":{"mention":["a"]}`},
		NestedToken:        {`"payload":{"token":"a"}`, `"token":"a","payload":{"tokens":"b"}`},
		NULInID:            {`"chatId":"\u0000"`, `"avatar":"\u0000"`},
		NumberForBool:      {`"isSelf":0`, `"isSelf":false`},
		NumberForString:    {`"chatId":0`, `"chatId":"0"`},
		NumberOutOfRange:   {`"source":2147483648`, `"source":2147483647`},
		PayloadWithoutType: {`"type":1e99,"payload":{"x":1}`, `"type":1e99,"payload":{}`},
		StringForBool:      {`"isSelf":"true"`, `"isSelf":""`},
		StringForNumber:    {`"source":"0"`, `"timestamp":"0"`},
		TabInName:          {`"chatId\t":"a"`, `"chatId":"a\t"`},
		TopicWithoutRoom:   {`"roomTopic":"t"`, `"roomTopic":"t","roomId":"r"`},
		UnknownEnum:        {`"contactType":4`, `"contactType":3`},
		UnknownField:       {`"x":0`, `"x":null`},
		UnmappedTruncated:  {`"avatar":"` + strings.Repeat("a", 10_000) + `"` + many.String(), `"x":0`},
		ValueAsText:        {`"x":` + strings.Repeat("[", 17) + strings.Repeat("]", 17), `"x":` + strings.Repeat("[", 16) + strings.Repeat("]", 16)},
		WrongType:          {`"chatId":true`, `"chatId":null`},
	}
	for _, anomaly := range Anomalies() {
		tt, ok := tests[anomaly]
		if !ok {
			t.Errorf("no body shows %s", anomaly)
			continue
		}
		if anomaly != BOM {
			tt.with, tt.without = fmt.Sprintf(message, tt.with), fmt.Sprintf(message, tt.without)
		}
		if got := one(t, tt.with).GetAnomalies(); !slices.Contains(got, anomaly) {
			t.Errorf("Decode(%.200s) has %v, want %s", tt.with, got, anomaly)
		}
		if got := one(t, tt.without).GetAnomalies(); slices.Contains(got, anomaly) {
			t.Errorf("Decode(%.200s) has %v, want no %s", tt.without, got, anomaly)
		}
	}
}

// TestClosedSets checks that the lists are what the source declares, sorted.
func TestClosedSets(t *testing.T) {
	source, err := os.ReadFile("anomaly.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ += "([A-Z0-9_]+)"$`).FindAllSubmatch(source, -1) {
		declared = append(declared, string(m[1]))
	}
	listed := append(Anomalies(), MalformedReasons()...)
	if !slices.IsSorted(Anomalies()) || !slices.IsSorted(MalformedReasons()) {
		t.Error("the lists are not sorted")
	}
	slices.Sort(declared)
	slices.Sort(listed)
	if !slices.Equal(declared, listed) {
		t.Errorf("listed %v, declared %v", listed, declared)
	}
}

// TestDecodeKeepsNothing checks that a Callback does not change when its body
// does, and that the body does not change at all.
func TestDecodeKeepsNothing(t *testing.T) {
	for name, body := range corpus(t) {
		given := bytes.Clone(body)
		cb := Decode(given)
		if !bytes.Equal(given, body) {
			t.Errorf("%s: Decode changed the body", name)
		}
		for i := range given {
			given[i] = 'x'
		}
		if !proto.Equal(cb, Decode(body)) {
			t.Errorf("%s: the callback changed with the body", name)
		}
	}
}

// TestDecodeConcurrently runs all bodies from several goroutines: the pooled
// scanners must not mix them up.
func TestDecodeConcurrently(t *testing.T) {
	bodies, want := corpus(t), map[string][]byte{}
	for name := range bodies {
		golden, err := os.ReadFile(filepath.Join("testdata", "golden", name))
		if err != nil {
			t.Fatal(err)
		}
		want[name] = golden
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for name, body := range bodies {
				if got := printed(t, Decode(body)); !bytes.Equal(got, want[name]) {
					t.Errorf("Decode(%s) differs when called concurrently", name)
				}
			}
		})
	}
	wg.Wait()
}
