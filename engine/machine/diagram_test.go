package machine

import (
	"flag"
	"os"
	"strings"
	"testing"
)

const (
	architecture = "../../ARCHITECTURE.md"
	diagramBegin = "<!-- moves: made by go test ./engine/machine -rewrite -->"
	diagramEnd   = "<!-- end -->"
)

// The diagram in ARCHITECTURE.md is that of the table. With -rewrite, it is
// made so.
func TestDiagram(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(architecture)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, begins := strings.Cut(string(data), diagramBegin)
	drawn, tail, ends := strings.Cut(rest, diagramEnd)
	if !begins || !ends {
		t.Fatalf("%s has no place for the diagram: add the lines\n%s\n%s", architecture, diagramBegin, diagramEnd)
	}
	want := "\n```text\n" + Diagram() + "```\n"
	if drawn == want {
		return
	}
	if rewrite := flag.Lookup("rewrite"); rewrite == nil || rewrite.Value.String() != "true" {
		t.Fatalf("%s does not show the moves as they are: run go test ./engine/machine -rewrite\ngot:%s\nwant:%s", architecture, drawn, want)
	}
	if err := os.WriteFile(architecture, []byte(head+diagramBegin+want+diagramEnd+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
