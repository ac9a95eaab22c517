package engine_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A site is a hub and a leaf node, and where the namespace lives.
type site struct {
	natstest.Domains
	domain string
}

// sites are the kinds of them: leaf nodes without JetStream, and with one of
// their own; the JetStream that does not have the namespace stays empty.
var sites = map[string]site{
	"leaf without JetStream": {natstest.Domains{Hub: "hub"}, "hub"},
	"leaf with JetStream":    {natstest.Domains{Hub: "hub", Leaf: "leaf"}, "hub"},
	"namespace on the leaf":  {natstest.Domains{Hub: "hub", Leaf: "leaf"}, "leaf"},
}

// connect opens the namespace, from either server.
func (s site) connect(t testing.TB, srv *server.Server, node string) *engine.Engine {
	t.Helper()
	return connect(t, srv, engine.Options{Domain: s.domain, Node: node})
}

// Whatever is done on one side of a leaf node is seen on the other.
func TestDomain(t *testing.T) {
	t.Parallel()
	for name, s := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := natstest.StartTree(t, s.Domains)
			for side, servers := range map[string][2]*server.Server{
				"worker and owner on the leaf": {tree.Leaf, tree.Hub},
				"worker and owner on the hub":  {tree.Hub, tree.Leaf},
			} {
				t.Run(side, func(t *testing.T) { s.test(t, servers[0], servers[1]) })
			}
			if s.domain == "leaf" {
				empty(t, tree.Hub)
			} else if s.Leaf != "" {
				empty(t, tree.Leaf)
			}
		})
	}
}

// empty checks that the JetStream of a server holds nothing.
func empty(t *testing.T, srv *server.Server) {
	t.Helper()
	names := jetStream(t, natstest.Connect(t, srv)).StreamNames(t.Context())
	for name := range names.Name() {
		t.Errorf("stream %s is on server %s", name, srv.Name())
	}
	if err := names.Err(); err != nil {
		t.Error(err)
	}
}

func (s site) test(t *testing.T, near, far *server.Server) {
	got := make(chan order, 1)
	hold := engine.NewJob("hold", func(ctx context.Context, _ any) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	defer serve(t, s.connect(t, near, "server"))()
	defer work(t, s.connect(t, near, "worker"), engine.WorkerOptions{}, greeting(), hold, fulfil(got))()
	eng := s.connect(t, far, "")
	greeted(t, eng, engine.SubmitOptions{})
	greeted(t, eng, engine.SubmitOptions{Delay: time.Second})
	copied(t, eng)
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

// copied checks that values travel that are not part of the record, with a unique key,
// and go with the job.
func copied(t *testing.T, eng *engine.Engine) {
	t.Helper()
	name := strings.Repeat("n", 200<<10)
	opts := engine.SubmitOptions{Unique: engine.Unique{Key: "large", Period: time.Hour}}
	job, err := greeting().Submit(t.Context(), eng, name, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := job.Wait(ctx); err != nil || got != "hello "+name {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len("hello "+name))
	}
	if again, err := greeting().Submit(ctx, eng, name, opts); err != nil || again.ID != job.ID {
		t.Errorf("got %+v, %v, want %s", again, err, job.ID)
	}
	if err := eng.Delete(ctx, job.ID); err != nil {
		t.Error(err)
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
	for name, s := range sites {
		if s.domain != "hub" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := natstest.StartTree(t, s.Domains)
			started, release := make(chan string, 10), make(chan struct{})
			slow := engine.NewJob("slow", func(ctx context.Context, _ any) (any, error) {
				started <- engine.JobFrom(ctx).ID
				<-release
				return nil, nil
			})
			defer serve(t, s.connect(t, tree.Leaf, "server"))()
			defer work(t, s.connect(t, tree.Leaf, "worker"), engine.WorkerOptions{}, greeting(), slow)()
			eng := s.connect(t, tree.Leaf, "")
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
