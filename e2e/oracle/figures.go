package oracle

import "fmt"

// Figures are what a run came to, in numbers.
type Figures struct {
	Jobs int // that were submitted or listed
	Runs int // of handlers
}

// Figures counts and measures the run.
func (r Run) Figures() Figures {
	return Figures{Jobs: len(r.Jobs)}
}

// String is a compact block for people.
func (f Figures) String() string { return fmt.Sprintf("jobs %d\nruns %d", f.Jobs, f.Runs) }
