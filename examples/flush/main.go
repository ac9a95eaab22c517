// Command flush empties the caches of every node by one broadcast, and says of each
// what came of it. Start reading at flush.
package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

// shop is a process with a cache of prices.
type shop struct {
	mu     sync.Mutex
	prices map[string]int
}

// flush is the handler: it runs once in every shop.
func (s *shop) flush(_ context.Context, what string) (int, error) {
	if what != "prices" {
		return 0, engine.Fail(fmt.Errorf("there is no cache of %s", what))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.prices)
	clear(s.prices)
	return n, nil
}

// Flush is the kind of the jobs, without a handler: every shop binds its own.
var Flush = engine.NewJob[string, int]("cache.flush", nil)

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
	shops := map[string]*shop{
		"berlin": {prices: map[string]int{"apple": 3, "pear": 4}},
		"paris":  {prices: map[string]int{"apple": 3}},
		"rome":   {prices: map[string]int{"apple": 3, "fig": 9, "pear": 4}},
	}
	parts, err := flush(ctx, dir, shops)
	for _, p := range parts {
		fmt.Printf("%s %s: %d prices forgotten\n", p.Node, p.State, p.Value)
	}
	return err
}

// flush broadcasts to the shops, on a server that keeps its data in dir, and returns
// what each has done. A shop is a process of its own as far as the engine can tell.
func flush(ctx context.Context, dir string, shops map[string]*shop) (parts []engine.Part[int], err error) {
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer func() { cancel(); open.Wait() }()
	var eng *engine.Engine // of any shop
	for node, s := range shops {
		if eng, err = s.open(ctx, srv, node, &open); err != nil {
			return nil, err
		}
	}

	all, err := Flush.Broadcast(ctx, eng, "prices", engine.BroadcastOptions{
		Selector: map[string]string{"role": "shop"},
		OnLost:   engine.LostFails, // a shop that dies meanwhile has an empty cache
		Deadline: time.Minute,
	})
	if err != nil {
		return nil, err
	}
	return all.Wait(ctx)
}

// open connects a shop and runs its worker until ctx ends. It returns when the shop
// is there.
func (s *shop) open(ctx context.Context, srv *embedded.Server, node string, open *sync.WaitGroup) (*engine.Engine, error) {
	nc, err := srv.Connect(engine.ConnectOptions()...)
	if err != nil {
		return nil, err
	}
	eng, err := engine.Connect(ctx, nc, engine.Options{Node: node, Labels: map[string]string{"role": "shop"}})
	if err != nil {
		return nil, err
	}
	worker, err := eng.Worker(engine.WorkerOptions{}, engine.NewJob("cache.flush", s.flush))
	if err != nil {
		return nil, err
	}
	open.Go(func() {
		defer nc.Close()
		defer eng.Close()
		if err := worker.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	for !eng.Joined() && ctx.Err() == nil {
		<-time.After(10 * time.Millisecond)
	}
	return eng, ctx.Err()
}
