package engine_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/engine"
)

// What a random program submits, and who must have a part of it.

// fails draws how often some parts fail.
func (w *randomParts) fails(parts []string) map[string]int {
	fails := map[string]int{}
	for _, p := range parts {
		if w.rng.IntN(6) == 0 {
			fails[p] = 1 + w.rng.IntN(3)
		}
	}
	return fails
}

// cast broadcasts in some way.
func (w *randomParts) cast() {
	in := push{Work: time.Duration(w.rng.IntN(8000)) * time.Millisecond, Fails: w.fails(w.ids)}
	opts := engine.BroadcastOptions{
		ID: fmt.Sprint("b", len(w.casts)), MaxParallel: max(0, w.rng.IntN(6)-3), MaxAttempts: 1 + w.rng.IntN(3),
		Done: []engine.Done{"", "", engine.DoneQuorum, engine.DoneAny, engine.DoneCount(1)}[w.rng.IntN(5)],
	}
	if w.rng.IntN(2) == 0 {
		opts.OnLost, opts.Deadline = engine.LostWaits, time.Duration(1+w.rng.IntN(5))*time.Minute
	}
	if w.rng.IntN(3) == 0 {
		opts.Selector = map[string]string{"north": "yes"}
	}
	c := cast{id: "site." + opts.ID}
	if w.rng.IntN(4) == 0 {
		opts.Delay = time.Duration(w.rng.IntN(5000)) * time.Millisecond
	} else {
		c.must, c.not = w.members(opts)
	}
	w.note("broadcast %s, %+v, fails %v", c.id, opts, in.Fails)
	_, err := w.job(nil).Broadcast(w.Context(), w.client.Engine, in, opts)
	switch {
	case err == nil:
		w.casts = append(w.casts, c)
	case !strings.Contains(err.Error(), "no node") || len(c.must) > 0:
		w.Errorf("%s, which goes to %v, was refused: %v", c.id, c.must, err)
	}
}

// members returns which nodes must have a part of a broadcast, and which must not.
func (w *randomParts) members(opts engine.BroadcastOptions) (must, not []string) {
	for _, id := range w.ids {
		since, gone := w.left[id]
		w.mu.Lock()
		l := w.nodes[id]
		fallen := l != nil && l.fallen
		w.mu.Unlock()
		drains, asked := w.drained[id]
		switch {
		case len(opts.Selector) > 0 && !w.labels[id]:
			not = append(not, id)
		case gone && time.Since(since) > 2*lease, l != nil && drains == l:
			not = append(not, id)
		case !asked && !fallen && l != nil && time.Since(w.steady[id]) > 2*lease:
			must = append(must, id)
		}
	}
	return must, not
}

// checkMembers fails the test if somebody has no part that was there, or has one and
// was not.
func (w *randomParts) checkMembers(c cast, info engine.BroadcastInfo) {
	w.Helper()
	has := map[string]bool{}
	for _, p := range info.Parts {
		has[p.Node] = true
	}
	for _, node := range c.must {
		if !has[node] {
			w.Errorf("%s: %s was there and has no part: %s", c.id, node, tellParts(info))
		}
	}
	for _, node := range c.not {
		if has[node] {
			w.Errorf("%s: %s has a part and was not there: %s", c.id, node, tellParts(info))
		}
	}
}

// cut submits a job in pieces.
func (w *randomParts) cut() {
	n := 1 + w.rng.IntN(6)
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprint(i))
	}
	opts := engine.ShardOptions{
		ID: fmt.Sprint("s", len(w.sharded)), Shards: n, MaxAttempts: 100,
		Strategy: []engine.Strategy{"", engine.ShardsHash, engine.ShardsRoundRobin}[w.rng.IntN(3)],
	}
	if w.rng.IntN(4) == 0 {
		opts.Delay = time.Duration(w.rng.IntN(5000)) * time.Millisecond
	}
	in := push{Work: time.Duration(w.rng.IntN(8000)) * time.Millisecond, Fails: w.fails(parts)}
	w.note("shards %s: %d, %s, fails %v", opts.ID, n, opts.Strategy, in.Fails)
	w.sharded = append(w.sharded, w.shards(in, opts))
}
