package millrace_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// source is one Go file of the tree.
type source struct {
	path  string // with slashes, from the root
	dir   string
	test  bool
	lines int
	fset  *token.FileSet
	file  *ast.File
}

// parse reads every Go file of a module. It walks the files itself on purpose:
// a test that asks the go command is answered from the test cache after the tree
// has changed.
func parse(tree fs.FS) ([]source, error) {
	var sources []source
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := fs.Stat(tree, path.Join(name, "go.mod")); name != "." && (unseen(d.Name()) || err == nil) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		s := source{path: name, dir: path.Dir(name), fset: token.NewFileSet(), lines: bytes.Count(text, []byte("\n"))}
		s.test = strings.HasSuffix(name, "_test.go")
		s.file, err = parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		sources = append(sources, s)
		return err
	})
	return sources, err
}

// unseen reports whether the go command, or git, does not look into a folder.
func unseen(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") ||
		slices.Contains([]string{"bin", "node_modules", "testdata"}, name)
}

// imports returns the paths that s imports.
func (s source) imports() []string {
	var names []string
	for _, spec := range s.file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser has read it already
		}
		names = append(names, name)
	}
	return names
}

// at returns the place of a node as file:line.
func (s source) at(n ast.Node) string {
	return fmt.Sprint(s.path, ":", s.fset.Position(n.Pos()).Line)
}

// under reports whether a package is name or lies below it.
func under(pkg, name string) bool { return name == "." || strings.HasPrefix(pkg+"/", name+"/") }

// layer returns the longest entry of layers that dir is in, and its row, or -1.
// Each package under internal is an entry of its own.
func layer(dir string) (entry string, row int) {
	row = -1
	for i, entries := range layers {
		for e := range strings.FieldsSeq(entries) {
			if under(dir, e) && len(e) > len(entry) {
				entry, row = e, i
			}
		}
	}
	if rest, ok := strings.CutPrefix(dir, "internal/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		entry = "internal/" + name
	}
	return entry, row
}

// layering is the rule that packages import rows below their own.
func layering(sources []source) (problems []string) {
	for _, s := range sources {
		if s.test {
			continue
		}
		from, fromRow := layer(s.dir)
		if fromRow < 0 && s.dir != "." {
			problems = append(problems, s.path+" is in no layer; add its package to layers_test.go")
			continue
		}
		for _, name := range s.imports() {
			dir, ours := strings.CutPrefix(name, module)
			to, toRow := layer(dir)
			switch {
			case !ours:
			case s.dir == ".":
				problems = append(problems, fmt.Sprintf("%s imports %s: the root has no code", s.path, dir))
			case toRow < 0:
				problems = append(problems, fmt.Sprintf("%s imports %s, which is in no layer", s.path, dir))
			case to != from && toRow <= fromRow:
				problems = append(problems, fmt.Sprintf("%s imports %s, which is not below it", s.path, dir))
			}
		}
	}
	return problems
}

// purity is the rule that pure packages do no I/O and read no clock.
func purity(sources []source) (problems []string) {
	for _, s := range sources {
		list, isPure := pure[s.dir]
		if !isPure || s.test {
			continue
		}
		for _, name := range s.imports() {
			if why := impurity(name, list); why != "" {
				problems = append(problems, fmt.Sprintf("%s is pure and imports %s: %s", s.path, name, why))
			}
		}
		for _, call := range calls(s, "time", clock) {
			problems = append(problems, call+": pure packages are given the time with each event")
		}
	}
	return problems
}

// impurity returns why a pure package with a list of its own may not import
// name, or nothing.
func impurity(name string, list []string) string {
	if strings.Contains(name, ".") {
		if slices.ContainsFunc(list, func(ok string) bool { return under(name, ok) }) {
			return ""
		}
		return "it is not on its list in layers_test.go"
	}
	if slices.Contains(harmless, name) {
		return ""
	}
	for bad, why := range impure {
		if under(name, bad) {
			return why
		}
	}
	return ""
}

// calls returns the places where s uses one of names of a package whose name is
// the end of its path.
func calls(s source, pkg string, names []string) (places []string) {
	local := ""
	for _, spec := range s.file.Imports {
		if spec.Path.Value == strconv.Quote(pkg) {
			local = path.Base(pkg)
			if spec.Name != nil {
				local = spec.Name.Name
			}
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			x, ok := sel.X.(*ast.Ident)
			if ok && x.Name == local && slices.Contains(names, sel.Sel.Name) {
				places = append(places, fmt.Sprintf("%s calls %s.%s", s.at(sel), pkg, sel.Sel.Name))
			}
		}
		return true
	})
	return places
}

// sleeping is the rule that tests sleep in bubbles only. A file that never
// mentions a bubble has none.
func sleeping(sources []source) (problems []string) {
	for _, s := range sources {
		bubble := false
		ast.Inspect(s.file, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			bubble = bubble || ok && (id.Name == "synctest" || strings.EqualFold(id.Name, "bubble"))
			return !bubble
		})
		if !s.test || bubble {
			continue
		}
		for _, call := range calls(s, "time", []string{"Sleep"}) {
			problems = append(problems, call+" outside a bubble: wait for what the test is about")
		}
	}
	return problems
}

// addressing is the rule that one package knows where JetStream is asked, and in
// which domain.
func addressing(sources []source) (problems []string) {
	for _, s := range sources {
		if s.test || s.dir == "internal/publish" || under(s.dir, "examples") || under(s.dir, "e2e") {
			continue
		}
		const instead = ": use the API and JetStream of internal/publish, which know the domain"
		for _, call := range calls(s, "github.com/nats-io/nats.go/jetstream", []string{"New", "NewWithAPIPrefix", "NewWithDomain"}) {
			problems = append(problems, call+instead)
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && strings.HasPrefix(strings.Trim(text.Value, "\"`"), "$JS.") {
				problems = append(problems, s.at(text)+" has the subject "+text.Value+instead)
			}
			return true
		})
	}
	return problems
}

// comments is the rule that packages and exported names have a comment.
func comments(sources []source) (problems []string) {
	documented := map[string]bool{}
	for _, s := range sources {
		if s.test {
			continue
		}
		documented[s.dir] = documented[s.dir] || s.file.Doc.Text() != ""
		if s.file.Name.Name == "main" || ast.IsGenerated(s.file) {
			continue
		}
		for _, decl := range s.file.Decls {
			for _, name := range bare(decl) {
				problems = append(problems, fmt.Sprintf("%s: %s has no comment", s.at(name), name.Name))
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(documented)) {
		if !documented[dir] {
			problems = append(problems, "package "+dir+" has no comment; say what it is for and where to start reading")
		}
	}
	return problems
}

// bare returns the exported names of a declaration that have no comment.
func bare(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv.List[0].Type)) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
					names = append(names, s.Name)
				}
			case *ast.ValueSpec:
				if s.Doc == nil && s.Comment == nil {
					names = append(names, slices.DeleteFunc(slices.Clone(s.Names), func(n *ast.Ident) bool { return !n.IsExported() })...)
				}
			}
		}
	}
	return names
}

// exportedReceiver reports whether the type of a receiver is exported.
func exportedReceiver(t ast.Expr) bool {
	switch t := t.(type) {
	case *ast.StarExpr:
		return exportedReceiver(t.X)
	case *ast.IndexExpr:
		return exportedReceiver(t.X)
	case *ast.IndexListExpr:
		return exportedReceiver(t.X)
	case *ast.Ident:
		return t.IsExported()
	}
	return false
}

const (
	maxFile     = 600 // lines of a file
	maxFunction = 80  // lines of a function
)

// size is the rule that files and functions are short.
func size(sources []source) (problems []string) {
	for _, s := range sources {
		if ast.IsGenerated(s.file) {
			continue
		}
		if s.lines > maxFile {
			problems = append(problems, fmt.Sprintf("%s has %d lines, more than %d", s.path, s.lines, maxFile))
		}
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if lines > maxFunction {
				problems = append(problems, fmt.Sprintf("%s: %s has %d lines, more than %d", s.at(f), f.Name.Name, lines, maxFunction))
			}
		}
	}
	return problems
}

// dependencies is the rule that bans hold, also through other packages of ours.
func dependencies(sources []source) (problems []string) {
	packages := map[string][]source{}
	for _, s := range sources {
		if !s.test {
			packages[s.dir] = append(packages[s.dir], s)
		}
	}
	for _, b := range bans {
		for _, dir := range slices.Sorted(maps.Keys(packages)) {
			in := func(e string) bool { return under(dir, e) }
			if !slices.ContainsFunc(b.from, in) || slices.ContainsFunc(b.except, in) {
				continue
			}
			for _, found := range b.breaches(packages, dir, map[string]bool{}) {
				problems = append(problems, fmt.Sprintf("%s imports %s: %s", dir, found, b.why))
			}
		}
	}
	return problems
}

// breaches returns what b bans of what the package in dir imports, directly or
// through packages of ours that were not seen yet.
func (b ban) breaches(packages map[string][]source, dir string, seen map[string]bool) (found []string) {
	seen[dir] = true
	for _, s := range packages[dir] {
		for _, name := range s.imports() {
			banned := func(bad string) bool { return under(name, bad) }
			below, ours := strings.CutPrefix(name, module)
			switch {
			case slices.ContainsFunc(b.names, banned):
				found = append(found, fmt.Sprintf("%s (%s)", name, s.path))
			case ours && !seen[below]:
				found = append(found, b.breaches(packages, below, seen)...)
			}
		}
	}
	return found
}

// lumber lists names of packages that say nothing about what is in them.
var lumber = []string{"base", "common", "helper", "helpers", "manager", "misc", "service", "shared", "util", "utils"}

// house is the rule that packages lie in the known folders and have a name that
// says something.
func house(sources []source) (problems []string) {
	for _, s := range sources {
		top, _, inFolder := strings.Cut(s.path, "/")
		if inFolder && folders[top] == "" {
			problems = append(problems, fmt.Sprintf("%s: %s is not one of the folders that layers_test.go lists", s.path, top))
		}
		if name := strings.TrimSuffix(s.file.Name.Name, "_test"); slices.Contains(lumber, name) {
			problems = append(problems, fmt.Sprintf("%s: package %s says nothing about what is in it", s.path, name))
		}
	}
	return problems
}
