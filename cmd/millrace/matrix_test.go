package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func partOf(node, state string) engine.PartInfo {
	p := engine.PartInfo{Node: node, State: state}
	if state == "waiting" || state == "pending" {
		return p
	}
	p.Started, p.Attempts = &began, []engine.AttemptInfo{{Number: 1, Node: node, Started: &began}}
	if ended(p) {
		end := began.Add(1500 * time.Millisecond)
		p.Ended = &end
	}
	return p
}

func broadcastOf(parts ...engine.PartInfo) engine.BroadcastInfo {
	return engine.BroadcastInfo{JobInfo: engine.JobInfo{ID: "cache.1", Children: &engine.ChildrenInfo{Total: len(parts)}}, Parts: parts}
}

// A matrix has a line for each node, and a summary.
func TestMatrix(t *testing.T) {
	t.Parallel()
	failed := partOf("w3", "failed")
	failed.Error = &engine.ErrorInfo{Message: "no\nluck"}
	got := matrixText(broadcastOf(partOf("w1", "succeeded"), partOf("w2", "running"), failed, partOf("w4", "waiting")),
		frame{rows: 4, width: 100, now: began.Add(7 * time.Second)})
	want := `NODE  STATE        ATTEMPTS  TIME  ERROR
w1    ✓ succeeded  1         1.5s
w2    ▸ running    1         7s
w3    ✗ failed     1         1.5s  no luck
w4    · waiting

cache.1: 2 of 4 parts ended, 1 succeeded, 1 failed, 1 running
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Where there is no room for all of them, those that have ended are left out.
func TestMatrixOfMany(t *testing.T) {
	t.Parallel()
	var parts []engine.PartInfo
	for i := range 5000 {
		state := "succeeded"
		if i%1000 == 7 {
			state = "running"
		}
		parts = append(parts, partOf(fmt.Sprint("w", i), state))
	}
	got := matrixText(broadcastOf(parts...), frame{rows: 3, width: 100, now: began})
	want := `NODE   STATE      ATTEMPTS  TIME  ERROR
w7     ▸ running  1         0s
w1007  ▸ running  1         0s
w2007  ▸ running  1         0s
… 2 more that have not ended

cache.1: 4995 of 5000 parts ended, 4995 succeeded, 5 running
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The matrix of a sharded job has the shards, with the node of each.
func TestMatrixOfShards(t *testing.T) {
	t.Parallel()
	zero, one := 0, 1
	a, b := partOf("w1", "succeeded"), partOf("", "waiting")
	a.Shard, b.Shard = &zero, &one
	info := broadcastOf(a, b)
	info.Children.Shards = true
	got := matrixText(info, frame{rows: 9, width: 100, colour: true, now: began})
	want := "SHARD  NODE  STATE        ATTEMPTS  TIME  ERROR\n" +
		"0      w1    \x1b[32m✓ succeeded\x1b[0m  1         1.5s\n" +
		"1            \x1b[33m· waiting\x1b[0m\n\n" +
		"cache.1: 1 of 2 shards ended, 1 succeeded\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Without a terminal every change of a part is a line, once.
func TestMatrixChanges(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	m := newMatrix(&env{stdout: &out}, nil)
	lost := partOf("w2", "lost")
	lost.Error = &engine.ErrorInfo{Message: "node w2 is gone"}
	for _, parts := range [][]engine.PartInfo{
		{partOf("w1", "waiting"), partOf("w2", "pending")},
		{partOf("w1", "running"), partOf("w2", "running")},
		{partOf("w1", "running"), partOf("w2", "running")},
		{partOf("w1", "succeeded"), lost},
	} {
		m.show(broadcastOf(parts...))
	}
	m.end(broadcastOf(partOf("w1", "succeeded"), lost))
	got := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d\d\d  `).ReplaceAllString(out.String(), "")
	want := strings.Join([]string{
		"pending    w2",
		"running    w1  attempt 1",
		"running    w2  attempt 1",
		"succeeded  w1  attempt 1  after 1.5s",
		"lost       w2  attempt 1  after 1.5s  node w2 is gone",
		"",
	}, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
