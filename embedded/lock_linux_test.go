package embedded_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/millrace/millrace/embedded"
)

// A folder is free when its server has closed, also while a child of the process has
// all that was open there, as it has between fork and exec.
func TestFreeWhileForking(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, embedded.Options{Dir: dir})
	inherit(t, filepath.Join(dir, "lock"))
	first.Close()
	start(t, embedded.Options{Dir: dir})
}

// inherit keeps what this process has open as a file, until the test ends.
func inherit(t *testing.T, name string) {
	t.Helper()
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, entry := range open {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err != nil || target != name {
			continue
		}
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		child, err := syscall.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(child) })
		found = true
	}
	if !found {
		t.Fatalf("%s is not open", name)
	}
}
