package spec

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// position is a place in a file; both numbers count from 1.
type position struct{ line, column int }

// source is the text of one document and where it begins in its file.
type source struct {
	text string
	at   position
}

// position returns the place in the file of a place in the document, which the
// YAML parser at times puts beyond the end.
func (s source) position(line, column int) position {
	line = min(line, strings.Count(s.text, "\n")+1)
	if line == 1 {
		column += s.at.column - 1
	}
	return position{line + s.at.line - 1, max(column, 1)}
}

// split cuts a file into its documents. The YAML parser sees one document at a
// time: it loses what follows an empty one, and stops at the first syntax error,
// while an error in one document need not hide those in the next.
func split(text string) []source {
	var docs []source
	begin, line, beginLine := 0, 0, 1
	end := func(at int) {
		piece := text[begin:at]
		if marker(piece) {
			piece = "   " + piece[3:]
		}
		docs = append(docs, splitJSON(source{piece, position{beginLine, 1}})...)
	}
	for offset := 0; offset < len(text); {
		line++
		next := len(text)
		if i := strings.IndexByte(text[offset:], '\n'); i >= 0 {
			next = offset + i + 1
		}
		if marker(text[offset:next]) {
			end(offset)
			begin, beginLine = offset, line
		}
		offset = next
	}
	end(len(text))
	return docs
}

// marker reports whether a line begins or ends a document. Nothing else in YAML
// may begin with these characters.
func marker(line string) bool {
	for _, mark := range []string{"---", "..."} {
		if rest, ok := strings.CutPrefix(line, mark); ok && (rest == "" || strings.ContainsRune(" \t\r\n", rune(rest[0]))) {
			return true
		}
	}
	return false
}

// splitJSON cuts a document of several JSON objects, such as one a line. Any
// other document stays whole.
func splitJSON(s source) []source {
	if !strings.HasPrefix(strings.TrimSpace(s.text), "{") {
		return []source{s}
	}
	var docs []source
	end := 0
	for dec := json.NewDecoder(strings.NewReader(s.text)); strings.TrimSpace(s.text[end:]) != ""; {
		var object json.RawMessage
		if err := dec.Decode(&object); err != nil {
			return append(docs, s.from(end, len(s.text)))
		}
		end = int(dec.InputOffset())
		docs = append(docs, s.from(end-len(object), end))
	}
	return docs
}

// from returns a piece of a document.
func (s source) from(begin, end int) source {
	before := s.text[:begin]
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return source{s.text[begin:end], s.position(strings.Count(before, "\n")+1, column)}
}
