package callback

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// TestTokens is a credential in every spelling and place: what stays of the
// body, what is compared, and that nothing else holds it.
func TestTokens(t *testing.T) {
	tests := []struct {
		name, body, raw string
		tokens          []string
	}{
		{"top", `{"token":"SECRET","a":1}`, `{"token":"","a":1}`, []string{"SECRET"}},
		{"data", `{"data":{"a":1, "token" : "SECRET" }}`, `{"data":{"a":1, "token" : "" }}`, []string{"SECRET"}},
		{"message", `{"message":{"token":"SECRET"}}`, `{"message":{"token":""}}`, []string{"SECRET"}},
		{"item", `[{"token":"SECRET"},{"token":"SECRET2"}]`, `[{"token":""},{"token":""}]`, []string{"SECRET", "SECRET2"}},
		{"twice", `{"token":"SECRET","token":"SECRET2"}`, `{"token":"","token":""}`, []string{"SECRET", "SECRET2"}},
		{"two levels", `{"token":"SECRET","data":{"token":"SECRET2"}}`, `{"token":"","data":{"token":""}}`, []string{"SECRET", "SECRET2"}},
		{"escaped name", `{"tok\u0065n":"SECRET"}`, `{"tok\u0065n":""}`, []string{"SECRET"}},
		{"all escaped", `{"\u0074\u006F\u006b\u0065\u006E":"SECRET"}`, `{"\u0074\u006F\u006b\u0065\u006E":""}`, []string{"SECRET"}},
		{"upper case", `{"Token":"SECRET","TOKEN":"SECRET2"}`, `{"Token":"","TOKEN":""}`, []string{"SECRET", "SECRET2"}},
		{"tab", `{"token\t":"SECRET"}`, `{"token\t":""}`, []string{"SECRET"}},
		{"space", `{" token":"SECRET","\u00a0token\n":"SECRET2"}`, `{" token":"","\u00a0token\n":""}`, []string{"SECRET", "SECRET2"}},
		{"escaped value", `{"token":"S\u0045CRET"}`, `{"token":""}`, []string{"SECRET"}},
		{"number", `{"token":123456789,"a":[1]}`, `{"token":"","a":[1]}`, []string{"123456789"}},
		{"one digit", `{"token":1}`, `{"token":""}`, []string{"1"}},
		{"with a byte order mark", "\xef\xbb\xbf" + `{"token":"SECRET"}`, "\xef\xbb\xbf" + `{"token":""}`, []string{"SECRET"}},
		{"with broken UTF-8", "{\"token\":\"SECRET\",\"a\":\"\xff\"}", "{\"token\":\"\",\"a\":\"\xff\"}", []string{"SECRET"}},
		{"broken itself", "{\"token\":\"SEC\xff\"}", `{"token":""}`, []string{"SEC\ufffd"}},

		// Cut out, but not compared.
		{"in the payload", `{"data":{"messageId":"m","type":7,"payload":{"token":"SECRET"}}}`, `{"data":{"messageId":"m","type":7,"payload":{"token":""}}}`, nil},
		{"deep", `{"a":[{"b":{"token":"SECRET"}}]}`, `{"a":[{"b":{"token":""}}]}`, nil},
		{"an object", `{"token":{"a":"SECRET","b":[12345678,{"token":"SECRET2"}],"c":true}}`, `{"token":{"a":"","b":["",{"token":""}],"c":true}}`, nil},
		{"a list", `{"token":["SECRET","SECRET2"],"x":"y"}`, `{"token":["",""],"x":"y"}`, nil},

		// Nothing to cut.
		{"unset", `{"token":"","data":{"token":null}}`, `{"token":"","data":{"token":null}}`, nil},
		{"boolean", `{"token":true}`, `{"token":true}`, nil},
		{"other names", `{"tokens":"a","access_token":"b","toke":"c","tokén":"d"}`, `{"tokens":"a","access_token":"b","toke":"c","tokén":"d"}`, nil},
		{"a value", `{"a":"token"}`, `{"a":"token"}`, nil},

		// Not JSON: as far as it can be found.
		{"cut off", `{"token":"SECRET`, `{"token":"`, []string{"SECRET"}},
		{"cut off later", `{"token":"SECRET","a":`, `{"token":"","a":`, []string{"SECRET"}},
		{"with something after it", `{"token":"SECRET"} x`, `{"token":""} x`, []string{"SECRET"}},
		{"escaped name in broken JSON", `{"\ttok\u0065n\t":"SECRET"`, `{"\ttok\u0065n\t":""`, []string{"SECRET"}},
		{"escaped quotes in broken JSON", `{"token":"SEC\"RET",`, `{"token":"",`, []string{`SEC"RET`}},
		{"no quotes", `{token:SECRET,a:b}`, `{token:,a:b}`, []string{"SECRET"}},
		{"single quotes", `{'token':'SECRET'}`, `{'token':''}`, []string{"SECRET"}},
		{"a number in broken JSON", `{"token":12345678,}`, `{"token":,}`, []string{"12345678"}},
		{"a form", `a=b&token=SECRET&c=d`, `a=b&token=&c=d`, []string{"SECRET"}},
		{"JSON in a string", `{"a":"{\"token\":\"SECRET\",\"b\":1}"`, `{"a":"{\"token\":\"\",\"b\":1}"`, []string{"SECRET"}},
		{"a list in broken JSON", `{"token":["SECRET"`, `{"token":[""`, []string{"SECRET"}},
		{"too deep", strings.Repeat("[", 70) + `{"token":"SECRET"}`, strings.Repeat("[", 70) + `{"token":""}`, []string{"SECRET"}},
		{"null in broken JSON", `{"token":null,}`, `{"token":null,}`, nil},
		{"other names in broken JSON", `{"mytoken":"a","tokens":"b",`, `{"mytoken":"a","tokens":"b",`, nil},
		{"the word alone", `token`, `token`, nil},
		{"the word at the end", `"token":`, `"token":`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cb := Decode([]byte(tt.body))
			if got := string(cb.GetRaw()); got != tt.raw {
				t.Errorf("raw of %s = %s, want %s", tt.body, got, tt.raw)
			}
			if diff := cmp.Diff(tt.tokens, cb.GetTokens()); diff != "" {
				t.Errorf("tokens of %s, -want +got:\n%s", tt.body, diff)
			}
			cb.Tokens = nil
			if bytes.Contains(marshal(t, cb), []byte("SEC")) {
				t.Errorf("Decode(%s) still holds the token: %v", tt.body, cb)
			}
		})
	}
}

func TestNestedTokenIsNoted(t *testing.T) {
	for body, want := range map[string]bool{
		`{"token":"a"}`:          false,
		`{"data":{"token":"a"}}`: false,
		`{"a":{"token":""}}`:     true, // as it is once the value is cut out
		`{"a":{"token":"a"}}`:    true,
		`{"token":["a"]}`:        true,
		`{"token":true}`:         false,
	} {
		got := false
		for _, e := range Decode([]byte(body)).GetEvents() {
			got = got || strings.Contains(strings.Join(e.GetAnomalies(), " "), NestedToken)
		}
		if got != want {
			t.Errorf("Decode(%s) notes a nested token: %v, want %v", body, got, want)
		}
	}
}

func marshal(t *testing.T, cb *sluicev1.Callback) []byte {
	t.Helper()
	b, err := proto.Marshal(cb)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestScrub(t *testing.T) {
	const secret, numeric = "s3cr3t-/值", "1234567890"
	tests := []struct{ name, raw, want string }{
		{"clean", `{"a":"b","c":"s3cr3t"}`, `{"a":"b","c":"s3cr3t"}`},
		{"a value", `{"a":"x s3cr3t-/值 y"}`, `{"a":"x  y"}`},
		{"twice", `{"a":"s3cr3t-/值s3cr3t-/值"}`, `{"a":""}`},
		{"in itself", `{"a":"s3cr3s3cr3t-/值t-/值"}`, `{"a":""}`},
		{"escaped", `{"a":"\u0073\u0033cr3t-\/\u503c"}`, `{"a":""}`},
		{"a name", `{"s3cr3t-/值":1}`, `{"":1}`},
		{"deep", `[[{"a":["s3cr3t-/值"]}]]`, `[[{"a":[""]}]]`},
		{"a number", `{"a":1234567890,"b":-1.1234567890e5,"c":[12345678901]}`, `{"a":"","b":"","c":[""]}`},
		{"digits in a string", `{"a":"+1234567890"}`, `{"a":"+"}`},
		{"after an escaped quote", `{"a":"\"","b":"\\","c":"s3cr3t-/值"}`, `{"a":"\"","b":"\\","c":""}`},
		{"a message", `{"data":{"messageId":"m","type":7,"payload":{"text":"s3cr3t-/值"}}}`, `{"data":{"messageId":"m","type":7,"payload":{"text":""}}}`},
		{"not JSON", `{"a":"s3cr3t-/值 1234567890`, `{"a":" `},
		{"not JSON, escaped", `{"a" "\u0073\u0033cr3t-\/\u503c"`, `{"a" ""`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cb := Scrub([]byte(tt.raw), "short", "", secret, numeric)
			if got := string(cb.GetRaw()); got != tt.want {
				t.Errorf("Scrub(%s).raw = %s, want %s", tt.raw, got, tt.want)
			}
			if b := marshal(t, cb); bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(numeric)) {
				t.Errorf("Scrub(%s) still holds the secret: %v", tt.raw, cb)
			}
			want := Decode([]byte(tt.want))
			for _, e := range want.GetEvents() {
				if tt.want != tt.raw {
					e.Anomalies = append(e.GetAnomalies(), NestedToken)
				}
			}
			if !proto.Equal(cb, want) {
				t.Errorf("Scrub(%s) = %v, want Decode of what is left, %v", tt.raw, cb, want)
			}
		})
	}
}

// TestScrubOneOfSeveral checks that only the event that held the secret says
// so.
func TestScrubOneOfSeveral(t *testing.T) {
	cb := Scrub([]byte(`[{"_id":"1","assignedTimestamp":1},{"_id":"a-secret-b","assignedTimestamp":1}]`), "-secret-")
	var got [][]string
	for _, e := range cb.GetEvents() {
		got = append(got, e.GetAnomalies())
	}
	if diff := cmp.Diff([][]string{nil, {NestedToken}}, got); diff != "" {
		t.Errorf("anomalies, -want +got:\n%s", diff)
	}
}

// TestRaw checks that the corpus loses its tokens and nothing else.
func TestRaw(t *testing.T) {
	for name, body := range corpus(t) {
		cb := Decode(body)
		want := string(body)
		for _, token := range cb.GetTokens() {
			want = strings.Replace(want, `"token": "`+token+`"`, `"token": ""`, 1)
			want = strings.Replace(want, `"token":"`+token+`"`, `"token":""`, 1)
		}
		if strings.Contains(want, `"token"`) != bytes.Contains(body, []byte(`"token"`)) || strings.Count(string(body), `"token"`) != len(cb.GetTokens()) {
			t.Errorf("%s: %d tokens, want one for each member named so", name, len(cb.GetTokens()))
		}
		if got := string(cb.GetRaw()); got != want {
			t.Errorf("%s: raw = %s, want %s", name, got, want)
		}
	}
}
