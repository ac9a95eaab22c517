package cluster

import (
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/millrace/millrace/e2e/ledger"
)

// Life is what nodes and servers have in common: a process that can be ended,
// and started again.
type Life struct {
	c       *Cluster
	name    string
	command func(life int) command
	health  string // URL that answers 200 while it is ready, or empty

	mu     sync.Mutex
	now    *process       // the last one, or nil
	born   int            // how many lives there were
	broken []ledger.Entry // faults of every life: those of links, and of the clock
}

// Name is its name, without the number of the life.
func (l *Life) Name() string { return l.name }

// Process is the name of the present life, or of the last one, in the ledger.
func (l *Life) Process() string { return l.current().process }

// Pid is the process ID of the present life, or of the last one.
func (l *Life) Pid() int { return l.current().cmd.Process.Pid }

// current returns the last life.
func (l *Life) current() *process {
	l.c.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		l.c.t.Fatalf("cluster: %s was never started", l.name)
	}
	return l.now
}

// Start starts it, again after it has ended: the same ID, the same address, the
// next life. It does not wait for anything.
func (l *Life) Start() {
	l.c.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil && l.now.alive() {
		l.c.t.Fatalf("cluster: %s is running already: end it first", l.now.process)
	}
	l.born++
	p, err := l.c.run(l.command(l.born))
	if err != nil {
		l.c.t.Fatal(err)
	}
	l.now = p
	l.inherit(p)
	if l.health != "" {
		l.c.wait.Go(func() { l.c.watch(p, l.health) })
	}
}

// Kill ends it with SIGKILL and waits until it is gone.
func (l *Life) Kill() {
	l.c.t.Helper()
	l.shoot()
	<-l.current().done
}

// shoot sends SIGKILL.
func (l *Life) shoot() {
	l.c.t.Helper()
	l.send(ledger.Fault, ledger.Kill9, syscall.SIGKILL)
}

// Term asks it to end, and does not wait: see [Life.Await].
func (l *Life) Term() {
	l.c.t.Helper()
	l.send(ledger.Fault, ledger.Term, syscall.SIGTERM)
}

// Stop freezes the process, but not what it has started.
func (l *Life) Stop() {
	l.c.t.Helper()
	l.send(ledger.Fault, ledger.Stop, freeze)
}

// Cont lets it go on after a Stop.
func (l *Life) Cont() {
	l.c.t.Helper()
	l.send(ledger.Heal, ledger.Stop, thaw)
}

// send sends a signal, unless the process has ended already: whether it should
// have is the oracle's business. A fault is written before it begins, and its
// healing when it is over, so that what the ledger says is never too short.
func (l *Life) send(what ledger.What, verb string, s syscall.Signal) {
	l.c.t.Helper()
	p := l.current()
	if !p.alive() {
		return
	}
	e := p.entry(ledger.Entry{What: what, Verb: verb})
	if what == ledger.Fault {
		l.c.write(e)
	}
	if err := p.signal(s); err != nil {
		l.c.t.Error(err)
	}
	if what == ledger.Heal {
		l.c.write(e)
	}
}

// Await waits until it has ended.
func (l *Life) Await() {
	l.c.t.Helper()
	p := l.current()
	l.c.Await(p.process+" has ended", func() bool { return !p.alive() })
}

// Alive reports whether it has not ended.
func (l *Life) Alive() bool { return l.current().alive() }

// Ready reports whether it says of itself now that it is ready.
func (l *Life) Ready() bool { return l.current().alive() && ask(l.c.ctx, l.health) == ready }

// Healthy reports whether a node says of itself now that it is alive.
func (l *Life) Healthy() bool {
	return l.current().alive() && ask(l.c.ctx, strings.Replace(l.health, "/readyz", "/healthz", 1)) == ready
}

// Log returns what the present life has printed, or the last one.
func (l *Life) Log() string {
	text, err := os.ReadFile(l.current().log)
	if err != nil {
		l.c.t.Error(err)
	}
	return string(text)
}

// suffer writes that a fault begins, now and for every life to come.
func (l *Life) suffer(fault ledger.Entry) {
	l.c.t.Helper()
	fault.What = ledger.Fault
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.broken, fault) {
		return
	}
	l.broken = append(l.broken, fault)
	if l.now != nil && l.now.alive() {
		l.c.write(l.now.entry(fault))
	}
}

// inherit writes that a life begins with the faults of the one before. The caller
// holds l.mu.
func (l *Life) inherit(now *process) {
	l.c.t.Helper()
	for _, fault := range l.broken {
		l.c.write(now.entry(fault))
	}
}

// healed writes that faults of links are over: of those to peers, or all if none
// are named. A clock stays wrong.
func (l *Life) healed(peers ...string) {
	l.c.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = slices.DeleteFunc(l.broken, func(e ledger.Entry) bool {
		over := e.Verb != ledger.Clock && (len(peers) == 0 || slices.Contains(peers, e.Peer))
		if e.What = ledger.Heal; over && l.now != nil {
			l.c.write(l.now.entry(e))
		}
		return over
	})
}
