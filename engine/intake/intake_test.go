package intake_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine/intake"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

const (
	ns    = streams.DefaultNamespace
	lease = 6 * time.Second
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// natstest keeps it running on purpose.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// world is a work queue, and what was taken from it.
type world struct {
	*testing.T
	pub   *publish.Publisher
	work  *streams.Work
	shape streams.Shape

	mu    sync.Mutex
	taken []string // names of intakes and of items
}

func newWorld(t *testing.T, srv *server.Server) *world {
	t.Helper()
	pub, err := publish.New(natstest.Connect(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	quiet := slog.New(slog.DiscardHandler)
	if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	work, err := streams.NewWork(ns, pub)
	if err != nil {
		t.Fatal(err)
	}
	return &world{T: t, pub: pub, work: work, shape: streams.Shape{AckWait: lease}}
}

// js returns the JetStream API.
func (w *world) js() jetstream.JetStream {
	w.Helper()
	js, err := w.pub.JetStream()
	if err != nil {
		w.Fatal(err)
	}
	return js
}

// offer offers items of the queue mail.
func (w *world) offer(class string, n int) {
	w.Helper()
	for i := range n {
		item := streams.Item{Queue: "mail", Local: fmt.Sprint(class, i), Class: class, Revision: 1}
		if err := w.work.Offer(w.Context(), item); err != nil {
			w.Fatal(err)
		}
	}
}

// gate is a gate that tests open and close.
type gate struct {
	mu      sync.Mutex
	open    bool
	changed chan struct{}
}

func newGate() *gate { return &gate{open: true, changed: make(chan struct{})} }

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = open
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) gate(string) (bool, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.changed
}

// run runs an intake of the queue mail with one gate, until the test ends. Items
// take some time to be decided, and some more until they are done with.
func (w *world) run(name string, slots int, g *gate) *intake.Intake {
	w.Helper()
	var deciding sync.WaitGroup
	var in *intake.Intake
	in = intake.New(w.work, intake.Options{
		Queues: []string{"mail"}, Slots: slots, Ready: func() bool { return true }, Gates: []intake.Gate{g.gate},
		Shape:  func(context.Context, string) (streams.Shape, error) { return w.shape, nil },
		Logger: slog.New(slog.DiscardHandler),
		Take: func(_ context.Context, t *intake.Taken, err error) {
			if err != nil {
				w.Error(err)
			}
			deciding.Go(func() {
				defer t.Free()
				if !in.Open("mail") {
					_ = t.Nak(0)
					return
				}
				time.Sleep(3 * time.Millisecond) // the claim
				w.note(name + " " + t.Local)
				t.Decided()
				time.Sleep(20 * time.Millisecond) // the handler
				_ = t.Ack()
			})
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := in.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	w.Cleanup(func() { cancel(); running.Wait(); deciding.Wait() })
	return in
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(w.taken, what)
}

// count returns how many items an intake has started.
func (w *world) count(name string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, what := range w.taken {
		if what[:1] == name {
			n++
		}
	}
	return n
}

// idle waits until an intake is idle.
func (w *world) idle(in *intake.Intake) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Second)
	defer cancel()
	if err := in.Idle(ctx); err != nil {
		w.Error(err)
	}
}

// After a gate was closed and the intake is idle nothing starts, whenever that is,
// and what was taken meanwhile is another one's at once.
func TestGate(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w, rng := newWorld(t, srv), rand.New(rand.NewPCG(1, 2))
		ga, gb := newGate(), newGate()
		a := w.run("a", 3, ga)
		w.run("b", 50, gb)
		for round := range 40 {
			gb.set(false)
			ga.set(true)
			w.offer([]string{"", streams.High, streams.Low}[round%3], rng.IntN(20))
			time.Sleep(time.Duration(rng.IntN(60_000)) * time.Microsecond)
			ga.set(false)
			w.idle(a)
			before := w.count("a")
			gb.set(true)
			began := time.Now()
			for load := (streams.Load{Waiting: 1}); load.Waiting+load.Taken > 0; time.Sleep(time.Millisecond) {
				var err error
				if load, err = w.work.Load(t.Context(), "mail"); err != nil {
					t.Fatal(err)
				}
				if time.Since(began) > lease/2 {
					t.Fatalf("round %d: %+v is left", round, load)
				}
			}
			if n := w.count("a"); n != before {
				t.Fatalf("round %d: %d items were started behind a closed gate", round, n-before)
			}
			if free := a.Free(); free != 3 {
				t.Fatalf("round %d: %d slots are free, want all", round, free)
			}
		}
		if w.count("a") == 0 || w.count("b") == 0 {
			t.Errorf("a started %d items and b %d", w.count("a"), w.count("b"))
		}
	})
}

// A pull that waits at an empty queue is given up as soon as the gate closes, and
// made again as soon as it opens. Until then Idle waits.
func TestGateEndsPulls(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w, g := newWorld(t, srv), newGate()
		in := w.run("a", 1, g)
		asking := func(want int) {
			t.Helper()
			time.Sleep(10 * time.Millisecond)
			load, err := w.work.Load(t.Context(), "mail")
			if err != nil || load.Asking != want {
				t.Errorf("%d pulls wait, want %d: %v", load.Asking, want, err)
			}
		}
		time.Sleep(time.Second)
		asking(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := in.Idle(ctx); err == nil {
			t.Error("it is idle while it asks")
		}
		g.set(false)
		asking(0)
		w.idle(in)
		g.set(true)
		asking(1)
	})
}

// Whoever deletes a consumer, or changes how the queue is served, delays its items
// for a moment, whichever consumer it is.
func TestConsumerGoes(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, srv)
		w.run("a", 5, newGate())
		js, err := jetstream.New(w.pub.Conn())
		if err != nil {
			t.Fatal(err)
		}
		all := 0
		for round, change := range []func() error{
			func() error { return nil },
			func() error { return js.DeleteConsumer(t.Context(), ns.WorkStream(), "mail") },
			func() error { return js.DeleteConsumer(t.Context(), ns.WorkStream(), "mail=high") },
			func() error {
				w.shape.Concurrency = 2
				return w.work.Serve(t.Context(), "mail", w.shape)
			},
			func() error { return js.DeleteConsumer(t.Context(), ns.WorkStream(), "mail") },
			func() error {
				w.shape.Concurrency = 0
				return w.work.Serve(t.Context(), "mail", w.shape)
			},
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			for _, class := range []string{"", streams.High, streams.Low} {
				w.offer(class, 3)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if all += 9; w.count("a") != all {
				t.Fatalf("round %d: %d items were started, want %d", round, w.count("a"), all)
			}
		}
	})
}

// What cannot work is refused.
func TestOptions(t *testing.T) {
	t.Parallel()
	if err := intake.New(nil, intake.Options{}).Run(t.Context()); err == nil {
		t.Error("no slots were accepted")
	}
	if err := intake.New(nil, intake.Options{Slots: 1}).Run(t.Context()); err == nil {
		t.Error("nobody to take was accepted")
	}
}
