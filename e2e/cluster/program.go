package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// programs is a folder of programs that were built with the same tags.
type programs string

func (p programs) path(name string) string { return filepath.Join(string(p), name) }

func (p programs) millrace() string { return p.path("millrace") }
func (p programs) actor() string    { return p.path("program") }
func (p programs) server() string   { return p.path("nats-server") }

// built is what this process has built, by what the go command was told.
var built struct {
	sync.Mutex
	folders map[string]func() (programs, error)
}

// Main runs the tests of a package, and removes the programs that were built for
// them. It returns the exit status, for TestMain.
func Main(m *testing.M) int {
	defer os.RemoveAll(buildDir(os.Getpid()))
	return m.Run()
}

// Millrace returns the path of the binary under test, built without tags.
func Millrace(t testing.TB) string {
	t.Helper()
	return build(t, "").millrace()
}

// build builds the programs, once in this process for each set of tags. With
// more flags for the go command they are built once more.
func build(t testing.TB, tags string, flags ...string) programs {
	t.Helper()
	if tags != "" {
		flags = append(flags, "-tags="+tags)
	}
	key := strings.Join(flags, " ")
	built.Lock()
	if built.folders == nil {
		built.folders = map[string]func() (programs, error){}
	}
	once, ok := built.folders[key]
	if !ok {
		name := strconv.Itoa(len(built.folders))
		once = sync.OnceValues(func() (programs, error) { return compile(name, flags) })
		built.folders[key] = once
	}
	built.Unlock()
	p, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// compile builds the programs into a folder of this process.
func compile(name string, flags []string) (programs, error) {
	sweep()
	dir := filepath.Join(buildDir(os.Getpid()), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cluster: build: %w", err)
	}
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, flags...)
	cmd := exec.Command("go", append(args,
		"github.com/millrace/millrace/cmd/millrace",
		"github.com/millrace/millrace/e2e/actor/program",
		"github.com/nats-io/nats-server/v2",
	)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cluster: go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return programs(dir), nil
}

const buildPrefix = "millrace-e2e-build-"

// buildDir is where the test process pid has its programs.
func buildDir(pid int) string {
	return filepath.Join(os.TempDir(), buildPrefix+strconv.Itoa(pid))
}

// sweep removes the programs of test processes that were killed.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), buildPrefix+"*")) // the pattern is right
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), buildPrefix))
		if err == nil && !exists(pid) {
			_ = os.RemoveAll(dir) // somebody else's, and garbage
		}
	}
}
