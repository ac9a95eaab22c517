package engine_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// leaves are the two kinds of leaf nodes: without JetStream, and with one of
// their own, in which nothing of ours may end up.
var leaves = map[string]natstest.Domains{
	"without JetStream": {Hub: "hub"},
	"with JetStream":    {Hub: "hub", Leaf: "leaf"},
}

// inHub returns an engine for the namespace of the hub, on either server.
func inHub(t testing.TB, srv *server.Server, node string) *engine.Engine {
	t.Helper()
	return connect(t, srv, engine.Options{Domain: "hub", Node: node})
}

// Whatever is done on one side of a leaf node is seen on the other.
func TestDomain(t *testing.T) {
	t.Parallel()
	for name, domains := range leaves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := natstest.StartTree(t, domains)
			defer apart(t, tree)
			for side, servers := range map[string][2]*server.Server{
				"worker and owner on the leaf": {tree.Leaf, tree.Hub},
				"worker and owner on the hub":  {tree.Hub, tree.Leaf},
			} {
				t.Run(side, func(t *testing.T) { testDomain(t, servers[0], servers[1]) })
			}
		})
	}
}

// apart checks that the JetStream of the leaf, if it has one, holds nothing.
func apart(t *testing.T, tree *natstest.Tree) {
	t.Helper()
	if !tree.Leaf.JetStreamEnabled() {
		return
	}
	names := jetStream(t, natstest.Connect(t, tree.Leaf)).StreamNames(t.Context())
	for name := range names.Name() {
		t.Errorf("stream %s is on the leaf", name)
	}
	if err := names.Err(); err != nil {
		t.Error(err)
	}
}

func testDomain(t *testing.T, near, far *server.Server) {
	got := make(chan order, 1)
	hold := engine.NewJob("hold", func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	stop := serve(t, inHub(t, near, "server"))
	defer stop()
	defer work(t, inHub(t, near, "worker"), engine.WorkerOptions{}, greeting(), hold, fulfil(got))()
	eng := inHub(t, far, "")
	greeted(t, eng, engine.SubmitOptions{})
	greeted(t, eng, engine.SubmitOptions{Delay: time.Second})
	cancelled(t, eng, hold)
	triggered(t, eng, got, near, far)

	members, err := eng.Nodes(t.Context())
	if err != nil || len(members) != 2 {
		t.Errorf("got nodes %v, %v, want two", members, err)
	}
	if healed, err := eng.Reconcile(t.Context()); err != nil {
		t.Errorf("got %+v, %v", healed, err)
	}
}

// greeted checks that a job runs and that its result comes back.
func greeted(t *testing.T, eng *engine.Engine, opts engine.SubmitOptions) {
	t.Helper()
	job, err := greeting().Submit(t.Context(), eng, "Ann", opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := job.Wait(ctx); err != nil || got != "hello Ann" {
		t.Errorf("got %q, %v, want hello Ann", got, err)
	}
}

// cancelled checks that a node hears from the other side what it is asked.
func cancelled(t *testing.T, eng *engine.Engine, hold *engine.Job[any, any]) {
	t.Helper()
	job, err := hold.Submit(t.Context(), eng, nil)
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() (engine.JobInfo, bool) {
		info, err := eng.Get(t.Context(), job.ID)
		return info, err == nil && info.State == "running"
	})
	if _, err := eng.Cancel(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	ended(t, eng, job.ID, "cancelled", 1, 0)
}

// triggered checks that events of either side start jobs, one for an ID.
func triggered(t *testing.T, eng *engine.Engine, got <-chan order, servers ...*server.Server) {
	t.Helper()
	apply(t, eng, byID)
	for i, srv := range servers {
		id := t.Name()[len(t.Name())-3:] + strconv.Itoa(i)
		nc := natstest.Connect(t, srv)
		o := until(t, func() (o order, ok bool) { // the server has heard that somebody captures them
			publish(t, nc, "orders.created", fmt.Sprintf(`{"id":%q,"total":1}`, id))
			select {
			case o = <-got:
				return o, true
			default:
				return o, false
			}
		})
		if o.ID != id {
			t.Errorf("got %v, want %s", o, id)
		}
	}
	if err := eng.DeleteTrigger(t.Context(), byID.Name); err != nil {
		t.Error(err)
	}
}

// The hub goes away for a while, of which connections to the leaf hear nothing.
// A job that ends meanwhile has ended once, and afterwards all goes on.
func TestDomainOutage(t *testing.T) {
	t.Parallel()
	for name, domains := range leaves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := natstest.StartTree(t, domains)
			started, release := make(chan string, 10), make(chan struct{})
			slow := engine.NewJob("slow", func(ctx context.Context, _ any) (any, error) {
				started <- engine.JobFrom(ctx).ID
				<-release
				return nil, nil
			})
			defer serve(t, inHub(t, tree.Leaf, "server"))()
			defer work(t, inHub(t, tree.Leaf, "worker"), engine.WorkerOptions{}, greeting(), slow)()
			eng := inHub(t, tree.Leaf, "")
			job, err := slow.Submit(t.Context(), eng, nil)
			if err != nil {
				t.Fatal(err)
			}
			receive(t, started)
			natstest.Stop(tree.Hub)
			close(release)
			if info, err := eng.Get(t.Context(), job.ID); err == nil {
				t.Errorf("got %+v although the hub is away", info)
			}
			tree.StartHub()
			tree.Connected()
			ended(t, eng, job.ID, "succeeded", 1, 0)
			greeted(t, eng, engine.SubmitOptions{})
			greeted(t, eng, engine.SubmitOptions{Delay: time.Second})
			if len(started) != 0 {
				t.Errorf("%s started again", <-started)
			}
		})
	}
}
