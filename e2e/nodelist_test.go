package e2e_test

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/cluster"
)

// listed is a node as the command lists it.
type listed struct {
	ID    string `json:"id"`
	State string `json:"state"`
	Role  string `json:"role"`
}

// nodes lists the nodes, unless NATS is away.
func (m *membership) nodes() ([]listed, error) {
	out, err := m.Try("node", "list", "--output", "json")
	if err != nil {
		return nil, err
	}
	var list []listed
	for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
		var n listed
		if err := decoder.Decode(&n); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}

// watching is what the list says of one node as time passes.
type watching struct {
	m    *membership
	node string
	done chan struct{}

	mu     sync.Mutex
	states []string // the states that it was in, one after the other
	told   []int64  // when the first answer with each was there
}

// watch asks again and again what state a node is in, until it is offline.
func (m *membership) watch(n *cluster.Node) *watching {
	w := &watching{m: m, node: n.ID, done: make(chan struct{})}
	go w.run()
	m.t.Cleanup(func() { <-w.done })
	return w
}

// run asks until the node is offline, or the test ends.
func (w *watching) run() {
	defer close(w.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if list, err := w.m.nodes(); err == nil && w.see(list) == "offline" {
			return
		}
		select {
		case <-w.m.t.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// see notes what a list says, and returns it.
func (w *watching) see(list []listed) (state string) {
	state = "missing"
	if i := slices.IndexFunc(list, func(n listed) bool { return n.ID == w.node }); i >= 0 {
		state = list[i].State
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.states); n == 0 || w.states[n-1] != state {
		w.states, w.told = append(w.states, state), append(w.told, w.m.Ledger.Now())
	}
	return state
}

// await waits until the node was listed as offline.
func (w *watching) await() {
	w.m.t.Helper()
	w.m.Await(w.node+" is listed as offline", func() bool { return w.first("offline") > 0 })
	<-w.done
}

// first returns when the node was told to be in a state for the first time, 0 if
// it was not yet.
func (w *watching) first(state string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.states, state); i >= 0 {
		return w.told[i]
	}
	return 0
}

// check checks that the node was in just those states, after it was alive.
func (w *watching) check(want ...string) {
	w.m.t.Helper()
	if len(w.states) > 0 && w.states[0] == "alive" {
		want = append([]string{"alive"}, want...)
	}
	if d := cmp.Diff(want, w.states); d != "" {
		w.m.t.Errorf("node list says of %s (-want +got):\n%s", w.node, d)
	}
}
