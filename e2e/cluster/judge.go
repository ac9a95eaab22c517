package cluster

import (
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// printed is how many violations are printed. All are in the folder.
const printed = 10

// settings is what is known of the run, without jobs and ledger.
func (c *Cluster) settings() oracle.Run {
	return oracle.Run{Test: c.t.Name(), Lease: c.Lease, Servers: len(c.servers), Seed: c.opts.Seed}
}

// save writes the run into the folder, where the ledger is already.
func (c *Cluster) save(r oracle.Run) {
	c.t.Helper()
	if err := r.Save(c.Dir); err != nil {
		c.t.Fatal(err)
	}
}

// WantAttempts checks on which nodes the attempts of the only job were, and how
// they ended, such as "w1 lost". It returns the job.
func (c *Cluster) WantAttempts(want ...string) oracle.Job {
	c.t.Helper()
	job := c.Jobs()[0]
	var got []string
	for _, a := range job.Attempts {
		got = append(got, a.Node+" "+a.Outcome)
	}
	if !slices.Equal(got, want) {
		c.t.Errorf("the attempts of job %s are %q, want %q", job.ID, got, want)
	}
	return job
}

// Judge asks the oracle what it makes of the run: each violation is an error of
// the test. It is called when all faults are healed, and all work has ended or
// should have.
func (c *Cluster) Judge() oracle.Figures {
	c.t.Helper()
	violations, figures := c.judge()
	for i, v := range violations {
		if i == printed {
			c.t.Errorf("and %d violations more", len(violations)-printed)
			break
		}
		c.t.Error(v)
	}
	return figures
}

// Hear is [Cluster.Judge] for a test that expects violations: it returns them.
func (c *Cluster) Hear() []oracle.Violation {
	c.t.Helper()
	violations, _ := c.judge()
	return violations
}

// judge keeps the run and prints what the oracle makes of it.
func (c *Cluster) judge() ([]oracle.Violation, oracle.Figures) {
	c.t.Helper()
	r := c.settings()
	r.Jobs, r.Ledger = c.Jobs(), c.Entries()
	c.save(r)
	c.judged = true
	violations, figures := r.Check(), r.Figures()
	c.t.Logf("%d jobs, %d violations\n%v", len(r.Jobs), len(violations), figures)
	return violations, figures
}

// lastLook is for a run that failed before it was judged. It keeps the jobs as
// they are now, if they can be had, and prints what the oracle makes of that: it
// may be why the test failed.
func (c *Cluster) lastLook() {
	c.t.Helper()
	if c.judged || !c.t.Failed() {
		return
	}
	r := c.settings()
	out, err := c.within(15*time.Second, "job", "list", "--output", "json", "--limit", listAll)
	if err == nil {
		r.Jobs, err = oracle.DecodeJobs(strings.NewReader(out))
	}
	if r.Unlisted = err != nil; r.Unlisted {
		c.t.Logf("the jobs cannot be listed: %v", err)
	} else if err := r.Save(c.Dir); err != nil {
		c.t.Error(err)
	}
	if r.Ledger, err = ledger.Load(c.ledgerPath()); err != nil {
		c.t.Error(err)
		return
	}
	violations := r.Check()
	c.t.Logf("the test failed before it was judged; as things are, %d violations\n%v", len(violations), r.Figures())
	for _, v := range violations[:min(printed, len(violations))] {
		c.t.Log(v)
	}
}
