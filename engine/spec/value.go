package spec

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// times are times in a list, or a single one.
type times struct{ into *[]time.Time }

func (v times) read(r *reader, field string, s scalar) { *v.into = readList[time.Time](r, field, s) }

func (v times) text() string {
	var all []string
	for _, t := range slices.SortedFunc(slices.Values(*v.into), time.Time.Compare) {
		all = append(all, timeText(t))
	}
	return strings.Join(all, ", ")
}

// texts are texts in a list, or a single one.
type texts struct{ into *[]string }

func (v texts) read(r *reader, field string, s scalar) { *v.into = readList[string](r, field, s) }

func (v texts) text() string {
	return strings.Join(slices.Sorted(slices.Values(*v.into)), ", ")
}

// readList reads the items of a list, or the value itself if it is none. If an item
// is wrong, so is the field.
func readList[T string | time.Time](r *reader, field string, s scalar) (all []T) {
	list, ok := s.node.(*ast.SequenceNode)
	if !ok {
		var item T
		if r.readItem(entry{field, &item}, s) {
			all = append(all, item)
		}
		return all
	}
	lines := strings.Split(s.src.text, "\n")
	for i, node := range list.Values {
		var item T
		if !r.readItem(entry{itemPath(field, i), &item}, readScalar(s.src, lines, node)) {
			r.blamed[field] = true
		}
		all = append(all, item)
	}
	return all
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
