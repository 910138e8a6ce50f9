package callback

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile returns bodies of about size bytes that are made to be expensive.
func hostile(size int) map[string]string {
	fill := func(prefix, unit, suffix string) string {
		n := max(1, (size-len(prefix)-len(suffix))/len(unit))
		return prefix + strings.TrimSuffix(strings.Repeat(unit, n), ",") + suffix
	}
	numbered := func(prefix, unit, suffix string) string {
		var b strings.Builder
		b.WriteString(prefix)
		for i := 0; b.Len() < size-len(suffix); i++ {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, unit, i)
		}
		return b.String() + suffix
	}
	const message = `{"data":{"messageId":"m","type":%d,"payload":`
	return map[string]string{
		"brackets":            fill("", "[", ""),
		"nested":              fill("[", strings.Repeat("[", 63)+strings.Repeat("]", 63)+",", "]"),
		"zeros":               fill("[", "0,", "]"),
		"empty objects":       fill("[", "{},", "]"),
		"empty strings":       fill("[", `"",`, "]"),
		"numbers":             fill("[", "-1.5e-7,", "]"),
		"names":               numbered("{", `"%d":0`, "}"),
		"objects":             numbered("{", `"%d":{}`, "}"),
		"small objects":       fill("[", `{"a":0,"b":[1,2],"c":"d"},`, "]"),
		"one name":            fill("{", `"a":0,`, "}"),
		"odd names":           numbered("{", `"\t%d":0`, "}"),
		"names of one length": numbered("{", `"aaaaaaaa%08dbbbbbbbb":0`, "}"),
		"suspects":            fill("[", "["+strings.Repeat(`{"\t":0},`, 1<<10)+"0],", "]"),
		"tokens":              fill("{", `"token":1,`, "}"),
		"nested tokens":       fill(`{"a":{`, `"token":"t",`, "}}"),
		"token lists":         fill(`{"token":[`, `1,`, "]}"),
		"one string":          fill(`{"a":"`, "x", `"}`),
		"one Chinese string":  fill(`{"a":"`, "值", `"}`),
		"one escaped string":  fill(`{"a":"`, `\u503c`, `"}`),
		"surrogates":          fill(`{"a":"`, `\ud83d\ude0a`, `"}`),
		"lone surrogates":     fill(`{"a":"`, `\ud83d`, `"}`),
		"broken UTF-8":        fill(`{"a":"`, "\xff", `"}`),
		"one name, long":      fill(`{"`, "x", `":1}`),
		"digits":              fill(`{"data":{"messageId":"m","type":7,"timestamp":`, "1", `}}`),
		"digits in quotes":    fill(`{"data":{"messageId":"m","type":7,"timestamp":"`, "1", `"}}`),
		"fraction":            fill(`{"data":{"messageId":"m","type":8,"payload":{"latitude":0.`, "1", `}}}`),
		"exponent":            fill(`{"data":{"messageId":"m","type":8,"payload":{"latitude":1e`, "9", `}}}`),
		"digits, unknown":     fill(`{"a":`, "1", `}`),
		"spaces":              fill("", " ", ""),
		"spaces around":       fill("[", " ", "1]"),
		"unknown fields":      numbered(fmt.Sprintf(message, 6)+`{`, `"%d":0`, "}}}"),
		"unknown objects":     numbered(fmt.Sprintf(message, 6)+`{`, `"%d":{"a":[]}`, "}}}"),
		"wrong types":         fill(fmt.Sprintf(message, 7)+`{"mention":[`, "{},", "]}}}"),
		"mentions":            fill(fmt.Sprintf(message, 7)+`{"mention":[`, `"@all",`, "]}}}"),
		"members":             fill(fmt.Sprintf(message, 10001)+`{"wechatSystemPayloadType":0,"subPayload":{"inviteeList":[`, `{"wxid":"w"},`, "]}}}}"),
		"member names":        fill(fmt.Sprintf(message, 10001)+`{"wechatSystemPayloadType":0,"subPayload":{"inviteeList":[`, `"a",`, "]}}}}"),
		"unknown in members":  fill(fmt.Sprintf(message, 10001)+`{"wechatSystemPayloadType":0,"subPayload":{"inviteeList":[`, `{"x":1},`, "]}}}}"),
		"room members":        fill(`{"leftMembers":[`, `{"nickName":"n"},`, "]}"),
		"payload struct":      numbered(fmt.Sprintf(message, 15)+`{`, `"%d":0`, "}}}"),
		"follow-ups":          fill("[", `{"markFollowUpTimestamp":1},`, "]"),
		"wide follow-ups":     fill("[", `{"_id":"60aa0000000000000000bb01","chatId":"60aa00000000000000000c01","round":1,"userId":"u1","assignedTimestamp":1763365331101},`, "]"),
		"tags":                fill(`{"type":"add_external_contact","data":{"followUser":[`, `{"tags":[{}]},`, "]}}"),
		"odd names, long":     numbered("{", `"\t%0400d":0`, "}"),
		"odd names, unknown":  numbered(fmt.Sprintf(message, 6)+`{`, `"\t%0400d":0`, "}}}"),
		"one odd name":        fill(`{"\t`, "x", `":1}`),
		"one unknown name":    fill(fmt.Sprintf(message, 6)+`{"`, "x", `":1}}}`),
		"one broken name":     fill(`{"`, "\xff", `":1}`),
		"one broken, unknown": fill(fmt.Sprintf(message, 6)+`{"`, "\xff", `":1}}}`),
		"broken names":        numbered("{", "\"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff%d\":0", "}"),
		"broken strings":      fill("[", "\"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\",", "]"),
		"broken and deep":     fill(strings.Repeat("[", 20)+`"`, "\xff", `"`+strings.Repeat("]", 20)),
		"broken id with NUL":  fill(`{"messageId":"\u0000`, "\xff", `","type":7,"payload":{}}`),
		"broken type":         fill(`{"messageId":"m","type":"`, "\xff", `","payload":{}}`),
		"broken quote":        fill(fmt.Sprintf(message, 7)+`{"quoteMessage":{"content":{"text":"`, "\xff", `"}}}}}`),
		"escaped quote":       fill(fmt.Sprintf(message, 7)+`{"quoteMessage":{"content":"`, `\n`, `"}}}}`),
		"small strings":       fill(fmt.Sprintf(message, 7)+`{"mention":[`, `"\n12345678901",`, "]}}}"),
		"bools":               fill(fmt.Sprintf(message, 10001)+`{"wechatSystemPayloadType":0,"subPayload":{"inviteeList":[`, `{"isSelf":true,"wxid":"\u0041"},`, "]}}}}"),
		"follow users":        fill(`{"type":"add_external_contact","data":{"followUser":[`, `{"tags":[{"type":"\n"}]},`, "]}}"),
		"quotes, broken":      fill("", `"`, "x"),
		"token words, broken": fill("", `token `, ""),
		"token pairs, broken": fill("", `token:a,`, ""),
		"token tails, broken": fill("", `token"`, ""),
	}
}

// TestHostileMemory checks that no body makes Decode allocate more than ten
// times its size, a constant aside.
func TestHostileMemory(t *testing.T) {
	const constant = 40 << 10 // for what any body may need: messages, Structs of some values, a new scanner
	for _, size := range []int{4 << 10, 1 << 20} {
		bodies := hostile(size)
		for _, name := range slices.Sorted(maps.Keys(bodies)) {
			body := []byte(bodies[name])
			got, limit := allocated(func() { Decode(body) }), uint64(10*len(body)+constant)
			if got > limit {
				t.Errorf("%s: Decode of %d bytes allocates %d bytes (%.1f times), want at most %d", name, len(body), got, float64(got)/float64(len(body)), limit)
			}
			if testing.Verbose() {
				t.Logf("%-22s %8d bytes: %5.1f times", name, len(body), float64(got)/float64(len(body)))
			}
		}
	}
}

// allocated returns how many bytes f allocates, in the best of a few runs: the
// runtime allocates, too.
func allocated(f func()) uint64 {
	best := uint64(math.MaxUint64)
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		best = min(best, after.TotalAlloc-before.TotalAlloc)
	}
	return best
}

// TestHostileTime checks that no body takes time out of proportion: not ten
// times as long as the bare scan of one with as many tokens as its size allows.
// That finds what is not linear on any machine; how long a body takes is for
// BenchmarkHostile to say, where the aim is a millisecond for each 100 kB.
func TestHostileTime(t *testing.T) {
	const size = 256 << 10
	bodies := hostile(size)
	limit := 10 * fastest(0, func() { _ = scanTokens([]byte(bodies["zeros"]))() })
	for _, name := range slices.Sorted(maps.Keys(bodies)) {
		if took := fastest(limit, func() { Decode([]byte(bodies[name])) }); took > limit {
			t.Errorf("%s: Decode takes %v, want at most %v", name, took, limit)
		}
	}
}

// fastest returns how long f takes at best: the machine may be busy. It stops
// trying at the first run that is fast enough.
func fastest(enough time.Duration, f func()) time.Duration {
	best := time.Duration(math.MaxInt64)
	for try := 0; try < 20 && best > enough; try++ {
		start := time.Now()
		f()
		best = min(best, time.Since(start))
	}
	return best
}

// BenchmarkHostile is Decode of 1 MiB that is made to be expensive.
func BenchmarkHostile(b *testing.B) {
	bodies := hostile(1 << 20)
	for _, name := range slices.Sorted(maps.Keys(bodies)) {
		body := []byte(bodies[name])
		b.Run("body="+strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				Decode(body)
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N)/(float64(len(body))/1e5), "ms/100kB")
		})
	}
}

// TestHostileResults is what becomes of bodies that are too wide or too deep:
// nothing is lost from raw, and what is typed stays typed.
func TestHostileResults(t *testing.T) {
	const message = `{"data":{"messageId":"m","type":6,"payload":{"imageUrl":"u"},"x":%s,"chatId":"c"}}`
	wide := "[" + strings.Repeat("0,", 2000) + "0]"
	deep := strings.Repeat("[", 20) + strings.Repeat("]", 20)
	at16 := strings.Repeat("[", 16) + strings.Repeat("]", 16)
	at17 := strings.Repeat("[", 17) + strings.Repeat("]", 17)
	tests := []struct{ name, body, want string }{
		{
			"a wide field", fmt.Sprintf(message, wide),
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","chatId":"c","type":6,"image":{"url":"u"}},
			  "anomalies":["UNKNOWN_FIELD","VALUE_AS_TEXT"],"unmapped":{"data.x":"` + wide + `"}}`,
		},
		{
			"a deep field", fmt.Sprintf(message, `{"a":`+deep+`}`),
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","chatId":"c","type":6,"image":{"url":"u"}},
			  "anomalies":["UNKNOWN_FIELD","VALUE_AS_TEXT"],"unmapped":{"data.x":{"a":` + strings.Repeat("[", 15) + `"[[[[[]]]]]"` + strings.Repeat("]", 15) + `}}}`,
		},
		{
			"as deep as can be", fmt.Sprintf(message, at16),
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","chatId":"c","type":6,"image":{"url":"u"}},
			  "anomalies":["UNKNOWN_FIELD"],"unmapped":{"data.x":` + at16 + `}}`,
		},
		{
			"a level deeper", fmt.Sprintf(message, at17),
			`{"dialect":"DIALECT_GROUP","message":{"messageId":"m","chatId":"c","type":6,"image":{"url":"u"}},
			  "anomalies":["UNKNOWN_FIELD","VALUE_AS_TEXT"],"unmapped":{"data.x":` + strings.Repeat("[", 16) + `"[]"` + strings.Repeat("]", 16) + `}}`,
		},
		{
			"other, too wide in one place", `{"a":1,"b":` + wide + `,"c":{"d":2}}`,
			`{"anomalies":["VALUE_AS_TEXT"],"other":{"fields":{"a":1,"b":"` + wide + `","c":{"d":2}}}}`,
		},
		{
			"other, too wide", wide, `{"anomalies":["VALUE_AS_TEXT"],"other":{"value":"` + wide + `"}}`,
		},
		{
			"tokens inside", `{"a":[` + strings.Repeat(`{"token":"SECRET"},`, 500) + `0]}`,
			`{"anomalies":["NESTED_TOKEN","VALUE_AS_TEXT"],"other":{"fields":{"a":"[` + strings.Repeat(`{\"token\":\"\"},`, 500) + `0]"}}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if cb := Decode([]byte(tt.body)); !bytes.Equal(cb.GetRaw(), []byte(strings.ReplaceAll(tt.body, "SECRET", ""))) {
				t.Error("raw is not the body without its tokens")
			}
			wantEvent(t, tt.name, one(t, tt.body), tt.want)
		})
	}
}

// TestUnmappedIsBounded checks that unknown fields beyond what a body of the
// vendor's can have are left to raw, and noted.
func TestUnmappedIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"data":{"messageId":"m","type":7,"text":"`)
	b.WriteString(strings.Repeat("x", 20_000)) // room on the tape
	b.WriteString(`"`)
	for i := range 1000 {
		fmt.Fprintf(&b, `,"x%d":1`, i)
	}
	e := one(t, b.String()+"}}")
	if n := len(e.GetUnmapped().GetFields()); n < 100 || n > 900 || !slices.Contains(e.GetAnomalies(), UnmappedTruncated) {
		t.Errorf("%d unmapped fields, anomalies %v, want some hundreds and %s", n, e.GetAnomalies(), UnmappedTruncated)
	}
}
