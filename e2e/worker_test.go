package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// notebook is a handler that writes down its start and its end, outside of the
// system, and ends when the file "go.<attempt>" is there.
const notebook = `#!/bin/sh
echo "START $MILLRACE_JOB_ID $MILLRACE_ATTEMPT $MILLRACE_NODE" >> ledger
while [ ! -e "go.$MILLRACE_ATTEMPT" ]; do sleep 0.05; done
echo "END $MILLRACE_JOB_ID $MILLRACE_ATTEMPT $MILLRACE_NODE" >> ledger
echo "\"attempt $MILLRACE_ATTEMPT on $MILLRACE_NODE\""
`

func (i *installation) awaitLedger(line string) {
	i.t.Helper()
	await(i.t, "the ledger says "+line, func() bool { return strings.Contains(i.ledger(), line+"\n") })
}

func (i *installation) ledger() string {
	text, _ := os.ReadFile(filepath.Join(i.dir, "ledger")) // not there yet: empty
	return string(text)
}

func (i *installation) worker(node, script string) *process {
	return i.start("worker", "--exec", "report.build="+script, "--node", node, "--drain-timeout", "1ms")
}

// A worker is killed in the middle of a job. Another one runs it again.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	i := install(t)
	script := i.file("handler.sh", notebook)
	w1 := i.worker("w1", script)
	i.run("job", "submit", "report.build", "--id", "r1", "--input", `{"month":11}`)
	i.awaitLedger("START report.r1 1 w1")
	i.worker("w2", script)
	w1.signal(syscall.SIGKILL)

	i.awaitLedger("START report.r1 2 w2")
	i.file("go.2", "")
	await(t, "the job has ended", func() bool { return i.job("report.r1").Ended() })
	j := i.job("report.r1")
	if err := checkPath(j); err != nil {
		t.Error(err)
	}
	if j.State != "succeeded" || string(j.Result) != `"attempt 2 on w2"` || j.Attempt != 2 || j.Attempts[0].Outcome != "lost" {
		t.Errorf("got state %s, result %s, attempts %+v, want attempt 2 on w2 after a lost one", j.State, j.Result, j.Attempts)
	}
	if strings.Contains(i.ledger(), "END report.r1 1") {
		t.Errorf("the program of the dead worker went on:\n%s", i.ledger())
	}
	t.Logf("the second attempt started %v after the first", j.Attempts[1].Started.Sub(*j.Attempts[0].Started))
}

// A worker is frozen for longer than its lease. When it wakes up, the job is
// another's, and what it has to say is refused (I3).
func TestWorkerFrozen(t *testing.T) {
	t.Parallel()
	i := install(t)
	script := i.file("handler.sh", notebook)
	w1 := i.worker("w1", script)
	i.run("job", "submit", "report.build", "--id", "r1")
	i.awaitLedger("START report.r1 1 w1")
	w1.signal(syscall.SIGSTOP)
	i.worker("w2", script)
	i.file("go.1", "")
	i.awaitLedger("END report.r1 1 w1") // with a result that the frozen worker will find
	i.awaitLedger("START report.r1 2 w2")

	w1.signal(syscall.SIGCONT)
	w1.awaitOutput(regexp.MustCompile(`outcome is stale.*job=report\.r1`))
	if j := i.job("report.r1"); j.State != "running" || *j.Node != "w2" || j.Attempt != 2 {
		t.Errorf("got %s on %s, attempt %d, want attempt 2 running on w2", j.State, *j.Node, j.Attempt)
	}
	i.file("go.2", "")
	await(t, "the job has ended", func() bool { return i.job("report.r1").Ended() })
	j := i.job("report.r1")
	if err := checkPath(j); err != nil {
		t.Error(err)
	}
	if j.State != "succeeded" || string(j.Result) != `"attempt 2 on w2"` {
		t.Errorf("got state %s, result %s, want that of attempt 2 on w2", j.State, j.Result)
	}
	if starts := strings.Count(i.ledger(), "START"); starts != 2 {
		t.Errorf("the handler started %d times, want 2:\n%s", starts, i.ledger())
	}
}
