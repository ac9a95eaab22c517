// Command fence shows how a store keeps out an attempt that was overtaken. A
// worker is cut off in the middle of a payment and does not notice; another one
// takes the job over and pays; then the first one wants to pay, too. The fence,
// which grows from attempt to attempt, tells the store who is late. Start
// reading at charge.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

// node is one of the two processes that run jobs.
type node struct {
	ledger *ledger
	said   chan string // what its handler went through

	begun  chan struct{} // has an element when a handler has begun
	resume chan struct{} // closed when it may go on
}

// charge is the handler. Between its start and its write to the store anything
// may happen to its process, for any time: so it passes the fence along.
func (n *node) charge(ctx context.Context, amount int) (int, error) {
	job := engine.JobFrom(ctx)
	n.begun <- struct{}{}
	<-n.resume // one that looks at its context could stop here: see the cause

	err := n.ledger.pay(job.ID, job.Fence, amount)
	outcome := "paid"
	if err != nil {
		outcome = "did not pay: " + err.Error()
	}
	lease := "has its lease"
	if errors.Is(context.Cause(ctx), engine.ErrLeaseLost) {
		lease = "has lost its lease"
	}
	n.said <- fmt.Sprintf("attempt %d on %s, which %s, %s", job.Attempt, job.Node, lease, outcome)
	return amount, err
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "millrace-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	story, err := overtake(ctx, dir)
	for _, line := range story {
		fmt.Println(line)
	}
	return err
}

// overtake lets a worker be overtaken, on a server that keeps its data in dir,
// and tells what happened.
func overtake(ctx context.Context, dir string) (story []string, err error) {
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	book := &ledger{payments: map[string]payment{}}
	newNode := func() *node {
		return &node{ledger: book, said: make(chan string, 1), begun: make(chan struct{}, 1), resume: make(chan struct{})}
	}

	wire, old := &cable{}, newNode()
	eng, stop, err := old.start(ctx, srv.URL(), "old", wire)
	if err != nil {
		return nil, err
	}
	defer stop()
	job, err := eng.Submit(ctx, "card.charge", []byte("100"))
	if err != nil {
		return nil, err
	}
	<-old.begun
	wire.unplug()

	young := newNode()
	close(young.resume)
	eng, stop, err = young.start(ctx, srv.URL(), "young", &cable{})
	if err != nil {
		return nil, err
	}
	defer stop()
	if _, err := eng.Wait(ctx, job.ID); err != nil {
		return nil, err
	}
	close(old.resume)
	paid := book.get(job.ID)
	return []string{<-young.said, <-old.said, fmt.Sprintf("the ledger has %d", paid.amount)}, nil
}

// start runs a worker under a name, connected by a cable.
func (n *node) start(ctx context.Context, url, name string, wire *cable) (eng *engine.Engine, stop func(), err error) {
	quiet := slog.New(slog.DiscardHandler)
	nc, err := nats.Connect(url, append(engine.ConnectOptions(), nats.SetCustomDialer(wire))...)
	if err != nil {
		return nil, nil, err
	}
	// A short lease, so that this does not take long.
	eng, err = engine.Connect(ctx, nc, engine.Options{Node: name, Lease: 2 * time.Second, Logger: quiet})
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	charge := engine.NewJob("card.charge", n.charge)
	worker, err := eng.Worker(engine.WorkerOptions{Grace: time.Second, NoOwner: name == "old"}, charge)
	if err != nil {
		eng.Close()
		nc.Close()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = worker.Run(ctx) // that of the old one cannot store its outcome, and says so
	}()
	return eng, func() {
		cancel()
		<-ended
		eng.Close()
		nc.Close()
	}, nil
}
