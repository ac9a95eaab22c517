package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// times are times in a list, or a single one.
type times struct{ into *[]time.Time }

func (v times) read(r *reader, field string, s scalar) {
	var at []time.Time
	r.readList(field, s, func(item entry, s scalar) {
		var t time.Time
		if r.readItem(entry{item.name, &t}, s) {
			at = append(at, t)
		}
	})
	*v.into = at
}

func (v times) text() string {
	var all []string
	for _, t := range slices.SortedFunc(slices.Values(*v.into), time.Time.Compare) {
		all = append(all, timeText(t))
	}
	return strings.Join(all, ", ")
}

// texts are texts in a list, or a single one.
type texts struct{ into *[]string }

func (v texts) read(r *reader, field string, s scalar) {
	var all []string
	r.readList(field, s, func(item entry, s scalar) {
		var text string
		if r.readItem(entry{item.name, &text}, s) {
			all = append(all, text)
		}
	})
	*v.into = all
}

func (v texts) text() string {
	return strings.Join(slices.Sorted(slices.Values(*v.into)), ", ")
}

// readList calls each with every item of a list, or with the value itself if it is
// none.
func (r *reader) readList(field string, s scalar, each func(entry, scalar)) {
	list, ok := s.node.(*ast.SequenceNode)
	if !ok {
		each(entry{name: field}, s)
		return
	}
	lines := strings.Split(s.src.text, "\n")
	for i, node := range list.Values {
		each(entry{name: fmt.Sprintf("%s[%d]", field, i)}, readScalar(s.src, lines, node))
	}
}

// readItem reads one item of a list or mapping, and notes where it stands.
func (r *reader) readItem(item entry, s scalar) bool {
	r.fields[item.name] = s
	wrong := item.put(s)
	if wrong != "" {
		r.refuseValue(item.name, s, wrong)
	}
	return wrong == ""
}

// labels are texts by their names.
type labels struct{ into *map[string]string }

func (v labels) read(r *reader, field string, s scalar) {
	mapping := mappingOf(s.node)
	if mapping == nil {
		r.refuseValue(field, s, s.shown()+": give labels, such as {role: web}")
		return
	}
	lines := strings.Split(s.src.text, "\n")
	all := map[string]string{}
	for _, pair := range mapping.Values {
		key := pair.Key.GetToken().Value
		s := readScalar(s.src, lines, pair.Value)
		if _, twice := all[key]; twice {
			r.refuseValue(field, s, "given "+quote(key)+" twice: remove one")
			continue
		}
		var text string
		r.readItem(entry{field + "." + key, &text}, s)
		all[key] = text
	}
	*v.into = all
}

func (v labels) text() string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(*v.into)) {
		all = append(all, key+"="+(*v.into)[key])
	}
	return strings.Join(all, ", ")
}

// goal is when a broadcast succeeds: a word or a number.
type goal struct{ into *string }

func (v goal) read(r *reader, field string, s scalar) {
	if n, ok := s.node.(*ast.IntegerNode); ok {
		*v.into = n.GetToken().Value
		return
	}
	r.readWord(v.into, field, s, goalAdvice)
}

func (v goal) text() string { return *v.into }

const goalAdvice = "use all, quorum, any or a number of parts from 1"
