package spec_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/engine/spec"
)

// What a story cannot hold: bytes that are no text, line ends, marks.
func TestParseBytes(t *testing.T) {
	t.Parallel()
	good := "kind: Trigger\nname: a\nsubject: a\njob: a.x\n"
	for _, tt := range []struct{ name, text, err string }{
		{"byte order mark", "\ufeff" + good, ""},
		{"lines of Windows", strings.ReplaceAll("---\n"+good+"when: event.data.a == 1\n", "\n", "\r\n"), ""},
		{"tabs in JSON", "{\n\t\"kind\": \"Trigger\",\n\t\"name\": \"a\",\n\t\"subject\": \"a\",\n\t\"job\": \"a.x\"\n}\n", ""},
		{"no UTF-8", good + "when: caf\xe9\n", "f.yaml:5:10: this is no UTF-8: save the file as UTF-8"},
		{"NUL", "\x00", "f.yaml:1:1: this is text: write fields, beginning with kind:"},
		{"long document", good + "---\n" + good + strings.Repeat("#", 200_000), "f.yaml:5:1: this document has 200046 bytes: make several of it, of at most 131072"},
		{
			"long expression", good + "when: " + strings.Repeat("1 == 1 && ", 1000) + "true\n",
			"f.yaml:5:7: when: expression code point size exceeds limit: size: 10004, limit 8192",
		},
		{
			"deep expression", good + "when: " + strings.Repeat("(", 1000) + "true\n",
			"f.yaml:5:7: when: expression recursion limit exceeded: 250",
		},
	} {
		docs, err := spec.Parse("f.yaml", []byte(tt.text))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.err {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.err)
		}
		if err == nil && len(docs) != 1 {
			t.Errorf("%s: got %v, want one trigger", tt.name, docs)
		}
	}
}

// Whatever is parsed gives documents or problems, and each problem is one line
// with a place in the file.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/parse/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no stories in testdata/parse", err)
	}
	for _, file := range files {
		stories, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for story := range strings.SplitSeq(string(stories), "\nparse\n") {
			input, _, _ := strings.Cut(story, "\n----\n")
			f.Add([]byte(input))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := spec.Parse("f", data)
		if err == nil {
			for _, doc := range docs {
				if err := doc.Validate(); err != nil {
					t.Errorf("parsed a document that is not valid: %v", err)
				}
			}
			if len(docs) == 0 {
				t.Error("neither documents nor problems")
			}
			return
		}
		var problems spec.Problems
		if !errors.As(err, &problems) || len(problems) == 0 || docs != nil {
			t.Fatalf("got %v and %T, want problems alone", docs, err)
		}
		lines := 1 + strings.Count(string(data), "\n")
		for _, p := range problems {
			if strings.ContainsAny(p.Message, "\n\r") || p.Line < 1 || p.Line > lines || p.Column < 1 {
				t.Errorf("a problem is not one line with its place: %q", p)
			}
		}
		if !slices.IsSortedFunc(problems, func(a, b spec.Problem) int { return a.Line - b.Line }) {
			t.Errorf("not in order: %v", err)
		}
	})
}
