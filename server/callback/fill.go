package callback

import (
	"slices"

	"google.golang.org/protobuf/proto"
)

// fill makes a message of the object v with set, which takes in one member.
// Without an object the message is empty.
func fill[T any](d *decoder, v int, set func(d *decoder, p *T, name string, v int)) *T {
	p := new(T)
	if d.object(v) {
		fillIn(d, p, v, set)
	}
	return p
}

// fillIn is fill for a message that is there already, and a value that is
// known to be an object.
func fillIn[T any](d *decoder, p *T, v int, set func(d *decoder, p *T, name string, v int)) {
	for name, m := range d.members(v) {
		set(d, p, name, m)
	}
}

// fillList sets dst to messages made of the objects in the list v with set.
func fillList[T any, M interface {
	*T
	proto.Message
}](d *decoder, dst *[]M, v int, set func(d *decoder, p *T, name string, v int)) {
	var list []M
	for i := range d.items(v) {
		if d.object(i) {
			list = append(list, fill(d, i, set))
		}
	}
	setList(d, dst, v, list)
}

// setList sets dst to what was made of the list v.
func setList[M proto.Message](d *decoder, dst *[]M, v int, list []M) {
	switch {
	case len(*dst) == 0:
		*dst = list
	case len(list) > 0 && !slices.EqualFunc(list, *dst, func(a, b M) bool { return proto.Equal(a, b) }):
		d.reject(v, DuplicateName)
	}
}
