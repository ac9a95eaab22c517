package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// A program in Go asks the system for the time without a library that somebody
// could replace, and there is one wall clock for all processes. So programs whose
// clock is wrong are built once more, with a package time in which Now is off by
// what the environment says; the monotonic clock is right, as on any machine
// whose wall clock is wrong. That takes minutes the first time, and nothing when
// the go command has it in its cache.

// clockEnv is by how much the clock is off, such as 5m or -300s. The ledger of a
// process takes the same off again.
const clockEnv = "MILLRACE_E2E_CLOCK"

// Where time.Now asks for the time, and what stands there instead.
const (
	rightNow = "sec, nsec, mono := runtimeNow()\n\tif mono == 0"
	wrongNow = "sec, nsec, mono := wrongNow()\n\tif mono == 0"
)

// wrongClock is one more file of package time.
const wrongClock = `package time

import "syscall"

var wrong = readWrong()

func readWrong() int64 {
	text, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return 0
	}
	d, err := ParseDuration(text)
	if err != nil {
		panic("` + clockEnv + `: " + err.Error())
	}
	return int64(d)
}

func wrongNow() (sec int64, nsec int32, mono int64) {
	sec, nsec, mono = runtimeNow()
	sum := int64(nsec) + wrong
	sec, sum = sec+sum/1e9, sum%1e9
	if sum < 0 {
		sec, sum = sec-1, sum+1e9
	}
	return sec, int32(sum), mono
}
`

// clocked builds programs whose clocks may be wrong.
func clocked(t testing.TB, tags string) programs {
	t.Helper()
	overlay, err := clockOverlay()
	if err != nil {
		t.Fatal(err)
	}
	return build(t, tags, "-overlay="+overlay)
}

// clockOverlay writes what replaces files of the standard library, once in this
// process, and returns the path of the list.
var clockOverlay = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("cluster: wrong clocks: ask go for its root: %w", err)
	}
	lib := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(lib, "time.go"))
	if err != nil {
		return "", fmt.Errorf("cluster: wrong clocks: %w", err)
	}
	if n := bytes.Count(source, []byte(rightNow)); n != 1 {
		return "", fmt.Errorf("cluster: wrong clocks: %s has %q %d times, want once: see how this version of Go asks for the time",
			filepath.Join(lib, "time.go"), rightNow, n)
	}
	source = bytes.Replace(source, []byte(rightNow), []byte(wrongNow), 1)

	dir := filepath.Join(buildDir(os.Getpid()), "clock")
	replaced := map[string]string{}
	for name, text := range map[string][]byte{"time.go": source, "wrong.go": []byte(wrongClock)} {
		replaced[filepath.Join(lib, name)] = filepath.Join(dir, name)
		if err := write(filepath.Join(dir, name), text); err != nil {
			return "", err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", fmt.Errorf("cluster: wrong clocks: %w", err)
	}
	path := filepath.Join(dir, "overlay.json")
	return path, write(path, list)
})

// write writes a file, and makes its folder.
func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cluster: wrong clocks: %w", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("cluster: wrong clocks: %w", err)
	}
	return nil
}

// setClock lets a process have a wall clock that is off, in every life.
func (l *Life) setClock(what *command, off time.Duration) {
	l.c.t.Helper()
	if off == 0 {
		return
	}
	wrong := clocked(l.c.t, l.c.opts.Tags)
	what.path = wrong.path(filepath.Base(what.path))
	what.env = append(what.env, clockEnv+"="+off.String(), "MILLRACE_E2E_PROGRAM="+wrong.actor())
	l.suffer(ledger.Entry{Verb: ledger.Clock, Note: off.String()})
}
