//go:build unix

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// imported are the packages that the Go of the docs may name.
var imported = []string{
	"context", "encoding/json", "errors", "fmt", "os/signal", "slices", "strings", "syscall", "testing", "time",
	"github.com/nats-io/nats.go", "github.com/prometheus/client_golang/prometheus",
	"github.com/millrace/millrace/engine", "github.com/millrace/millrace/engine/enginetest", "github.com/millrace/millrace/engine/spec",
}

// given is what all pages may take for granted, and givenTo a page alone.
const given = `
var (
	ctx context.Context
	eng *engine.Engine
	nc  *nats.Conn
	url string
)
`

var givenTo = map[string]string{
	"broadcast.md": `
type (
	Caches []string
	Image  struct{ Album string }
)
var (
	Flush = engine.NewJob("cache.flush", func(context.Context, Caches) (int, error) { return 0, nil })
	Scale = engine.NewJob("image.scale", func(context.Context, Image) (string, error) { return "", nil })
	Sweep = engine.NewJob("table.sweep", func(context.Context, string) (int, error) { return 0, nil })
	image Image
	table string
)
`,
	"events.md": `
type Order struct{}
func fulfil(context.Context, Order) (string, error) { return "", nil }
`,
	"jobs.md": `
type (
	Mail    struct{ To string }
	Receipt struct{}
)
var job *engine.Handle[Receipt]
func deliver(context.Context, Mail) (Receipt, error) { return Receipt{}, nil }
func askForAnotherCard(string) {}
`,
	"schedules.md": `
type ReportIn struct{ Kind, Day string }
var (
	Report   = engine.NewJob("report.build", func(context.Context, ReportIn) (string, error) { return "", nil })
	from, to time.Time
	seen     uint64
)
`,
	"testing.md": `
type Mail struct{ To string }
type Outbox struct{ busy int }
func (*Outbox) Send(context.Context, Mail) (string, error) { return "", nil }
func (*Outbox) Accepted() []string { return nil }
`,
	"workers.md": `var Send = engine.NewJob("email.send", func(context.Context, string) (string, error) { return "", nil })`,
}

// The Go of the docs compiles, but for variables that a page does not use.
func TestDocsGo(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	fset := token.NewFileSet()
	packages := importer.ForCompiler(fset, "gc", compiled(t))
	found := map[string]bool{}
	for _, path := range append(pages, "../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		page := filepath.Base(path)
		for i, block := range regexp.MustCompile("(?ms)^```go\n(.*?)^```").FindAllStringSubmatch(string(text), -1) {
			found[page] = true
			name := fmt.Sprintf("the Go of %s, block %d", page, i+1)
			declarations, statements := split(block[1])
			file, err := parser.ParseFile(fset, name, "package page\n"+imports()+given+givenTo[page]+"\n"+declarations+"\nfunc _() {\n"+statements+"\n}", 0)
			if err != nil {
				t.Error(err)
				continue
			}
			config := types.Config{Importer: packages, Error: func(err error) {
				if wrong := (types.Error{}); !errors.As(err, &wrong) || !wrong.Soft {
					t.Error(err)
				}
			}}
			_, _ = config.Check("page", fset, []*ast.File{file}, nil)
		}
	}
	for page := range givenTo {
		if !found[page] {
			t.Errorf("%s has no Go", page)
		}
	}
}

// split tells the declarations of a block from its statements: each part between empty
// lines is either.
func split(block string) (declarations, statements string) {
	parts := strings.Split(block, "\n\n")
	for len(parts) > 0 {
		// a part may have empty lines of its own, as a function has
		n := 1
		for n <= len(parts) && !declares(strings.Join(parts[:n], "\n\n")) {
			n++
		}
		if n <= len(parts) {
			declarations += strings.Join(parts[:n], "\n\n") + "\n"
		} else {
			n = 1
			statements += parts[0] + "\n"
		}
		parts = parts[n:]
	}
	return declarations, statements
}

// declares reports whether text is declarations and nothing else.
func declares(text string) bool {
	_, err := parser.ParseFile(token.NewFileSet(), "", "package page\n"+text, parser.SkipObjectResolution)
	return err == nil
}

func imports() string {
	var b strings.Builder
	for _, path := range imported {
		fmt.Fprintf(&b, "import %q\n", path)
	}
	return b.String()
}

// compiled returns where the compiler has left what it exports of a package.
func compiled(t *testing.T) func(path string) (io.ReadCloser, error) {
	t.Helper()
	list := exec.Command("go", slices.Concat([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, imported)...)
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", list, err, stderr.String())
	}
	at := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if path, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			at[path] = file
		}
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(at[path]) }
}
