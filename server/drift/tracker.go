package drift

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/record"
)

const (
	// maxFindings bounds what a Tracker keeps: names are made up by whoever
	// posts. A finding takes about half a KiB.
	maxFindings = 1000

	// maxName is the longest name that is kept, in bytes.
	maxName = 256
)

// A Tracker gathers what events hold that the schema does not know. It does no
// I/O and has no clock. The zero value is ready to use. It is not safe for
// concurrent use.
type Tracker struct {
	findings map[identity]*sluicev1.DriftFinding
	expected map[string]struct{} // unmapped paths that are so on purpose; as many as the decoder has names for
	odd      uint64              // events that led to findings
	leftOff  uint64              // times that something had no room in findings
}

// An identity is what tells findings apart.
type identity struct {
	kind        sluicev1.DriftFinding_Kind
	name, where string
	number      string // of an enumeration
}

// Observe takes in an event of the log, each once and in order. It returns the
// findings that e is the first of; they are not to be changed.
func (t *Tracker) Observe(e *sluicev1.Event) []*sluicev1.DriftFinding {
	if t.findings == nil {
		t.findings, t.expected = make(map[identity]*sluicev1.DriftFinding), make(map[string]struct{})
	}
	o := observation{tracker: t, event: e}
	unnamed := false
	for path, n := range record.UnnamedValues(e) {
		number := strconv.Itoa(int(n))
		o.found(identity{sluicev1.DriftFinding_KIND_ENUM_VALUE, path, "", number}, number)
		unnamed = true
	}
	o.values(unnamed)
	if !record.KnownPath(e.GetPath()) {
		o.found(identity{sluicev1.DriftFinding_KIND_PATH, clip(e.GetPath()), "", ""}, "")
	}
	if other := e.GetOther(); other != nil {
		o.found(identity{sluicev1.DriftFinding_KIND_SHAPE, shape(other), clip(e.GetPath()), ""}, "")
	}
	if o.any {
		t.odd++
	}
	return o.fresh
}

// Report returns what was found, the one that came up last first.
func (t *Tracker) Report() []*sluicev1.DriftFinding {
	findings := make([]*sluicev1.DriftFinding, 0, len(t.findings))
	for _, f := range t.findings {
		findings = append(findings, proto.CloneOf(f))
	}
	slices.SortFunc(findings, func(a, b *sluicev1.DriftFinding) int {
		return cmp.Or(
			cmp.Compare(b.GetFirstSequence(), a.GetFirstSequence()), cmp.Compare(a.GetKind(), b.GetKind()),
			strings.Compare(a.GetName(), b.GetName()), strings.Compare(a.GetWhere(), b.GetWhere()),
			strings.Compare(a.GetExample(), b.GetExample()),
		)
	})
	return findings
}

// An observation is an event being taken in.
type observation struct {
	tracker *Tracker
	event   *sluicev1.Event
	any     bool // something was found
	fresh   []*sluicev1.DriftFinding
}

// found counts a finding, once for an event.
func (o *observation) found(id identity, example string) {
	o.any = true
	t, e := o.tracker, o.event
	f := t.findings[id]
	switch {
	case f == nil && len(t.findings) == maxFindings:
		t.leftOff++
		return
	case f == nil:
		f = &sluicev1.DriftFinding{
			Kind: id.kind, Name: id.name, Where: id.where, Example: example,
			FirstTime: e.GetReceiveTime(), FirstSequence: e.GetSequence(),
		}
		t.findings[id] = f
		o.fresh = append(o.fresh, f)
	case f.GetLastSequence() == e.GetSequence():
		return
	}
	f.Count++
	f.LastTime, f.LastSequence = e.GetReceiveTime(), e.GetSequence()
}

// rejections are the anomalies that put a value into unmapped.
var rejections = []string{
	callback.DuplicateName, callback.NULInID, callback.NumberOutOfRange, callback.PayloadWithoutType, callback.TopicWithoutRoom,
	callback.UnknownField, callback.ValueAsText, callback.WrongType,
}

// values takes in what is unmapped, and the anomalies. An event does not say
// which anomaly belongs to which value; but where only one of them can be the
// reason, it is. unnamed says that numbers without a name have been found.
func (o *observation) values(unnamed bool) {
	unmapped := make(map[string]*structpb.Value)
	for path, v := range o.event.GetUnmapped().GetFields() {
		if !o.tracker.onPurpose(path) {
			unmapped[index.ReplaceAllString(path, "[]")] = v
		}
	}
	reason := ""
	for _, anomaly := range o.event.GetAnomalies() {
		switch {
		case !slices.Contains(rejections, anomaly):
		case reason == "":
			reason = anomaly
		default:
			reason = callback.UnknownField // several: it is anybody's guess
		}
	}
	for path, v := range unmapped {
		id := identity{sluicev1.DriftFinding_KIND_FIELD, clip(path), "", ""}
		if reason != "" && reason != callback.UnknownField {
			id = identity{sluicev1.DriftFinding_KIND_ANOMALY, reason, clip(path), ""}
		}
		o.found(id, describe(v))
	}
	for _, anomaly := range o.event.GetAnomalies() {
		switch {
		case anomaly == callback.UnknownEnum && unnamed:
		case (anomaly == reason || anomaly == callback.UnknownField) && len(unmapped) > 0:
		default:
			o.found(identity{sluicev1.DriftFinding_KIND_ANOMALY, clip(anomaly), "", ""}, "")
		}
	}
}

// index matches the number of an item in a path.
var index = regexp.MustCompile(`\[\d+\]`)

// onPurpose reports whether a path is in unmapped because the decoder knows the
// field and has no place for it. It asks the decoder.
func (t *Tracker) onPurpose(path string) bool {
	if _, ok := t.expected[path]; ok {
		return true
	}
	name := strings.TrimPrefix(strings.TrimPrefix(path, "data."), "message.") // what can be an envelope
	quoted, err := json.Marshal(name)
	if err != nil || len(name) > maxName {
		return false
	}
	for _, e := range callback.Decode(fmt.Appendf(nil, `{"timestamp":1,"mentionSelf":true,%s:1}`, quoted)).GetEvents() {
		if len(e.GetAnomalies()) > 0 || e.GetUnmapped().GetFields()[name] == nil {
			return false
		}
	}
	t.expected[path] = struct{}{}
	return true
}

// describe returns what sort of value v is, and nothing of what it says.
func describe(v *structpb.Value) string {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return fmt.Sprintf("string of %d bytes", len(k.StringValue))
	case *structpb.Value_NumberValue:
		return "number"
	case *structpb.Value_BoolValue:
		return "boolean"
	case *structpb.Value_StructValue:
		return fmt.Sprintf("object of %d members", len(k.StructValue.GetFields()))
	case *structpb.Value_ListValue:
		return fmt.Sprintf("list of %d items", len(k.ListValue.GetValues()))
	default:
		return "null"
	}
}

// shape returns the names of the members of a body, or what it is instead of an
// object.
func shape(other *sluicev1.OtherCallback) string {
	if other.GetFields() == nil {
		kind, _, _ := strings.Cut(describe(other.GetValue()), " ")
		return kind
	}
	return clip("{" + strings.Join(slices.Sorted(maps.Keys(other.GetFields().GetFields())), ", ") + "}")
}

// clip returns the beginning of a name that is too long to keep.
func clip(name string) string {
	if len(name) <= maxName {
		return name
	}
	const more = "…"
	return strings.ToValidUTF8(name[:maxName-len(more)], "") + more
}
