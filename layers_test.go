package millrace_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// module is the path of this module, with a slash.
const module = "github.com/millrace/millrace/"

// layers is the architecture, from top to bottom. A package may import rows
// below its own and nothing else in this module, so there can be no cycle. The
// packages under internal are one row, and do not import each other either, but
// for the one that all requests to JetStream go through.
var layers = []string{
	"e2e",
	"e2e/cluster e2e/look e2e/actor/program",
	"e2e/actor e2e/oracle e2e/proxy",
	"e2e/ledger",
	"cmd",
	"cmd/millrace/program cmd/millrace/demo cmd/millrace/bench",
	"cmd/millrace/show",
	"examples",
	"console",
	"history engine/enginetest",
	"engine",
	"engine/attempt engine/triggers engine/reconcile engine/explain engine/doctor engine/queues engine/schedules",
	"timers timers/scheduler broadcast",
	"engine/store",
	"nodes engine/blobs engine/intake engine/logs engine/fault",
	"streams engine/graph broadcast/plan timers/tick",
	"kv engine/machine engine/spec",
	"timers/calendar",
	"embedded internal",
	"internal/publish",
}

// folders are the folders at the top, and what is in them. Whoever needs
// another one adds it here and to the map in CONTRIBUTING.md.
var folders = map[string]string{
	"broadcast": "who gets what",
	"cmd":       "the binary",
	"console":   "HTTP API and web pages",
	"docs":      "the manual",
	"e2e":       "several processes and real faults",
	"embedded":  "a NATS server in this process",
	"engine":    "the public API and the life of a job",
	"examples":  "programs and files to start from",
	"history":   "SQL projection, outbox, inbox",
	"internal":  "what several packages need and users do not",
	"kv":        "typed buckets and leases",
	"nodes":     "registration and verdicts",
	"scripts":   "what make and CI call",
	"streams":   "every asset as data",
	"timers":    "what is due later",
}

// pure packages do no I/O: they import the harmless part of the standard
// library, and what is listed.
var pure = map[string][]string{
	"engine/machine":  {module + "internal/name"},
	"engine/spec":     {module + "internal/name", module + "timers/calendar", "github.com/goccy/go-yaml", "cel.dev/cel-go"},
	"engine/graph":    {module + "internal/name", module + "engine/spec"},
	"broadcast/plan":  {module + "engine/machine"},
	"timers/calendar": {module + "internal/zone", "github.com/robfig/cron/v3"},
	"timers/tick":     {module + "engine/machine", module + "engine/spec", module + "timers/calendar", module + "internal/name"},
}

// impure tells why pure packages do not have a package of the standard library,
// or one that lies below it.
var impure = map[string]string{
	"context":      "nothing in it takes long enough to be cancelled",
	"crypto/rand":  "randomness is made at the edge and passed in",
	"database/sql": "it does no I/O",
	"log":          "it returns errors; the caller logs",
	"math/rand":    "randomness is made at the edge and passed in",
	"net":          "it does no I/O",
	"os":           "it does no I/O",
	"sync":         "values need no locks",
	"testing":      "it is not a test",
}

// harmless packages lie below one that is impure, and are pure themselves.
var harmless = []string{"net/netip", "net/url"}

// clock lists what of package time depends on when it is called. Pure packages
// are given the time with each event.
var clock = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

// A ban keeps packages out of what users import or run.
type ban struct {
	from   []string // where it holds, with everything that these import
	except []string // where it does not
	names  []string
	why    string
}

var bans = []ban{
	{
		from: []string{"cmd", "console", "embedded", "engine", "history"}, except: []string{"engine/enginetest"},
		names: []string{
			"testing", "github.com/stretchr/testify", "github.com/google/go-cmp", "pgregory.net/rapid",
			"go.uber.org/goleak", "github.com/cockroachdb/datadriven", "github.com/anishathalye/porcupine",
			"github.com/rogpeppe/go-internal",
		},
		why: "test libraries would end up in the binaries of users, with their flags and modules",
	},
	{
		from: []string{"engine", "history"}, except: []string{"engine/enginetest"},
		names: []string{"github.com/nats-io/nats-server", module + "embedded"},
		why:   "a worker needs a NATS client; the server would add megabytes to every binary",
	},
	{
		from: []string{"."}, except: []string{"engine/enginetest", "internal/natstest", "e2e"},
		names: []string{module + "internal/natstest"},
		why:   "it is for tests",
	},
	{
		from:  []string{"e2e/ledger", "e2e/oracle", "e2e/look"},
		names: []string{module + "engine", module + "streams", module + "kv", module + "nodes", module + "timers"},
		why:   "a judge that shares code with the engine shares its mistakes",
	},
	{
		from:  []string{"."},
		names: []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters"},
		why:   "the program that uses this decides how traces are recorded and where they go",
	},
}

// A fault is a file of a test, and what a rule says about it.
type fault struct {
	name, path, text, want string
}

// check applies a rule to this tree, where it must find nothing, and to trees of
// one package each, where it must find what is wrong. Nothing wanted means that
// nothing may be found.
func check(t *testing.T, rule func([]source) []string, faults []fault) {
	t.Helper()
	t.Parallel()
	sources, err := parse(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range rule(sources) {
		t.Error(problem)
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			sources, err := parse(fstest.MapFS{f.path: {Data: []byte(f.text)}})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(rule(sources), "\n")
			if (f.want == "") != (got == "") || !strings.Contains(got, f.want) {
				t.Errorf("got %q, want %q", got, f.want)
			}
		})
	}
}

// imports returns the text of a package that imports names.
func imports(names ...string) string {
	text := "// Package p is a package.\npackage p\n"
	for _, n := range names {
		text += "import _ \"" + n + "\"\n"
	}
	return text
}

// Packages import rows below their own.
func TestLayers(t *testing.T) {
	check(t, layering, []fault{
		{"below", "engine/p.go", imports(module+"kv", "os", "example.com/kv"), ""},
		{"far below", "cmd/millrace/p.go", imports(module + "internal/name"), ""},
		{"itself", "engine/p.go", imports(module + "engine/part"), ""},
		{"a test", "kv/p_test.go", imports(module + "engine"), ""},
		{"above", "kv/p.go", imports(module + "engine"), "kv/p.go imports engine, which is not below it"},
		{"beside", "kv/p.go", imports(module + "engine/spec"), "kv/p.go imports engine/spec"},
		{"triggers are not engine", "engine/triggers/p.go", imports(module + "engine"), "imports engine, which is not below"},
		{"store is not engine", "engine/store/p.go", imports(module + "engine"), "imports engine, which is not below"},
		{"beside in internal", "internal/a/p.go", imports(module + "internal/b"), "internal/a/p.go imports internal/b"},
		{"internal and embedded", "internal/a/p.go", imports(module + "embedded"), "imports embedded"},
		{"nowhere", "elsewhere/p.go", imports(), "elsewhere/p.go is in no layer"},
		{"from nowhere", "engine/p.go", imports(module + "elsewhere"), "imports elsewhere, which is in no layer"},
		{"the root", "p.go", imports(), ""},
		{"the root imports", "p.go", imports(module + "kv"), "p.go imports kv: the root has no code"},
	})
}

// Pure packages stay pure.
func TestLayersPure(t *testing.T) {
	check(t, purity, []fault{
		{"harmless", "engine/machine/p.go", imports("fmt", "strings", "net/url", "time", module+"internal/name"), ""},
		{"not pure", "kv/p.go", imports("os", "context"), ""},
		{"its test", "engine/machine/p_test.go", imports("os", "testing"), ""},
		{"expressions", "engine/spec/p.go", imports("cel.dev/cel-go/cel", "github.com/goccy/go-yaml/ast"), ""},
		{"os", "engine/machine/p.go", imports("os"), "imports os: it does no I/O"},
		{"below os", "engine/machine/p.go", imports("os/exec"), "imports os/exec: it does no I/O"},
		{"net", "engine/spec/p.go", imports("net"), "imports net: it does no I/O"},
		{"below net/http", "engine/spec/p.go", imports("net/http/httptest"), "imports net/http/httptest: it does no I/O"},
		{"log", "engine/graph/p.go", imports("log/slog"), "imports log/slog: it returns errors"},
		{"atomics", "engine/graph/p.go", imports("sync/atomic"), "imports sync/atomic: values need no locks"},
		{"randomness", "engine/machine/p.go", imports("math/rand/v2"), "imports math/rand/v2: randomness"},
		{"foreign", "engine/machine/p.go", imports("github.com/goccy/go-yaml"), "not on its list"},
		{"alike", "engine/machine/p.go", imports(module + "internal/names"), "not on its list"},
		{"ours", "engine/graph/p.go", imports(module + "engine/machine"), "not on its list"},
		{"clock", "engine/machine/p.go", "package p\nimport \"time\"\nvar t = time.Now()", "calls time.Now"},
		{"clock by another name", "engine/graph/p.go", "package p\nimport at \"time\"\nvar t = at.After(1)", "calls time.After"},
		{"a duration", "engine/machine/p.go", "package p\nimport \"time\"\nvar t = time.Second", ""},
	})
}

// Packages say what they are for, and exported names what they mean.
func TestLayersComments(t *testing.T) {
	const head = "// Package p is a package.\npackage p\n"
	check(t, comments, []fault{
		{"all documented", "p/p.go", head + "// F does.\nfunc F() {}\n// T is.\ntype T int\n// M does.\nfunc (T) M() {}\n", ""},
		{"a group", "p/p.go", head + "// What there is.\nconst (\n\tA = 1\n\tB = 2\n)\n", ""},
		{"at the end", "p/p.go", head + "const (\n\tA = 1 // the first\n)\n", ""},
		{"hidden", "p/p.go", head + "func f() {}\ntype t int\nfunc (t) M() {}\nfunc (*g[T]) M() {}\ntype g[T any] int\n", ""},
		{"only tests", "p/p_test.go", "package p_test\nfunc F() {}\n", ""},
		{"a command", "cmd/p/main.go", "// Command p does.\npackage main\nfunc F() {}\n", ""},
		{"no package comment", "p/p.go", "package p\n", "package p has no comment"},
		{"a detached comment", "p/p.go", "// License.\n\npackage p\n", "package p has no comment"},
		{"function", "p/p.go", head + "func F() {}\n", "p/p.go:3: F has no comment"},
		{"type", "p/p.go", head + "type T int\n", "T has no comment"},
		{"grouped type", "p/p.go", head + "// Types.\ntype (\n\tT int\n)\n", ""},
		{"method", "p/p.go", head + "// T is.\ntype T[K any] int\nfunc (*T[K]) M() {}\n", "M has no comment"},
		{"constant", "p/p.go", head + "const A, b = 1, 2\n", "A has no comment"},
		{"variable", "p/p.go", head + "var (\n\tA = 1\n)\n", "A has no comment"},
	})
}

// Files and functions are short.
func TestLayersSize(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("\n", n) }
	check(t, size, []fault{
		{"long file", "p/p.go", "package p" + lines(600), ""},
		{"longer file", "p/p.go", "package p" + lines(601), "p/p.go has 601 lines, more than 600"},
		{"longer test", "p/p_test.go", "package p" + lines(601), "p/p_test.go has 601 lines"},
		{"long function", "p/p.go", "package p\nfunc f() {" + lines(79) + "}\n", ""},
		{"longer function", "p/p.go", "package p\nfunc f() {" + lines(80) + "}\n", "p/p.go:2: f has 81 lines, more than 80"},
		{"longer test function", "p/p_test.go", "package p\nfunc f() {" + lines(80) + "}\n", "f has 81 lines"},
		{"generated", "p/p.go", "// Code generated by x. DO NOT EDIT.\n\npackage p" + lines(601), ""},
	})
}

// Tests wait for what they are about, and never for time to pass.
func TestLayersSleep(t *testing.T) {
	const sleep = "package p\nimport \"time\"\nfunc f() { time.Sleep(1) }\n"
	check(t, sleeping, []fault{
		{"not a test", "p/p.go", sleep, ""}, // the linter forbids that
		{"a duration", "p/p_test.go", "package p\nimport \"time\"\nvar d = time.Second\n", ""},
		{"in a bubble", "p/p_test.go", sleep + "var _ = natstest.Bubble\n", ""},
		{"in a bubble of the package", "p/p_test.go", sleep + "var _ = bubble\n", ""},
		{"in a bare bubble", "p/p_test.go", sleep + "var _ = synctest.Test\n", ""},
		{"asleep", "p/p_test.go", sleep, "p/p_test.go:3 calls time.Sleep outside a bubble"},
	})
}

// JetStream is asked in the domain of the publisher, and nowhere else.
func TestLayersAddressing(t *testing.T) {
	const js = "github.com/nats-io/nats.go/jetstream"
	open := func(call string) string { return "package p\nimport \"" + js + "\"\nvar _, _ = jetstream." + call }
	check(t, addressing, []fault{
		{"the one place", "internal/publish/p.go", open("New(nil)") + "\nconst api = \"$JS.API.\"\n", ""},
		{"a test", "kv/p_test.go", open("New(nil)") + "\nconst api = \"$JS.API.\"\n", ""},
		{"a user", "examples/x/p.go", open("New(nil)"), ""},
		{"a harness", "e2e/x/p.go", open("New(nil)"), ""}, // which fills the storage of others, and shares nothing with them
		{"in words", "kv/p.go", "package p\nconst hint = \"may not use $JS.API.>\"\n", ""},
		{"a subject", "kv/p.go", "package p\nconst s = \"$JS.API.STREAM.INFO.x\"\n", "kv/p.go:2 has the subject"},
		{"a raw subject", "kv/p.go", "package p\nconst s = `$JS.API.STREAM.INFO.x`\n", "kv/p.go:2 has the subject"},
		{"a client", "engine/p.go", open("New(nil)"), "engine/p.go:3 calls github.com/nats-io/nats.go/jetstream.New:"},
		{"a client of a domain", "cmd/x/p.go", open(`NewWithDomain(nil, "hub")`), "cmd/x/p.go:3 calls github.com/nats-io/nats.go/jetstream.NewWithDomain"},
	})
}

// What users import brings nothing along that they do not need.
func TestLayersDependencies(t *testing.T) {
	check(t, dependencies, []fault{
		{"none", "engine/p.go", imports("strings", "github.com/nats-io/nats.go"), ""},
		{"in a test", "engine/p_test.go", imports("testing", "github.com/google/go-cmp/cmp"), ""},
		{"for tests", "engine/enginetest/p.go", imports("testing", "github.com/nats-io/nats-server/v2/server"), ""},
		{"the server where it belongs", "embedded/p.go", imports("github.com/nats-io/nats-server/v2/server"), ""},
		{"testing", "engine/p.go", imports("testing"), "engine imports testing (engine/p.go): test libraries"},
		{"below testing", "cmd/x/p.go", imports("testing/synctest"), "cmd/x imports testing/synctest"},
		{"a library", "engine/p.go", imports("pgregory.net/rapid"), "imports pgregory.net/rapid"},
		{"the server", "engine/p.go", imports("github.com/nats-io/nats-server/v2/server"), "a worker needs a NATS client"},
		{"the embedded server", "engine/p.go", imports(module + "embedded"), "a worker needs a NATS client"},
		{"an exporter", "cmd/x/p.go", imports("go.opentelemetry.io/otel/sdk/trace"), "decides how traces are recorded"},
		{"natstest", "cmd/x/p.go", imports(module + "internal/natstest"), "it is for tests"},
	})
	t.Run("indirect", func(t *testing.T) {
		sources, err := parse(fstest.MapFS{
			"engine/p.go":  {Data: []byte(imports(module + "streams"))},
			"streams/p.go": {Data: []byte(imports(module + "kv"))},
			"kv/p.go":      {Data: []byte(imports("testing"))},
		})
		if err != nil {
			t.Fatal(err)
		}
		const want = "engine imports testing (kv/p.go)"
		if got := strings.Join(dependencies(sources), "\n"); !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// The house has the rooms that we know, and no lumber room.
func TestLayersHouse(t *testing.T) {
	check(t, house, []fault{
		{"a room", "kv/p.go", "package kv", ""},
		{"the root", "p.go", "package p", ""},
		{"a new room", "attic/p.go", "package attic", "attic is not one of the folders"},
		{"a new room for tests", "attic/p_test.go", "package attic", "attic is not one of the folders"},
		{"lumber", "internal/util/p.go", "package util", "package util says nothing"},
		{"hidden lumber", "internal/x/p.go", "package helpers", "package helpers says nothing"},
		{"lumber for tests", "kv/p_test.go", "package common_test", "package common says nothing"},
		{"a manager", "kv/manager/p.go", "package manager", "package manager says nothing"},
	})
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !unseen(e.Name()) && folders[e.Name()] == "" {
			t.Errorf("%s is not one of the folders that layers_test.go lists", e.Name())
		}
	}
}
