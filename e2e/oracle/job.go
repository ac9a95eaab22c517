package oracle

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Job is a job as the system lists it, as far as it matters here. It decodes
// what `job list --output json` and `job get --output json` print.
type Job struct {
	ID          string          `json:"id"`
	Kind        string          `json:"kind,omitempty"`
	Queue       string          `json:"queue,omitempty"`
	State       string          `json:"state"`
	Attempt     int             `json:"attempt,omitempty"`
	Failures    int             `json:"failures,omitempty"`
	MaxAttempts int             `json:"max_attempts,omitempty"`
	Node        string          `json:"node,omitempty"`
	Fence       uint64          `json:"fence,omitempty"`
	Result      json.RawMessage `json:"result,omitempty"`
	Error       *Error          `json:"error,omitempty"`
	Wait        string          `json:"wait,omitempty"`
	Created     time.Time       `json:"created_at,omitzero"`
	Started     time.Time       `json:"started_at,omitzero"` // of the last attempt
	Finished    time.Time       `json:"finished_at,omitzero"`
	Due         time.Time       `json:"due_at,omitzero"`
	Deadline    time.Time       `json:"deadline,omitzero"`
	Revision    uint64          `json:"revision,omitempty"`
	Attempts    []Attempt       `json:"attempts,omitempty"` // the first and the last ones
	Pin         *Pin            `json:"pin,omitempty"`
	Parent      string          `json:"parent,omitempty"`
	Part        string          `json:"part,omitempty"` // of its parent: a node, or the number of a shard
	Children    *Children       `json:"children,omitempty"`
	Schedule    string          `json:"schedule,omitempty"` // that made it; Due is its tick then
	Tick        *Tick           `json:"tick,omitempty"`
}

// Tick is for which tick of its schedule a job was made.
type Tick struct {
	Number int64     `json:"number,omitempty"` // among all ticks, from 1
	By     string    `json:"by"`               // clock, hand or backfill
	Count  int64     `json:"count,omitempty"`  // how many ticks the record stands for, if they were skipped together
	Until  time.Time `json:"until,omitzero"`   // the last one of them
}

// byClock is who makes the jobs of ticks.
const byClock = "clock"

// Pin is where a job is to run.
type Pin struct {
	Node string `json:"node"`
	Else string `json:"else,omitempty"` // what becomes of it without that node
}

// Children is what a broadcast or a sharded job tells of its parts.
type Children struct {
	Shards      bool              `json:"shards,omitempty"`
	Total       int               `json:"total"`
	OnLost      string            `json:"on_lost,omitempty"`
	Done        string            `json:"done,omitempty"`
	MaxParallel int               `json:"max_parallel,omitempty"`
	Selector    map[string]string `json:"selector,omitempty"`
	// How they ended, once the job has. Unstarted are those that there never were.
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	Lost      int `json:"lost,omitempty"`
	Cancelled int `json:"cancelled,omitempty"`
	Unstarted int `json:"unstarted,omitempty"`
}

// Attempt is one try at running a job, as its record tells it.
type Attempt struct {
	Number  int       `json:"number"`
	Node    string    `json:"node"`
	Started time.Time `json:"started_at,omitzero"`
	Ended   time.Time `json:"ended_at,omitzero"`
	Outcome string    `json:"outcome,omitempty"` // empty while it runs
	Error   *Error    `json:"error,omitempty"`
}

// Error is why a job or an attempt failed.
type Error struct {
	Message string `json:"message"`
	Code    string `json:"code,omitempty"`
}

// The states and outcomes of the record that the judge knows.
const (
	pending   = "pending"
	running   = "running"
	succeeded = "succeeded"
	failed    = "failed"
	cancelled = "cancelled"
	lost      = "lost"     // an attempt, or a job, whose node died
	returned  = "returned" // an attempt that was handed back
	skipped   = "skipped"  // a tick that was declined
)

// final reports whether a job in that state has ended.
func final(state string) bool {
	return state == succeeded || state == failed || state == cancelled || state == lost || state == skipped
}

// Ended reports whether nothing will happen to the job any more.
func (j Job) Ended() bool { return final(j.State) }

// Nonce is the name of the run whose result the job has, or nothing.
func (j Job) Nonce() string {
	var result struct {
		Nonce string `json:"nonce"`
	}
	if json.Unmarshal(j.Result, &result) != nil {
		return "" // a result of another shape has none
	}
	return result.Nonce
}

// attempt returns what the record tells of one attempt. It keeps not all.
func (j Job) attempt(number int) (Attempt, bool) {
	for _, a := range j.Attempts {
		if a.Number == number {
			return a, true
		}
	}
	return Attempt{}, false
}

// DecodeJobs reads jobs: one after the other, or in an array.
func DecodeJobs(r io.Reader) ([]Job, error) {
	buffered := bufio.NewReader(r)
	if first, err := firstByte(buffered); err != nil || first == 0 {
		return nil, err
	} else if first == '[' {
		var jobs []Job
		if err := json.NewDecoder(buffered).Decode(&jobs); err != nil {
			return nil, fmt.Errorf("oracle: decode jobs: %w", err)
		}
		return jobs, nil
	}
	var jobs []Job
	for decoder := json.NewDecoder(buffered); ; {
		var j Job
		err := decoder.Decode(&j)
		switch {
		case errors.Is(err, io.EOF):
			return jobs, nil
		case err != nil:
			return nil, fmt.Errorf("oracle: decode job %d: %w", len(jobs)+1, err)
		}
		jobs = append(jobs, j)
	}
}

// firstByte returns the first byte that is no white space, and leaves it, or 0
// at the end.
func firstByte(r *bufio.Reader) (byte, error) {
	for {
		b, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("oracle: read jobs: %w", err)
		case !strings.ContainsRune(" \t\r\n", rune(b)):
			return b, r.UnreadByte()
		}
	}
}
