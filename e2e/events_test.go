package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/e2e/cluster"
)

// script runs a program of the NATS project's own JavaScript client and
// returns the lines that it printed.
func script(t *testing.T, c *cluster.Cluster, name string, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"js/" + name, c.Server(1).URL()}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %s: %v\n%s", name, err, stderr.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// apply starts a cluster that has a definition.
func apply(t *testing.T, definition string) *cluster.Cluster {
	t.Helper()
	c := begin(t, cluster.Options{})
	c.Serve("s1", cluster.NodeOptions{})
	file := filepath.Join(c.Dir, "definition.yaml")
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Run("apply", "-f", file)
	return c
}

// eventJob is a job as far as these tests look at it.
type eventJob struct {
	ID      string          `json:"id"`
	Attempt int             `json:"attempt"`
	Input   json.RawMessage `json:"input"`
	Result  json.RawMessage `json:"result"`
}

// list returns the jobs in a state.
func list(t *testing.T, c *cluster.Cluster, state string) (jobs []eventJob) {
	t.Helper()
	for line := range strings.Lines(c.Run("job", "list", "--output", "json", "--limit", "100000", "--state", state)) {
		var j eventJob
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			t.Fatalf("decode %q: %v", line, err)
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// Events that another client publishes start one job each, however often they
// are published.
func TestEventsOfAnotherClient(t *testing.T) {
	t.Parallel()
	const events = 1000
	c := apply(t, `
kind: Trigger
name: new-orders
subject: orders.created
job: order.fulfil
id: event.data.id
`)
	c.Exec("w1", cluster.NodeOptions{Queues: []string{"order"}, Args: []string{"--exec", "order.fulfil=cat"}})

	script(t, c, "publish.mjs", "orders.created", "0", strconv.Itoa(events))
	c.Await("every event has a job that succeeded", func() bool { return len(list(t, c, "succeeded")) == events })
	for _, j := range list(t, c, "succeeded") {
		if string(j.Result) != string(j.Input) || j.Attempt != 1 {
			t.Errorf("job %s: after %d attempts the result is %s, input was %s", j.ID, j.Attempt, j.Result, j.Input)
		}
	}

	// The same events again, and one more: when that one has a job, the
	// trigger has seen them all.
	script(t, c, "publish.mjs", "orders.created", "0", strconv.Itoa(events+1))
	last := fmt.Sprintf("order.e%d", events)
	c.Await(last+" has succeeded", func() bool {
		return slices.ContainsFunc(list(t, c, "succeeded"), func(j eventJob) bool { return j.ID == last })
	})
	if all := c.Jobs(); len(all) != events+1 {
		t.Errorf("%d jobs after the same %d events again and one more, want %d", len(all), events, events+1)
	}
}

// A request on a subject whose events are captured gets the answer of its
// service and no other.
func TestRequestOnCapturedSubject(t *testing.T) {
	t.Parallel()
	const requests = 20
	c := apply(t, `
kind: Trigger
name: questions
subject: help.>
job: help.note
`)
	got := script(t, c, "request.mjs", "help.desk", strconv.Itoa(requests))
	var want []string
	for n := range requests {
		want = append(want, fmt.Sprintf("answer to question %d", n))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got answers %q, want %q", got, want)
	}
	c.Await("every request has a job", func() bool { return len(list(t, c, "pending")) == requests })
}
