package group

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
)

// fixed are the fields of a group that cannot be changed.
var fixed = []string{"name", "start", "create_time", "update_time", "pause_reason"}

// policies are the fields of a group that can be changed field by field.
var policies = []protoreflect.Name{"lease", "retry", "turn", "limits"}

// update returns the group with what a request changes, defaults not filled in.
// One that the server has paused goes on when it is resumed, or has another filter.
func update(is *sluicev1.ConsumerGroup, req *sluicev1.UpdateConsumerGroupRequest) (*sluicev1.ConsumerGroup, error) {
	group, err := edit(is, req)
	if err != nil || !held(is) {
		return group, err
	}
	if !proto.Equal(orNew(group.GetFilter()), orNew(is.GetFilter())) {
		group.Paused = req.GetConsumerGroup().GetPaused()
	} else if group.GetPaused() {
		return group, nil
	}
	group.PauseReason = sluicev1.PauseReason_PAUSE_REASON_UNSPECIFIED
	return group, nil
}

// edit returns the group with the fields of a request.
func edit(is *sluicev1.ConsumerGroup, req *sluicev1.UpdateConsumerGroupRequest) (*sluicev1.ConsumerGroup, error) {
	from := req.GetConsumerGroup()
	group := proto.CloneOf(is)
	unsetDerived(group)
	if len(req.GetUpdateMask().GetPaths()) == 0 {
		switch {
		case from.GetName() != "" && from.GetName() != is.GetName():
			return nil, apierror.InvalidField("consumer_group.name", "cannot be changed")
		case from.GetStart() != nil && !proto.Equal(from.GetStart(), is.GetStart()):
			return nil, apierror.InvalidField("consumer_group.start", "cannot be changed: seek moves a group")
		}
		for _, path := range setFields(from) {
			assign(group.ProtoReflect(), from.ProtoReflect(), path)
		}
		return group, nil
	}
	for _, path := range req.GetUpdateMask().GetPaths() {
		names := strings.Split(path, ".")
		if slices.Contains(fixed, names[0]) || !isField(group.ProtoReflect().Descriptor(), names) {
			return nil, apierror.InvalidField("update_mask", "names a field that there is not, or that cannot be changed")
		}
		assign(group.ProtoReflect(), from.ProtoReflect(), names)
	}
	return group, nil
}

// unsetDerived unsets what is as it would be by default, where that default
// follows from another field: it follows that field's new value, too.
func unsetDerived(g *sluicev1.ConsumerGroup) {
	if l := g.GetLease(); l.GetMaxTotal().AsDuration() == defaultMaxTotal(l) {
		l.MaxTotal = nil
	}
	if t := g.GetTurn(); t != nil && t.GetMaxWait().AsDuration() == defaultMaxWait(t) {
		t.MaxWait = nil
	}
}

// setFields returns the paths of the fields of g that are set and can be
// changed.
func setFields(g *sluicev1.ConsumerGroup) [][]string {
	var paths [][]string
	g.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(f.Name())
		switch {
		case slices.Contains(fixed, name):
		case slices.Contains(policies, f.Name()):
			v.Message().Range(func(inner protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
				paths = append(paths, []string{name, string(inner.Name())})
				return true
			})
		default:
			paths = append(paths, []string{name})
		}
		return true
	})
	return paths
}

// isField says whether path is a field of a group, or of a policy or filter in
// it.
func isField(d protoreflect.MessageDescriptor, path []string) bool {
	f := d.Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case f == nil:
		return false
	case len(path) == 1:
		return true
	}
	inner := f.Message()
	return len(path) == 2 && inner != nil && inner.ParentFile().Package() == "sluice.v1" &&
		inner.Fields().ByName(protoreflect.Name(path[1])) != nil
}

// assign sets the field at path of to as it is in from.
func assign(to, from protoreflect.Message, path []string) {
	f := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	switch {
	case len(path) > 1:
		if from.Has(f) || to.Has(f) {
			assign(to.Mutable(f).Message(), from.Get(f).Message(), path[1:])
		}
	case from.Has(f):
		to.Set(f, from.Get(f))
	default:
		to.Clear(f)
	}
}
