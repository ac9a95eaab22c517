package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// victimEnv makes TestSurvivors a test that is killed.
const victimEnv = "MILLRACE_E2E_VICTIM"

// run runs a cluster until scripts run on it, and returns its folder.
func run(t *testing.T) string {
	t.Helper()
	c := cluster.New(t, cluster.Options{Servers: 3})
	c.Serve("s1", cluster.NodeOptions{})
	c.Exec("x1", cluster.NodeOptions{})
	frozen := c.Exec("x2", cluster.NodeOptions{})
	c.Submit(cluster.Load{Prefix: "a", Count: 15, Work: actor.Work{For: 600_000}}).Await()
	for i := range 15 {
		c.AwaitStart(fmt.Sprintf("work.a%d", i), 1)
	}
	frozen.Stop()
	if len(using(t, c.Dir)) < 8 {
		t.Errorf("only %d processes use %s", len(using(t, c.Dir)), c.Dir)
	}
	return c.Dir
}

// Nothing survives a test, frozen processes and the commands of handlers
// included: not where it ends, and not where its process is killed.
func TestSurvivors(t *testing.T) {
	t.Parallel()
	if os.Getenv(victimEnv) != "" {
		fmt.Println(victimEnv, run(t))
		<-t.Context().Done()
		return
	}
	t.Run("ended", func(t *testing.T) {
		t.Parallel()
		var dir string
		if !t.Run("cluster", func(t *testing.T) { dir = run(t) }) {
			t.Fatal("the cluster did not run")
		}
		awaitNobody(t, dir, 10*time.Second)
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the folder of a test that passed: %v", err)
		}
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		dir := kill(t)
		defer os.RemoveAll(dir)
		awaitNobody(t, dir, time.Minute)
	})
}

// awaitNobody waits until no process belongs to the cluster in dir: what its
// processes have started survives them for a moment.
func awaitNobody(t *testing.T, dir string, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for left := using(t, dir); len(left) > 0; left = using(t, dir) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("left over: %q", left)
		}
	}
}

// kill kills a test process while its cluster runs, and returns the cluster's
// folder.
func kill(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSurvivors$", "-test.v")
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	var dir string
	var said []string
	lines := bufio.NewScanner(out)
	for dir == "" && lines.Scan() {
		said = append(said, lines.Text())
		if _, rest, ok := strings.Cut(lines.Text(), victimEnv+" "); ok {
			dir = rest
		}
	}
	_ = cmd.Process.Kill() // before it has ended, or dir is empty
	_ = cmd.Wait()
	if dir == "" {
		t.Fatalf("the test that was to be killed ended before its cluster ran:\n%s", strings.Join(said, "\n"))
	}
	return dir
}

// using returns the command lines of all processes that belong to the cluster in
// dir: its name is in their environment.
func using(t *testing.T, dir string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		env, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(env, []byte(dir)) {
			continue // it is gone
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline")) // gone: empty
		found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	}
	return found
}
