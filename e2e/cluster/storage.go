package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/e2e/ledger"
)

const (
	// ballast is the size of a foreign message that takes room.
	ballast = 400 << 10
	// excess is by how much the last one goes beyond the limit, so that some
	// record that is deleted does not make room for another.
	excess = 400 << 10
	// storeTime is how long a server may take for one of them.
	storeTime = 30 * time.Second
)

// Fill uses up what the servers may store, Options.MaxStore, with streams that
// are not the engine's. When it returns, each server has refused a message for
// that reason. Deleting is possible still, and what the engine deletes or lets
// expire is room for it again, as far as it is more than excess.
func (c *Cluster) Fill() {
	c.t.Helper()
	if c.opts.MaxStore == 0 {
		c.t.Fatal("cluster: fill: there is no limit of storage: set Options.MaxStore")
	}
	c.write(ledger.Entry{What: ledger.Fault, Verb: ledger.Full})
	js := c.jetstream()
	for _, s := range c.servers {
		if err := s.fill(js); err != nil {
			c.t.Fatal(err)
		}
	}
}

// Free gives back what Fill has used up.
func (c *Cluster) Free() {
	c.t.Helper()
	js := c.jetstream()
	for _, s := range c.servers {
		ctx, cancel := context.WithTimeout(c.ctx, storeTime)
		err := led(ctx, func() error { return js.DeleteStream(ctx, s.filler()) })
		cancel()
		if err != nil {
			c.t.Fatalf("cluster: free the storage of %s: %v", s.name, err)
		}
		c.Await(s.name+" has room", func() bool {
			o, err := s.look()
			return err == nil && o.Storage < c.opts.MaxStore
		})
	}
	c.write(ledger.Entry{What: ledger.Heal, Verb: ledger.Full})
}

// jetstream returns a client of the harness's own.
func (c *Cluster) jetstream() jetstream.JetStream {
	c.t.Helper()
	nc, err := c.connect()
	if err != nil {
		c.t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatalf("cluster: %v", err)
	}
	return js
}

// filler is the name of the stream that takes the room of a server, and its
// subject.
func (s *Server) filler() string { return "fill-" + s.name }

// fill stores ballast on s alone until it refuses.
func (s *Server) fill(js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(s.c.ctx, storeTime)
	defer cancel()
	config := jetstream.StreamConfig{Name: s.filler(), Subjects: []string{s.filler()}}
	if len(s.c.servers) > 1 {
		config.Placement = &jetstream.Placement{Tags: []string{s.name}}
	}
	if err := led(ctx, func() error { _, err := js.CreateStream(ctx, config); return err }); err != nil {
		return fmt.Errorf("cluster: fill %s: %w", s.name, err)
	}
	for {
		o, err := s.look()
		if err != nil {
			return err
		}
		size := int64(ballast)
		if room := s.c.opts.MaxStore - o.Storage; room < ballast {
			size = max(room, 0) + excess
		}
		if err := s.load(js, size); full(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("cluster: fill %s: %w", s.name, err)
		}
	}
}

// led does something as soon as there is a meta leader: one that has no room any
// more steps down.
func led(ctx context.Context, do func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		refusal, ok := errors.AsType[*jetstream.APIError](err)
		const unavailable = 10008
		if !ok || refusal.ErrorCode != unavailable {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// load stores one message.
func (s *Server) load(js jetstream.JetStream, size int64) error {
	ctx, cancel := context.WithTimeout(s.c.ctx, storeTime)
	defer cancel()
	_, err := js.Publish(ctx, s.filler(), make([]byte, size))
	return err
}

// full reports whether a server stored nothing because it has no room.
func full(err error) bool {
	refusal, ok := errors.AsType[*jetstream.APIError](err)
	const insufficientResources = 10023
	return ok && refusal.ErrorCode == insufficientResources
}
