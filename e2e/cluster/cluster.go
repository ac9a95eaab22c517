// Package cluster runs what is under test as real processes: one or three
// nats-servers, nodes of the engine, the programs of users. It has verbs for
// what is done to them, and writes everything that happens into a ledger, which
// an oracle judges at the end. Nothing that it starts survives the test.
//
// Several clusters may run at once, in one process or in several.
//
// Start reading at [New] and [Node].
package cluster

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

var keep = flag.Bool("keep", false, "keep the folders of clusters, also where the test passes")

// The leases that the engine chooses by itself.
const (
	singleLease  = 6 * time.Second
	clusterLease = 15 * time.Second
)

// Options configures a [Cluster]. The zero value of a field means its default.
type Options struct {
	// Servers is how many there are: 1, or 3, on which every stream has three
	// replicas. Default 1.
	Servers int

	// Sync is the servers' sync_interval, such as always. Default: theirs.
	Sync string

	// MaxStore is how many bytes each server stores at most. Default: no limit.
	MaxStore int64

	// Clocks are by how much the servers' wall clocks are wrong. Default: not at
	// all.
	Clocks []time.Duration

	// Tags are build tags of the programs under test. Default: none.
	Tags string

	// Env is more of the environment of all processes.
	Env []string

	// Seed is that of a random plan. It is printed and stored with the run.
	Seed uint64
}

// Cluster is servers, and nodes that use them. Its methods end the test if they
// cannot do what they are for. It is safe for concurrent use.
type Cluster struct {
	// Dir is where everything is: the ledger, logs, the servers' stores.
	Dir string
	// Lease is that of nodes and of the owner.
	Lease time.Duration
	// Ledger is where everything is written down.
	Ledger *ledger.Writer

	t        testing.TB
	opts     Options
	programs programs
	servers  []*Server
	links    links
	ended    ends

	ctx  context.Context // ends with the test; what watches stops then
	wait sync.WaitGroup  // for what watches

	mu        sync.Mutex
	processes []*process  // all that ever were
	claims    []io.Closer // of ports

	judged bool // by the test's goroutine
}

// New starts servers and waits until they are ready. When the test ends,
// everything ends, whatever happened. If it failed, Dir stays, and the command
// that looks at it is printed.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Servers == 0 {
		o.Servers = 1
	}
	c := &Cluster{t: t, opts: o, Lease: singleLease}
	if o.Servers > 1 {
		c.Lease = clusterLease
	}
	c.programs = build(t, o.Tags)
	c.open()
	for i := range o.Servers {
		c.servers = append(c.servers, c.server(i+1))
	}
	for _, s := range c.servers {
		s.Start()
	}
	unlisted := c.settings()
	unlisted.Unlisted = true
	c.save(unlisted)
	c.Settle()
	c.watchOwner()
	return c
}

// unsafe is what does not belong into the name of a folder.
var unsafe = regexp.MustCompile(`[^A-Za-z0-9]+`)

// open makes the folder and the ledger, and sees to it that all ends with the
// test.
func (c *Cluster) open() {
	c.t.Helper()
	dir, err := os.MkdirTemp("", "millrace-"+unsafe.ReplaceAllString(c.t.Name(), "-")+"-")
	if err != nil {
		c.t.Fatalf("cluster: make a folder: %v", err)
	}
	c.Dir = dir
	if c.Ledger, err = ledger.Open(c.ledgerPath(), 0); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	c.ctx = ctx
	c.t.Cleanup(func() {
		c.lastLook()
		c.write(ledger.Entry{What: ledger.Over})
		cancel()
		c.end()
		c.links.close()
		c.wait.Wait()
		c.giveBack()
		_ = c.Ledger.Close()
		c.leave()
	})
	if c.opts.Seed != 0 {
		c.t.Logf("seed %d", c.opts.Seed)
		c.Note(fmt.Sprintf("seed %d", c.opts.Seed))
	}
}

// ledgerPath is where the ledger is.
func (c *Cluster) ledgerPath() string { return filepath.Join(c.Dir, oracle.LedgerFile) }

// end ends all processes.
func (c *Cluster) end() {
	c.mu.Lock()
	all := slices.Clone(c.processes)
	c.mu.Unlock()
	for _, p := range all {
		p.kill()
	}
	for _, p := range all {
		p.bury()
	}
}

// leave removes the folder, or tells what is in it.
func (c *Cluster) leave() {
	if !c.t.Failed() && !*keep {
		if err := os.RemoveAll(c.Dir); err != nil {
			c.t.Errorf("cluster: %v", err)
		}
		return
	}
	if c.t.Failed() {
		c.tails()
	}
	c.t.Logf("everything is in %s; look at it with\n\tgo run ./e2e/look %s", c.Dir, c.Dir)
}

// tails prints the last lines of all logs.
func (c *Cluster) tails() {
	logs, _ := filepath.Glob(filepath.Join(c.Dir, "*.log")) // the pattern is right
	for _, log := range logs {
		if text := tail(log, 20); text != "" {
			c.t.Logf("the end of %s:\n%s", filepath.Base(log), text)
		}
	}
}

// write appends to the ledger.
func (c *Cluster) write(e ledger.Entry) {
	c.t.Helper()
	if err := c.Ledger.Write(e); err != nil {
		c.t.Error(err)
	}
}

// Note writes for people what the scenario is about to do.
func (c *Cluster) Note(text string) {
	c.t.Helper()
	c.write(ledger.Entry{What: ledger.Note, Note: text})
}

// Entries returns the ledger as it is now.
func (c *Cluster) Entries() []ledger.Entry {
	c.t.Helper()
	entries, err := ledger.Load(c.ledgerPath())
	if err != nil {
		c.t.Fatal(err)
	}
	return entries
}

// connect returns a connection of the harness's own, which goes past all proxies
// and ends with the test.
func (c *Cluster) connect(url string) (*nats.Conn, error) {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.Name("e2e"))
	if err != nil {
		return nil, fmt.Errorf("cluster: connect to %s: %w", url, err)
	}
	c.wait.Go(func() {
		<-c.ctx.Done()
		nc.Close()
	})
	return nc, nil
}
