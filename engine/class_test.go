package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// starts are the jobs that were started, by their local IDs, in order.
type starts struct {
	mu   sync.Mutex
	list []string
}

func (s *starts) add(local string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, local)
}

func (s *starts) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// inTurn is a job that takes a tenth of a second and notes when it starts.
func inTurn(s *starts) *engine.Job[any, string] {
	return engine.NewJob("job", func(ctx context.Context, _ any) (string, error) {
		_, local, _ := strings.Cut(engine.JobFrom(ctx).ID, ".")
		s.add(local)
		time.Sleep(100 * time.Millisecond)
		return "", nil
	}, engine.JobOptions{Class: engine.Low})
}

// classed submits jobs of a class, which are named after it.
func classed(t *testing.T, eng *engine.Engine, class engine.Class, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		id := fmt.Sprint(class, i)
		if _, err := eng.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: id, Class: class}); err != nil {
			t.Fatal(err)
		}
	}
}

// Of what waits for a slot the higher class starts first, as a rule, and there is
// one slot in 23 for the lowest at least, although there are always higher ones.
func TestClasses(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		var s starts
		p := start(t, srv, "a", nil)
		classed(t, p.Engine, engine.Low, 0, 3)
		classed(t, p.Engine, engine.Normal, 0, 20)
		classed(t, p.Engine, engine.High, 0, 60)
		p.run(engine.WorkerOptions{Slots: 1}, inTurn(&s))
		time.Sleep(7 * time.Second)
		count := map[byte]int{}
		started := s.all()
		for i, local := range started[:66] {
			count[local[0]]++
			if class, want := local[0], i/23; class == 'l' && count['l'] > want+2 || count['l'] < want {
				t.Errorf("after %d starts: %v", i+1, started)
			}
		}
		if count['h'] < 44 || count['n'] < 10 {
			t.Errorf("of 66 starts %d are high, %d normal and %d low: %v", count['h'], count['n'], count['l'], started)
		}
		time.Sleep(10 * time.Second)
		if n := len(s.all()); n != 83 {
			t.Errorf("%d jobs were started, want all", n)
		}
	})
}

// An endless stream of high jobs does not keep the only slot from a low one, and
// neither do many queues that have no low ones any more.
func TestClassStarves(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		var s starts
		p := start(t, srv, "a", nil)
		defs := []engine.Definition{inTurn(&s)}
		var others []string
		for i := range 20 {
			kind := fmt.Sprint("other", i)
			defs = append(defs, engine.NewJob(kind, func(context.Context, any) (any, error) { return nil, nil }))
			job, err := p.Submit(t.Context(), kind, nil, engine.SubmitOptions{Class: engine.Low})
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, job.ID)
		}
		p.run(engine.WorkerOptions{Slots: 1}, defs...)
		for _, id := range others {
			ended(t, p.Engine, id, "succeeded", 1, 0)
		}
		classed(t, p.Engine, engine.High, 0, 5)
		ctx, cancel := context.WithCancel(t.Context())
		var feeding sync.WaitGroup
		feeding.Go(func() {
			for i := 5; ctx.Err() == nil; i++ {
				classed(t, p.Engine, engine.High, i, i+1)
				time.Sleep(50 * time.Millisecond) // twice as fast as they run
			}
		})
		time.Sleep(time.Second)
		job, err := p.Submit(t.Context(), "job", nil, engine.SubmitOptions{Class: engine.Low})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		within, enough := context.WithTimeout(t.Context(), 25*100*time.Millisecond)
		defer enough()
		if info, err := p.Wait(within, job.ID); err != nil || info.State != "succeeded" {
			t.Errorf("a low job is %s after %v, want 23 slots at most: %v", info.State, time.Since(began), err)
		}
		cancel()
		feeding.Wait()
	})
}

// The first job of a class starts at once, although nobody has used the class
// before: on workers that are there, on those that come later, and after an outage
// in which nobody could hear of it.
func TestClassIsNew(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		var s starts
		client, a := start(t, srv, "client", nil), start(t, srv, "a", nil)
		stop := a.run(engine.WorkerOptions{}, inTurn(&s))
		time.Sleep(time.Minute)
		soon := func(class engine.Class, from int, what string) {
			t.Helper()
			began := time.Now()
			info := ended(t, client.Engine, fmt.Sprint("job.", class, from), "succeeded", 1, 0)
			if took := time.Since(began); took > time.Second || info.Class != string(class) {
				t.Errorf("%s: job of class %s ended after %v", what, info.Class, took)
			}
		}
		if used := consumers(t, client.nc); used != "job" {
			t.Errorf("before: the consumers are %s", used)
		}
		classed(t, client.Engine, engine.High, 0, 1)
		soon(engine.High, 0, "heard")
		if used := consumers(t, client.nc); used != "job job=high" {
			t.Errorf("after: the consumers are %s", used)
		}

		a.link.Down()
		time.Sleep(time.Second)
		classed(t, client.Engine, engine.Low, 0, 1)
		time.Sleep(time.Second)
		a.link.Up()
		time.Sleep(2 * time.Second)
		soon(engine.Low, 0, "after an outage")

		if err := stop(); err != nil {
			t.Error(err)
		}
		classed(t, client.Engine, engine.Low, 1, 2)
		start(t, srv, "b", nil).run(engine.WorkerOptions{}, inTurn(&s))
		time.Sleep(time.Second)
		soon(engine.Low, 1, "by a new worker")
	})
}

// A class stays with its job: through retries, a redrive and a snooze.
func TestClassStays(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, tries := start(t, srv, "a", nil), 0
		serve(t, p.Engine)
		job := engine.NewJob("job", func(context.Context, any) (string, error) {
			switch tries++; tries {
			case 1:
				return "", fmt.Errorf("boom")
			case 2:
				return "", engine.Snooze(time.Minute)
			case 3:
				return "", engine.Fail(fmt.Errorf("bang"))
			}
			return "", nil
		}, engine.JobOptions{Class: engine.High})
		p.run(engine.WorkerOptions{}, job)
		h, err := job.Submit(t.Context(), p.Engine, nil, engine.SubmitOptions{ID: "1"})
		if err != nil {
			t.Fatal(err)
		}
		ended(t, p.Engine, h.ID, "failed", 3, 2)
		if _, err := p.Retry(t.Context(), h.ID); err != nil {
			t.Fatal(err)
		}
		if info := ended(t, p.Engine, h.ID, "succeeded", 4, 0); info.Class != "high" {
			t.Errorf("its class is %s", info.Class)
		}
		stream := jetStream(t, p.nc)
		c, err := stream.Consumer(t.Context(), "mr_default_work", "job=high")
		if err != nil {
			t.Fatal(err)
		}
		if n := c.CachedInfo().Delivered.Consumer; n != 4 {
			t.Errorf("the class delivered %d items, want 4", n)
		}
	})
}

// A class that does not exist is refused at the edge.
func TestBadClass(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv)
		_, err := eng.Submit(t.Context(), "job", nil, engine.SubmitOptions{Class: "urgent"})
		if err == nil || err.Error() != `engine: submit job: class is "urgent": use high, normal or low` {
			t.Errorf("got %v", err)
		}
		if _, err := eng.Worker(engine.WorkerOptions{}, engine.NewJob[any, any]("job", nil, engine.JobOptions{Class: "urgent"})); err == nil {
			t.Error("a definition with it was accepted")
		}
	})
}

// consumers returns the names of the consumers of the work queue.
func consumers(t *testing.T, nc *nats.Conn) string {
	t.Helper()
	stream, err := jetStream(t, nc).Stream(t.Context(), "mr_default_work")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range stream.ConsumerNames(t.Context()).Name() {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
