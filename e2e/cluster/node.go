package cluster

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// Node is a process that uses the servers: one that serves, a worker, or a
// submitter.
type Node struct {
	Life
	// ID is under which it registers; that of a submitter is empty.
	ID string
}

// NodeOptions configures a [Node]. The zero value of a field means its default.
type NodeOptions struct {
	// ID is under which it registers. Default: its name.
	ID string

	// Queues is where a worker takes jobs from. Default: work.
	Queues []string

	// Slots is how many jobs a worker runs at once. Default 10.
	Slots int

	// Owner says that a worker may be the owner. One that serves always may.
	Owner bool

	// MaxAttempts is how many failures fail a job for good. Default: the
	// engine's.
	MaxAttempts int

	// Labels are those of a worker, such as zone=a.
	Labels []string

	// Clock is by how much the process's wall clock is wrong.
	Clock time.Duration

	// Args are more arguments of the program.
	Args []string

	// Early says that nobody waits until the process is ready.
	Early bool
}

func (o NodeOptions) withDefaults(name string) NodeOptions {
	o.ID = cmp.Or(o.ID, name)
	o.Slots = cmp.Or(o.Slots, 10)
	if len(o.Queues) == 0 {
		o.Queues = []string{"work"}
	}
	return o
}

// worker returns the arguments that both kinds of workers take.
func (o NodeOptions) worker() []string {
	args := []string{"--slots", strconv.Itoa(o.Slots)}
	if !o.Owner {
		args = append(args, "--no-owner")
	}
	if o.MaxAttempts > 0 {
		args = append(args, "--max-attempts", strconv.Itoa(o.MaxAttempts))
	}
	for _, label := range o.Labels {
		args = append(args, "--label", label)
	}
	return args
}

// Serve starts a process that serves: millrace serve. Like the others it is
// ready when it is returned.
func (c *Cluster) Serve(name string, o NodeOptions) *Node {
	c.t.Helper()
	what := command{role: ledger.Serve, path: c.programs.millrace(), args: []string{"serve"}}
	return c.node(name, o.withDefaults(name), what)
}

// Worker starts a worker with handlers in Go, for jobs of the kind <queue>.do,
// whose input is an [actor.Work].
func (c *Cluster) Worker(name string, o NodeOptions) *Node {
	c.t.Helper()
	o = o.withDefaults(name)
	args := append([]string{"work"}, o.worker()...)
	for _, queue := range o.Queues {
		args = append(args, "--queue", queue)
	}
	return c.node(name, o, command{role: ledger.Worker, path: c.programs.actor(), args: args})
}

// Exec starts a worker with a script as the handler of the same kinds: millrace
// worker. Of the work it does For, and no more.
func (c *Cluster) Exec(name string, o NodeOptions) *Node {
	c.t.Helper()
	o = o.withDefaults(name)
	args := append([]string{"worker"}, o.worker()...)
	for _, queue := range o.Queues {
		args = append(args, "--exec", queue+".do="+c.script())
	}
	return c.node(name, o, command{role: ledger.Exec, path: c.programs.millrace(), args: args})
}

// node starts a process that registers as a node.
func (c *Cluster) node(name string, o NodeOptions, what command) *Node {
	c.t.Helper()
	n := &Node{ID: o.ID}
	http := c.address()
	n.c, n.name, n.health = c, name, "http://"+http+"/readyz"
	what.node = o.ID
	if what.role != ledger.Serve {
		what.queues, what.slots = o.Queues, o.Slots
	}
	what.args = append(append(what.args, "--node", o.ID, "--http", http), o.Args...)
	n.launch(what, o.Clock)
	if !o.Early {
		c.Await(name+" is ready", func() bool {
			if !n.Alive() {
				c.t.Fatalf("cluster: %s has ended before it was ready:\n%s", name, tail(n.current().log, 20))
			}
			return n.Ready()
		})
	}
	return n
}

// launch starts the first life of a node, with a wall clock that is wrong by off.
func (n *Node) launch(what command, off time.Duration) {
	n.c.t.Helper()
	what.env = append(what.env, "NATS_URL="+n.c.urlFor(n.name))
	n.setClock(&what, off)
	n.command = func(life int) command {
		what.process = fmt.Sprintf("%s#%d", n.name, life)
		return what
	}
	n.Start()
}

// script writes the handler of an exec worker and returns its path.
func (c *Cluster) script() string {
	c.t.Helper()
	path := filepath.Join(c.Dir, "handler.sh")
	if err := os.WriteFile(path, []byte(handler), 0o700); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// handler does what a job's input says, as far as a script can.
const handler = `#!/bin/sh
ms=$(sed -n 's/.*"for":\([0-9]*\).*/\1/p')
nonce=$("$MILLRACE_E2E_PROGRAM" mark start) || exit 1
sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
exec "$MILLRACE_E2E_PROGRAM" mark end "$nonce"
`
