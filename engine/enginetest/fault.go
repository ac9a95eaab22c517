package enginetest

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/natstest"
)

// Fault is what happens to one write of a process.
type Fault int

const (
	// Pass lets the write through, and its answer too.
	Pass Fault = iota
	// CutBefore breaks the connection just before the write, which is lost.
	CutBefore
	// CutAfter breaks the connection just after the write was stored. The
	// answer is lost, and whatever the process had sent behind the write.
	CutAfter
	// LoseAnswer stores the write and loses the answer. The connection stays,
	// so the process waits for the answer until it gives up.
	LoseAnswer
	// KillBefore is [Process.Kill] just before the write.
	KillBefore
	// KillAfter is [Process.Kill] just after the write was stored.
	KillAfter
)

// faults are the names of the faults, and what they are to the network.
var faults = map[Fault]struct {
	name  string
	fault natstest.Fault
}{
	Pass:       {"pass", natstest.Pass},
	CutBefore:  {"cut before", natstest.CutBefore},
	CutAfter:   {"cut after", natstest.CutAfter},
	LoseAnswer: {"lose answer", natstest.LoseAnswer},
	KillBefore: {"kill before", natstest.DownBefore},
	KillAfter:  {"kill after", natstest.DownAfter},
}

// String returns the name of f, such as "lose answer".
func (f Fault) String() string {
	if known, ok := faults[f]; ok {
		return known.name
	}
	return fmt.Sprintf("fault %d", int(f))
}

// Writes returns what the process has written, in order, over all its lives.
func (p *Process) Writes() []Write {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.writes)
}

// AtWrite strikes the n-th write from now with a fault; 1 is the next one. It
// replaces what [Process.Decide] and an earlier AtWrite said.
func (p *Process) AtWrite(n int, fault Fault) {
	p.env.t.Helper()
	if _, known := faults[fault]; n < 1 || !known {
		p.env.t.Fatalf("enginetest: strike write %d of %s with %v: count writes from 1, and use one of the faults", n, p.node, fault)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	strike := len(p.writes) + n
	p.decide = func(w Write) Fault {
		if w.Number == strike {
			return fault
		}
		return Pass
	}
}

// Decide lets a function decide what happens to each write from now on, nil that
// all of them pass. The function is called for one write at a time; it must not
// wait for anything, and must not call methods of the process.
func (p *Process) Decide(fate func(Write) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide = fate
}

// judge is what happens to a write of one life on its way to the server.
func (p *Process) judge(l *life, message natstest.Write) natstest.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := describe(p.env.ns, message)
	w.Number = len(p.writes) + 1
	if p.decide != nil {
		w.Fault = p.decide(w)
	}
	p.writes = append(p.writes, w)
	if w.Fault == KillBefore || w.Fault == KillAfter {
		l.mute()
	}
	return faults[w.Fault].fault
}
