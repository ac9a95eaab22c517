package machine

import (
	"encoding/json"
	"time"
)

// Report is what a handler says of its job while it runs. A job keeps the last
// of each: the progress until its next attempt, the details until it succeeds.
type Report struct {
	Progress *Progress       // nil: it says nothing of it
	Details  json.RawMessage // for the next attempt; empty: it says nothing of them
}

// Progress is how far an attempt is.
type Progress struct {
	Done  int64     `json:"done"`
	Total int64     `json:"total,omitempty"` // 0 if it is not known
	Note  string    `json:"note,omitempty"`
	At    time.Time `json:"at"`
}

// note stores what a handler has said.
func (h Hold) note(j *Job) {
	if h.Report == nil {
		return
	}
	if h.Report.Progress != nil {
		progress := *h.Report.Progress
		j.Progress = &progress
	}
	if len(h.Report.Details) > 0 {
		j.Details = h.Report.Details
	}
}
