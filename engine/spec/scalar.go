package spec

import (
	"errors"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// scalar is the value of a field as it stands in the file.
type scalar struct {
	text string   // "?" for what cannot be text
	what string   // what is wrong with its type, and what to do; empty if it is text
	key  position // of the field's name
	at   position // of the value
	// first is where the first character of the text stands, if every line of
	// the text stands in the file as it is; otherwise its line is 0.
	first position
	// node and src are what it was read from.
	node ast.Node
	src  source
}

// place returns where a place in the text stands in the file: lines from 1,
// columns from 0, as CEL counts.
func (s scalar) place(line, column int) position {
	if line == 0 || s.first.line == 0 {
		return s.at
	}
	return position{s.first.line + line - 1, s.first.column + max(column, 0)}
}

func readScalar(src source, lines []string, node ast.Node) scalar {
	line, column := nodePosition(node)
	s := scalar{at: src.position(line, column), node: node, src: src}
	switch n := node.(type) {
	case *ast.StringNode:
		s.text = n.Value
		if first := literalColumn(lines, line, column, n.Value); first > 0 {
			s.first = src.position(line, first)
		}
	case *ast.LiteralNode:
		s.text = n.Value.Value
		top, _, _ := strings.Cut(s.text, "\n")
		if first := blockColumn(lines, line+1, top); first > 0 && n.Start.Value[0] == '|' {
			s.first = src.position(line+1, first)
		}
	default:
		s.text, s.what = "?", whatIs(node)+advice(node)
	}
	return s
}

// shown returns the value for a message.
func (s scalar) shown() string {
	switch n := s.node.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return oneLine(n.GetToken().Value)
	case *ast.StringNode, *ast.LiteralNode:
		return quote(s.text)
	}
	return whatIs(s.node)
}

// mappingOf returns a value that is a mapping, or nil.
func mappingOf(node ast.Node) *ast.MappingNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n
	case *ast.MappingValueNode:
		return &ast.MappingNode{Values: []*ast.MappingValueNode{n}}
	}
	return nil
}

// literalColumn returns the column where text begins in a plain or quoted scalar
// at a place, or 0 if it stands there in another form.
func literalColumn(lines []string, line, column int, text string) int {
	if line < 1 || line > len(lines) || column < 1 {
		return 0
	}
	rest := []rune(lines[line-1])
	if column > len(rest) {
		return 0
	}
	quoted := string(rest[column-1:])
	switch {
	case strings.HasPrefix(quoted, text):
		return column
	case strings.HasPrefix(quoted[1:], text) && strings.ContainsAny(quoted[:1], `'"`):
		return column + 1
	}
	return 0
}

// blockColumn returns the column where text begins in a line of a block, or 0.
func blockColumn(lines []string, line int, text string) int {
	if line > len(lines) {
		return 0
	}
	indented := lines[line-1]
	trimmed := strings.TrimLeft(indented, " ")
	if text == "" || !strings.HasPrefix(trimmed, text) {
		return 0
	}
	return len(indented) - len(trimmed) + 1
}

func nodePosition(node ast.Node) (line, column int) {
	at := node.GetToken().Position
	return at.Line, at.Column
}

// whatIs names the type of a value that is no text.
func whatIs(node ast.Node) string {
	switch node.(type) {
	case *ast.NullNode:
		return "empty"
	case *ast.BoolNode:
		return "a boolean"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "an anchor, alias or tag"
}

// advice says how to make text of a value that is none.
func advice(node ast.Node) string {
	switch node.(type) {
	case *ast.NullNode:
		return ": give it a value, or leave the field out"
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return " and must be text: put quotes around it"
	}
	return " and must be text: write it out"
}

// syntaxError returns where and why a document is no YAML.
func syntaxError(src source, err error) (position, string) {
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) || syntax.Token == nil {
		return src.at, "this is no YAML: " + oneLine(err.Error())
	}
	message := oneLine(syntax.Message)
	if strings.Contains(message, "not allowed in this context") {
		message += ": check the indentation, and put quotes around text with \": \" or brackets in it"
	}
	at := syntax.Token.Position
	switch text := line(src.text, at.Line); {
	case bareMark.MatchString(text):
		message = "put quotes around text that begins with * or @"
	case strings.HasPrefix(strings.TrimLeft(text, " "), "\t"):
		message = "indent with spaces, not with tabs"
	}
	return src.position(at.Line, at.Column), "this is no YAML: " + message
}

// bareMark matches a line with a value that begins with a mark of YAML, such as a
// cron expression without quotes.
var bareMark = regexp.MustCompile(`^[^#'"]*: +[*@]`)

// line returns a line of a text, counted from 1.
func line(text string, n int) string {
	for line := range strings.Lines(text) {
		if n--; n == 0 {
			return line
		}
	}
	return ""
}
