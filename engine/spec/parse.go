package spec

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxDocument bounds one document, in bytes: the YAML parser takes the square of
// the time for deep ones.
const maxDocument = 128 << 10

// Parse reads the documents of a file: YAML, one or several JSON objects, or a
// mixture. The name of the file is for messages alone. The error is [Problems],
// everything that is wrong with the file; no document is returned with it.
func Parse(file string, data []byte) ([]Document, error) {
	text := strings.TrimPrefix(string(data), "\ufeff")
	var docs []Document
	var problems Problems
	lines := map[string]int{} // of the keys of definitions
	for _, src := range split(text) {
		r, ok := parseFields(file, src)
		if ok {
			if doc := r.document(); doc != nil {
				r.once(doc, lines)
				docs = append(docs, doc)
			}
		}
		problems = append(problems, r.problems...)
	}
	if len(docs) == 0 && len(problems) == 0 {
		problems = Problems{{file, 1, 1, "there is no document in it: begin with kind: and one of " + kindNames()}}
	}
	if err := problems.err(); err != nil {
		return nil, err
	}
	return docs, nil
}

// document reads one definition, or reports why its kind is not known.
func (r *reader) document() Document {
	kind, ok := r.fields["kind"]
	switch {
	case !ok:
		r.blame("kind", r.at, "kind is missing: begin with kind: and one of "+kindNames())
		return nil
	case kind.what != "":
		r.blame("kind", kind.at, "kind is "+kind.what)
		return nil
	}
	read, ok := readers[kind.text]
	if !ok {
		r.blame("kind", kind.at, "kind "+quote(kind.text)+" is unknown: the kinds are "+kindNames())
		return nil
	}
	return read(r)
}

// once reports a definition that the file has already; lines holds where each
// one is.
func (r *reader) once(doc Document, lines map[string]int) {
	name, ok := r.fields["name"]
	if !ok || r.blamed["name"] {
		return
	}
	if line, twice := lines[doc.Key()]; twice {
		kind, _, _ := strings.Cut(doc.Key(), ".")
		r.blame("name", name.at, fmt.Sprintf("%s %s is defined in line %d already: rename one, or remove it", kind, quote(name.text), line))
		return
	}
	lines[doc.Key()] = r.at.line
}

// parseFields parses one document. It returns false if there is none, or none
// that can be read, with the reason in the reader's problems.
func parseFields(file string, src source) (r *reader, ok bool) {
	r = &reader{file: file, at: src.at, fields: map[string]scalar{}, blamed: map[string]bool{}}
	fail := func(at position, message string) { r.problems = append(r.problems, problemAt(file, at, message)) }
	if len(src.text) > maxDocument {
		fail(src.at, fmt.Sprintf("this document has %d bytes: make several of it, of at most %d", len(src.text), maxDocument))
		return r, false
	}
	if !utf8.ValidString(src.text) {
		fail(src.from(validPrefix(src.text), len(src.text)).at, "this is no UTF-8: save the file as UTF-8")
		return r, false
	}
	defer func() {
		if recover() != nil { // the YAML parser gives up on some of what it cannot read
			fail(src.at, "this document cannot be read as YAML: check its brackets, quotes and indentation")
			ok = false
		}
	}()
	tree, err := parser.ParseBytes([]byte(src.text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		at, message := syntaxError(src, err)
		fail(at, message)
		return r, false
	}
	for _, doc := range tree.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.DirectiveNode:
		case *ast.MappingNode:
			r.addFields(src, body)
			ok = true
		default:
			fail(src.position(nodePosition(body)), "this is "+whatIs(body)+": write fields, beginning with kind:")
		}
	}
	return r, ok
}

// addFields takes the fields of a document from its tree.
func (r *reader) addFields(src source, mapping *ast.MappingNode) {
	lines := strings.Split(src.text, "\n")
	for i, pair := range mapping.Values {
		line, column := nodePosition(pair.Key)
		key := src.position(line, column)
		if i == 0 {
			r.at = key
		}
		name := pair.Key.GetToken().Value
		if _, twice := r.fields[name]; twice {
			r.blame(name, key, r.within+name+" is given twice: remove one")
			continue
		}
		s := readScalar(src, lines, pair.Value)
		s.key = key
		r.fields[name] = s
	}
}

// validPrefix returns how many bytes of s are UTF-8 before the first that is not.
func validPrefix(s string) int {
	for i, c := range s {
		if c == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return len(s)
}
