package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	yamltoken "github.com/goccy/go-yaml/token"
)

// maxDepth is how deep an input may be nested.
const maxDepth = 100

// input is any value, as JSON.
type input struct{ into *json.RawMessage }

func (v input) read(r *reader, field string, s scalar) {
	if _, null := s.node.(*ast.NullNode); null {
		r.refuseValue(field, s, s.what)
		return
	}
	c := conversion{r, s.src, strings.Split(s.src.text, "\n")}
	if data, ok := c.append(nil, field, s.node, 0); ok {
		*v.into = data
	}
}

// text returns the value with the fields of mappings in order, so that two that are
// the same read the same.
func (v input) text() string {
	dec := json.NewDecoder(bytes.NewReader(*v.into))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return string(*v.into)
	}
	if value == nil {
		return ""
	}
	return string(encode(value))
}

// conversion makes JSON of a value of YAML, and notes where each scalar stands.
type conversion struct {
	r     *reader
	src   source
	lines []string
}

// append appends the value of a node. If it is none that JSON has, it reports that
// and returns false.
func (c conversion) append(b []byte, path string, node ast.Node, depth int) ([]byte, bool) {
	s := readScalar(c.src, c.lines, node)
	refuse := func(wrong string) ([]byte, bool) {
		c.r.refuseValue(path, s, wrong)
		return b, false
	}
	if depth > maxDepth {
		return refuse(fmt.Sprintf("nested more than %d deep: make it flatter", maxDepth))
	}
	switch n := node.(type) {
	case *ast.NullNode:
		return append(b, "null"...), true
	case *ast.BoolNode:
		return strconv.AppendBool(b, n.Value), true
	case *ast.IntegerNode:
		return appendNumber(b, n.GetToken().Value, n.Value), true
	case *ast.FloatNode:
		return appendNumber(b, n.GetToken().Value, n.Value), true
	case *ast.StringNode, *ast.LiteralNode:
		if number(n) {
			return append(b, s.text...), true
		}
		c.r.fields[path] = s
		return append(b, encode(s.text)...), true
	case *ast.InfinityNode, *ast.NanNode:
		return refuse("no number that JSON has: leave it out")
	case *ast.SequenceNode:
		return c.appendList(b, path, n, depth+1)
	}
	if mapping := mappingOf(node); mapping != nil {
		return c.appendMapping(b, path, mapping, depth+1)
	}
	return refuse(whatIs(node) + ": write it out")
}

func (c conversion) appendList(b []byte, path string, list *ast.SequenceNode, depth int) ([]byte, bool) {
	all := true
	b = append(b, '[')
	for i, node := range list.Values {
		if i > 0 {
			b = append(b, ',')
		}
		var ok bool
		b, ok = c.append(b, itemPath(path, i), node, depth)
		all = all && ok
	}
	return append(b, ']'), all
}

func (c conversion) appendMapping(b []byte, path string, mapping *ast.MappingNode, depth int) ([]byte, bool) {
	all, seen := true, map[string]bool{}
	b = append(b, '{')
	for i, pair := range mapping.Values {
		if i > 0 {
			b = append(b, ',')
		}
		key := pair.Key.GetToken().Value
		wrong := ""
		switch pair.Key.(type) {
		case *ast.MergeKeyNode, *ast.MappingKeyNode, *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
			wrong = "given a key that is no plain text: write it out"
		default:
			if seen[key] {
				wrong = "given " + quote(key) + " twice: remove one"
			}
		}
		if wrong != "" {
			line, column := nodePosition(pair.Key)
			c.r.refuseValue(path, scalar{at: c.src.position(line, column)}, wrong)
			all = false
			continue
		}
		seen[key] = true
		b = append(append(b, encode(key)...), ':')
		var ok bool
		b, ok = c.append(b, keyPath(path, key), pair.Value, depth)
		all = all && ok
	}
	return append(b, '}'), all
}

// number reports whether text without quotes is a number of JSON that the parser of
// YAML takes for text, such as 1e3, or one of many digits.
func number(node ast.Node) bool {
	token := node.GetToken()
	var n json.Number
	return token.Type == yamltoken.StringType && token.Value != "" && json.Unmarshal([]byte(token.Value), &n) == nil
}

// appendNumber appends a number as it is written, if JSON writes it so.
func appendNumber(b []byte, written string, value any) []byte {
	if json.Valid([]byte(written)) {
		return append(b, written...)
	}
	return append(b, encode(value)...)
}

// itemPath and keyPath return the path of what is in a list or mapping. Different
// places have different paths.
func itemPath(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func keyPath(path, key string) string {
	if plainKey(key) {
		return path + "." + key
	}
	return path + "[" + quote(key) + "]"
}

func plainKey(key string) bool {
	for i, c := range key {
		letter := c == '_' || c == '-' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return key != ""
}
