package cluster

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/e2e/ledger"
)

// said is what a process says of its readiness.
type said int

const (
	silent said = iota // it does not answer
	ready
	unready
)

// prober is without connections that are kept: those of a process that was
// frozen would not be of use.
var prober = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   2 * time.Second,
}

// get asks a process for a page. The caller closes the body.
func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	return prober.Do(req)
}

// ask asks a process whether it is ready.
func ask(ctx context.Context, url string) said {
	resp, err := get(ctx, url)
	if err != nil {
		return silent
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return ready
	}
	return unready
}

// watch writes down whenever a process changes what it says of its readiness,
// until it ends. A process is unready when it is born.
func (c *Cluster) watch(p *process, url string) {
	last := unready
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		now := ask(c.ctx, url)
		if now == silent || now == last {
			continue
		}
		last = now
		what := ledger.Ready
		if now == unready {
			what = ledger.Unready
		}
		c.write(p.entry(ledger.Entry{What: what}))
	}
}

// ownerSubject is where the owner's lease is republished.
const ownerSubject = "mr.default.lease.owner"

// lease is the value of the owner's lease. Its holder is the node and something
// random.
type lease struct {
	Holder string `json:"holder"`
	Epoch  uint64 `json:"epoch"` // 0 in the write that takes it, whose revision it is
}

// watchOwner writes down the writes of the owner's lease. It listens at every
// server: one may be cut off from the others.
func (c *Cluster) watchOwner() {
	c.t.Helper()
	var heard newest
	for _, s := range c.servers {
		nc, err := c.connect(s.URL())
		if err == nil {
			_, err = nc.Subscribe(ownerSubject, func(m *nats.Msg) { heard.hear(m, c.write) })
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// newest is the revision of the owner's lease that was heard last, of any server.
type newest struct {
	mu       sync.Mutex
	revision uint64
}

// hear tells of a write of the owner's lease, unless it or a later one was heard
// before. In one without a node the lease was given back, or has run out.
func (n *newest) hear(m *nats.Msg, tell func(ledger.Entry)) {
	e := ledger.Entry{What: ledger.Owner}
	e.Revision, _ = strconv.ParseUint(m.Header.Get(nats.JSSequence), 10, 64) // the server writes it
	n.mu.Lock()
	defer n.mu.Unlock()
	if e.Revision <= n.revision {
		return
	}
	n.revision = e.Revision
	var held lease
	if json.Unmarshal(m.Data, &held) == nil && held.Holder != "" {
		node := strings.LastIndexByte(held.Holder, '.')
		e.Node, e.Nonce, e.Epoch = held.Holder[:max(0, node)], held.Holder, held.Epoch
		if e.Epoch == 0 {
			e.Epoch = e.Revision
		}
	} else {
		e.Note = "the lease is free: " + m.Header.Get("Nats-Marker-Reason") + m.Header.Get("KV-Operation")
	}
	tell(e)
}
