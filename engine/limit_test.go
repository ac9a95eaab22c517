package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A queue with a limit of three never runs four jobs, whatever dies, breaks,
// stops, comes twice or is lost; and each job ends.
func TestConcurrency(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				c := &crowd{T: t, srv: srv, ledger: newLedger(), rng: rand.New(rand.NewPCG(seed, 1))}
				c.story()
			})
		})
	}
}

// crowd is many workers for a queue with a limit.
type crowd struct {
	*testing.T
	srv     *server.Server
	ledger  *ledger
	rng     *rand.Rand
	client  *process
	workers []*crowded
	born    int
	links   []*natstest.Link
}

type crowded struct {
	*process
	stop func() error
}

const limitOf = 3

func (c *crowd) story() {
	c.client = start(c, c.srv, "client", nil)
	c.links = append(c.links, c.client.link)
	serve(c, c.client.Engine)
	limit(c.T, c.client.Engine, "job", limitOf)
	for range 3 {
		c.join()
	}
	var ids []string
	for i := range 90 {
		class := []engine.Class{engine.High, engine.Normal, engine.Low}[i%3]
		h, err := c.job().Submit(c.Context(), c.client.Engine, i, engine.SubmitOptions{ID: fmt.Sprint(i), Class: class})
		if err != nil {
			c.Fatal(err)
		}
		ids = append(ids, h.ID)
	}
	for range 12 {
		time.Sleep(time.Duration(c.rng.IntN(int(4 * time.Second))))
		c.disturb(ids)
	}
	for _, id := range ids {
		ctx, cancel := context.WithTimeout(c.Context(), time.Hour)
		info, err := c.client.Wait(ctx, id)
		cancel()
		if err != nil || info.State != "succeeded" {
			c.Errorf("%s is %s after %d attempts, %v", id, info.State, info.Attempt, err)
		}
	}
	if most := c.ledger.atMost(); most != limitOf {
		c.Errorf("%d jobs ran at once, want %d", most, limitOf)
	}
	drained(c, c.client)
}

// join starts a worker, as a node that was never there.
func (c *crowd) join() {
	c.born++
	p := start(c, c.srv, fmt.Sprint("w", c.born), nil)
	c.links = append(c.links, p.link)
	c.workers = append(c.workers, &crowded{p, p.run(engine.WorkerOptions{Slots: 4}, c.job())})
}

// disturb lets something happen.
func (c *crowd) disturb(ids []string) {
	victim := c.rng.IntN(len(c.workers))
	w := c.workers[victim]
	gone := func() { c.workers = append(c.workers[:victim], c.workers[victim+1:]...); c.join() }
	switch c.rng.IntN(7) {
	case 0: // it dies
		w.link.Down()
		gone()
	case 1: // it stops
		_ = w.stop() // it may be cut off
		gone()
	case 2:
		w.link.Cut()
	case 3: // the server ends and comes back
		dir := filepath.Dir(c.srv.StoreDir())
		natstest.Stop(c.srv, c.links...)
		time.Sleep(time.Duration(c.rng.IntN(int(10 * time.Second))))
		c.srv = natstest.Start(c, dir)
		for _, link := range c.links {
			link.Reroute(c.srv)
		}
	case 4: // somebody deletes the consumer
		_ = jetStream(c, c.client.nc).DeleteConsumer(c.Context(), "mr_default_work", "job") // gone if it was deleted just now
	case 5: // items come twice
		for range 10 {
			c.twice(ids[c.rng.IntN(len(ids))])
		}
	case 6: // it is cut off for a while
		w.link.Down()
		time.AfterFunc(time.Duration(c.rng.IntN(int(15*time.Second))), w.link.Up)
	}
}

// twice offers the item of a job once more, if it has one.
func (c *crowd) twice(id string) {
	stream, err := jetStream(c, c.client.nc).Stream(c.Context(), "mr_default_work")
	if err != nil {
		c.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(c.Context(), "mr.default.work.job.*."+id[len("job."):])
	if err != nil {
		return
	}
	if err := c.client.nc.PublishMsg(&nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}); err != nil {
		c.Error(err)
	}
}

// job is one that obeys, and that fails, naps or runs out of time now and then.
func (c *crowd) job() *engine.Job[int, int] {
	return engine.NewJob("job", func(ctx context.Context, i int) (int, error) {
		defer c.ledger.enter(ctx)()
		first, takes := engine.JobFrom(ctx).Attempt == 1, time.Duration(1+i%9)*200*time.Millisecond
		if first && i%11 == 0 {
			takes = time.Minute
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(takes):
		}
		switch {
		case first && i%5 == 0:
			return 0, errors.New("boom")
		case first && i%7 == 0:
			return 0, engine.Snooze(2 * time.Second)
		}
		return i, nil
	}, engine.JobOptions{MaxAttempts: 50, Timeout: 2 * time.Second})
}

// limit sets how many jobs of a queue run at once.
func limit(t *testing.T, eng *engine.Engine, queue string, n int) {
	t.Helper()
	if _, err := eng.LimitQueue(t.Context(), queue, engine.QueueLimits{Concurrency: &n}); err != nil {
		t.Fatal(err)
	}
}

// atMost returns how many handlers ran at once since it was called last.
func (l *ledger) atMost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.most = l.now }()
	return l.most
}

// A limit that is set, changed or lifted while jobs of all classes run holds from
// when what ran beyond it has ended, and what waits in a consumer that goes is not
// forgotten.
func TestConcurrencyChanged(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		l, p := newLedger(), start(t, srv, "a", nil)
		serve(t, p.Engine)
		for _, node := range []string{"b", "c"} {
			start(t, srv, node, nil).run(engine.WorkerOptions{Slots: 4}, napping("job", l))
		}
		var ids []string
		for i := range 240 {
			class := []engine.Class{engine.High, engine.Normal, engine.Low}[i%3]
			job, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: fmt.Sprint(i), Class: class})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, job.ID)
		}
		for i, n := range []int{0, 2, 5, 1, 0, 3} {
			limit(t, p.Engine, "job", n)
			time.Sleep(2500 * time.Millisecond)
			l.atMost() // from now on
			time.Sleep(4 * time.Second)
			want := n
			if n == 0 {
				want = 8 // slots
			}
			if most := l.atMost(); most != want {
				t.Errorf("change %d, to %d: %d jobs ran at once, want %d", i, n, most, want)
			}
		}
		for _, id := range ids {
			ended(t, p.Engine, id, "succeeded", 1, 0)
		}
		drained(t, p)
	})
}
