package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/cmd/millrace/bench"
	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

type benchCmd struct {
	Throughput benchThroughputCmd `cmd:"" help:"Measure no-op jobs a second, and what the same messages by hand would be."`
}

type benchThroughputCmd struct {
	Duration time.Duration `help:"How long to measure, about." default:"15s"`
	Jobs     int           `help:"How many jobs to run in each round, instead of a duration." placeholder:"N"`
	Slots    int           `help:"How many handlers run at once." default:"256"`
	Payload  int           `help:"Bytes of input in each job." default:"0" placeholder:"BYTES"`
}

// embeddedServer is what --server says for a server in this process.
const embeddedServer = "embedded"

// Run measures, on a server in this process unless another one is named.
func (c *benchThroughputCmd) Run(ctx context.Context, e *env) error {
	if err := c.check(); err != nil {
		return usage(err)
	}
	o := bench.Options{Duration: c.Duration, Jobs: c.Jobs, Slots: c.Slots, Payload: c.Payload}
	nc, shut, err := c.connect(ctx, e)
	if err != nil {
		return err
	}
	defer shut()
	if e.given && e.Server != embeddedServer {
		o.Domain = e.JSDomain
	}
	result, err := bench.Throughput(ctx, nc, o)
	if err != nil {
		return fmt.Errorf("measure throughput: %w", err)
	}
	if e.Output == "json" {
		return json.NewEncoder(e.stdout).Encode(result)
	}
	result.Write(e.stdout)
	return nil
}

func (c *benchThroughputCmd) check() error {
	switch {
	case c.Duration <= 0:
		return fmt.Errorf("--duration is %v: use a positive one", c.Duration)
	case c.Jobs < 0:
		return fmt.Errorf("--jobs is %d: use 1 or more", c.Jobs)
	case c.Slots < 1:
		return fmt.Errorf("--slots is %d: use 1 or more", c.Slots)
	case c.Payload < 0:
		return fmt.Errorf("--payload is %d: use 0 or more", c.Payload)
	}
	return nil
}

// connect connects to the server that was named, or to one that it starts.
func (c *benchThroughputCmd) connect(ctx context.Context, e *env) (nc *nats.Conn, shut func(), err error) {
	if e.given && e.Server != embeddedServer {
		nc, err := e.dial(quiet())
		if err != nil {
			return nil, nil, err
		}
		return nc, nc.Close, nil
	}
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return nil, nil, err
	}
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir, Logger: quiet()})
	if err == nil {
		nc, err = srv.Connect(engine.ConnectOptions()...)
	}
	shut = func() {
		if nc != nil {
			nc.Close()
		}
		if srv != nil {
			srv.Close()
		}
		_ = os.RemoveAll(dir) // a temporary folder that stays does no harm
	}
	if err != nil {
		shut()
		return nil, nil, err
	}
	return nc, shut, nil
}
