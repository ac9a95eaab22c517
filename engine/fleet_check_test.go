package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine"
)

// await waits until a job has ended and all of its parts have, and returns what is
// told of it then.
func (f *fleet) await(id string, within time.Duration) engine.BroadcastInfo {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), within)
	defer cancel()
	began := time.Now()
	if _, err := f.client.Wait(ctx, id); err != nil {
		info, _ := f.client.GetBroadcast(f.Context(), id)
		f.Fatalf("%s has not ended after %v: %v\n%s", id, time.Since(began), err, tellParts(info))
	}
	for {
		info, err := f.client.GetBroadcast(ctx, id)
		if err != nil {
			f.Fatalf("%s: %v", id, err)
		}
		open := slices.IndexFunc(info.Parts, func(p engine.PartInfo) bool {
			return !slices.Contains([]string{"succeeded", "failed", "lost", "cancelled"}, p.State)
		})
		if open < 0 {
			time.Sleep(time.Second)
			synctest.Wait()
			return info
		}
		time.Sleep(time.Second)
	}
}

// tellParts is how each part is, in one line: a succeeded, b lost.
func tellParts(info engine.BroadcastInfo) string {
	var list []string
	for _, p := range info.Parts {
		name := p.Node
		if p.Shard != nil {
			name = fmt.Sprint(*p.Shard)
		}
		list = append(list, name+" "+p.State)
	}
	return strings.Join(list, ", ")
}

// told fails the test unless a job has ended so, with such parts.
func (f *fleet) told(info engine.BroadcastInfo, state, parts string) {
	f.Helper()
	if info.State != state || tellParts(info) != parts {
		f.Errorf("%s is %s: %s\nwant %s: %s\nerror: %+v", info.ID, info.State, tellParts(info), state, parts, info.Error)
	}
}

// partName names a part among its job's.
func partName(p engine.PartInfo) string {
	if p.Shard != nil {
		return fmt.Sprint(*p.Shard)
	}
	return p.Node
}

// check compares a broadcast that has ended, in all of its parts, with what the
// handlers did: I7.
func (f *fleet) check(info engine.BroadcastInfo) {
	f.Helper()
	names := map[string]bool{}
	for _, p := range info.Parts {
		names[p.Node] = true
		runs := f.of(info.ID, p.Node)
		for i, r := range runs {
			if r.life.node != p.Node || r.Node != p.Node {
				f.Errorf("%s: the part of %s was started on %s", info.ID, p.Node, r.life.node)
			}
			if i > 0 {
				f.checkAgain(info, runs[i-1], r)
			}
		}
		f.checkRecord(info, p, runs)
	}
	f.mu.Lock()
	for _, r := range f.runs {
		if r.Parent == info.ID && !names[r.Part] {
			f.Errorf("%s: %s was started on %s, and is none of its parts: %s", info.ID, r.Part, r.life.node, tellParts(info))
		}
	}
	f.mu.Unlock()
	f.checkEnd(info)
}

// checkAgain fails the test if a part was started again without a reason: it failed or
// was handed back, or its process died in it, or was given up for dead, and it is to
// wait for that node.
func (f *fleet) checkAgain(info engine.BroadcastInfo, before, again *run) {
	f.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	died := !before.life.killed.IsZero() || before.life.lostLease(before.began, again.began)
	switch {
	case before.err != nil:
	case died && info.Children.OnLost == "wait":
	case !f.redriven[info.ID].IsZero() && !again.began.Before(f.redriven[info.ID]):
	default:
		f.Errorf("%s: the part of %s was started at %v and again at %v, on %s; it returned %q, %v; its process died: %t; on lost: %s",
			info.ID, before.Part, before.began.Format(clock), again.began.Format(clock), again.life.node, before.result, before.err, died, info.Children.OnLost)
	}
}

const clock = "04:05.000"

// checkRecord compares the record of a part with its runs: each run is an attempt of
// it, and what succeeded is one of them.
func (f *fleet) checkRecord(info engine.BroadcastInfo, p engine.PartInfo, runs []*run) {
	f.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	name, accepted := partName(p), 0
	for _, a := range p.Attempts {
		if a.Outcome == "succeeded" {
			accepted++
		}
	}
	if (p.State == "succeeded") != (accepted > 0) || accepted > 1 {
		f.Errorf("%s: part %s is %s, and %d attempts succeeded: %+v", info.ID, name, p.State, accepted, p.Attempts)
	}
	found := p.State != "succeeded"
	for _, r := range runs {
		if len(p.Attempts) < 10 && !slices.ContainsFunc(p.Attempts, func(a engine.AttemptInfo) bool { return a.Number == r.Attempt && a.Node == r.life.node }) {
			f.Errorf("%s: attempt %d at part %s ran on %s and is not on record: %+v", info.ID, r.Attempt, name, r.life.node, p.Attempts)
		}
		want, _ := json.Marshal(fmt.Sprintf("%s by %s, attempt %d", name, r.life.node, r.Attempt))
		found = found || string(p.Result) == string(want) && r.err == nil
	}
	if !found {
		f.Errorf("%s: part %s succeeded with %s, which no handler returned", info.ID, name, p.Result)
	}
	died := slices.ContainsFunc(f.lives, func(l *life) bool { return l.node == p.Node && l.gave(*info.Created) })
	if p.State == "lost" && (info.Children.OnLost != "fail" || !died) {
		f.Errorf("%s: part %s is lost; on lost it is to %s, and its node died: %t", info.ID, name, info.Children.OnLost, died)
	}
}

// checkEnd fails the test unless a job tells the truth about its parts, and ended as
// they say. What is said to be cancelled may have succeeded before it heard of that.
func (f *fleet) checkEnd(info engine.BroadcastInfo) {
	f.Helper()
	count := map[string]int{}
	for _, p := range info.Parts {
		count[p.State]++
	}
	c := info.Children
	if c.Total != len(info.Parts) {
		f.Errorf("%s: %d parts of %d", info.ID, len(info.Parts), c.Total)
	}
	need := map[engine.Done]int{engine.DoneAll: c.Total, engine.DoneQuorum: c.Total/2 + 1, engine.DoneAny: 1}[engine.Done(c.Done)]
	if _, err := fmt.Sscan(c.Done, &need); err == nil && need == 0 {
		f.Errorf("%s is done at %q", info.ID, c.Done)
	}
	switch {
	case c.Total == 0 && info.State == "succeeded":
		f.Errorf("%s succeeded without parts", info.ID)
	case c.Total == 0: // nobody was there
	case info.State == "succeeded" && count["succeeded"] < need:
		f.Errorf("%s succeeded, and %d of %d parts have that had to: %s", info.ID, count["succeeded"], need, tellParts(info))
	case info.State == "failed" && info.Error != nil && info.Error.Code == "incomplete" && count["succeeded"] >= need:
		f.Errorf("%s failed, and %d of %d parts have succeeded: %s", info.ID, count["succeeded"], need, tellParts(info))
	}
}
