package e2e_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/engine"
)

// script runs a program of the NATS project's own JavaScript client and
// returns the lines that it printed.
func (i *installation) script(name string, args ...string) []string {
	i.t.Helper()
	cmd := exec.CommandContext(i.t.Context(), "node", append([]string{"js/" + name, i.url}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		i.t.Fatalf("node %s: %v\n%s", name, err, stderr.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// Events that another client publishes start one job each, however often they
// are published.
func TestEventsOfAnotherClient(t *testing.T) {
	t.Parallel()
	const events = 1000
	i := install(t)
	i.run("apply", "-f", i.file("triggers.yaml", `
kind: Trigger
name: new-orders
subject: orders.created
job: order.fulfil
id: event.data.id
`))
	i.start("worker", "--exec", "order.fulfil=cat", "--slots", "8", "--node", "w1")

	i.script("publish.mjs", "orders.created", "0", strconv.Itoa(events))
	await(t, "every event has a job that succeeded", func() bool { return len(i.jobs("succeeded")) == events })
	for _, j := range i.jobs("") {
		if err := checkPath(j); err != nil {
			t.Error(err)
		}
		if string(j.Result) != string(j.Input) {
			t.Errorf("job %s: result is %s, input was %s", j.ID, j.Result, j.Input)
		}
	}

	// The same events again, and one more: when that one has a job, the
	// trigger has seen them all.
	i.script("publish.mjs", "orders.created", "0", strconv.Itoa(events+1))
	last := fmt.Sprintf("order.e%d", events)
	await(t, last+" has succeeded", func() bool {
		return slices.ContainsFunc(i.jobs("succeeded"), func(j engine.JobInfo) bool { return j.ID == last })
	})
	if all := i.jobs(""); len(all) != events+1 {
		t.Errorf("%d jobs after the same %d events again and one more, want %d", len(all), events, events+1)
	}
}

// A request on a subject whose events are captured gets the answer of its
// service and no other.
func TestRequestOnCapturedSubject(t *testing.T) {
	t.Parallel()
	const requests = 20
	i := install(t)
	i.run("apply", "-f", i.file("triggers.yaml", `
kind: Trigger
name: questions
subject: help.>
job: help.note
`))
	got := i.script("request.mjs", "help.desk", strconv.Itoa(requests))
	var want []string
	for n := range requests {
		want = append(want, fmt.Sprintf("answer to question %d", n))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got answers %q, want %q", got, want)
	}
	await(t, "every request has a job", func() bool { return len(i.jobs("pending")) == requests })
}
