package cluster

import (
	"context"
	"errors"
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
	// answerTime is how long a server may take for an answer. A cluster that
	// elects its leaders gives none.
	answerTime = 5 * time.Second
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
		c.insist("make stream "+s.filler(), func(ctx context.Context) error {
			_, err := js.CreateStream(ctx, s.ballast())
			return err
		})
	}
	for _, s := range c.servers {
		s.fill(js)
	}
}

// Free gives back what Fill has used up.
func (c *Cluster) Free() {
	c.t.Helper()
	js := c.jetstream()
	for _, s := range c.servers {
		c.insist("delete stream "+s.filler(), func(ctx context.Context) error {
			err := js.DeleteStream(ctx, s.filler())
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				return nil // by an earlier try
			}
			return err
		})
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
	nc, err := c.connect(c.directURL())
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

// ballast is the stream that takes the room of a server: its alone.
func (s *Server) ballast() jetstream.StreamConfig {
	config := jetstream.StreamConfig{Name: s.filler(), Subjects: []string{s.filler()}}
	if len(s.c.servers) > 1 {
		config.Placement = &jetstream.Placement{Tags: []string{s.name}}
	}
	return config
}

// fill stores ballast on s alone until it refuses.
func (s *Server) fill(js jetstream.JetStream) {
	s.c.t.Helper()
	refused := false
	for !refused {
		s.c.insist("fill "+s.name, func(ctx context.Context) error {
			size, err := s.next()
			if err != nil {
				return err
			}
			if _, err = js.Publish(ctx, s.filler(), make([]byte, size)); full(err) {
				refused, err = true, nil
			}
			return err
		})
	}
}

// next is the size of the message that s has to store next.
func (s *Server) next() (int64, error) {
	o, err := s.look()
	if err != nil {
		return 0, err
	}
	if room := s.c.opts.MaxStore - o.Storage; room < ballast {
		return max(room, 0) + excess, nil
	}
	return ballast, nil
}

// insist does something until it succeeds: a meta leader that has no room any
// more steps down, and until there is another one, nobody answers.
func (c *Cluster) insist(what string, do func(context.Context) error) {
	c.t.Helper()
	var last error
	defer func() {
		if last != nil {
			c.t.Logf("cluster: %s: %v", what, last)
		}
	}()
	c.Await("the servers "+what, func() bool {
		ctx, cancel := context.WithTimeout(c.ctx, answerTime)
		defer cancel()
		last = do(ctx)
		return last == nil
	})
}

// full reports whether a server stored nothing because it has no room.
func full(err error) bool {
	refusal, ok := errors.AsType[*jetstream.APIError](err)
	const insufficientResources = 10023
	return ok && refusal.ErrorCode == insufficientResources
}
