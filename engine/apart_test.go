package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// Namespaces of one server use the same names for everything, and nothing of one
// is seen in the other, whatever their own names have in common.
func TestNamespacesApart(t *testing.T) {
	for _, pair := range [][2]string{{"a", "a_b"}, {"shop-eu", "shop"}} {
		t.Run(pair[0]+" and "+pair[1], func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				testApart(t, settle(t, srv, pair[0]), settle(t, srv, pair[1]))
			})
		})
	}
}

// tenant is a namespace with a server and a worker.
type tenant struct {
	*engine.Engine
	t    *testing.T
	nc   *nats.Conn
	name string
	stop []func()
}

// settle starts what every namespace has here: a node n that works, and the
// trigger new-orders.
func settle(t *testing.T, srv *server.Server, name string) *tenant {
	t.Helper()
	ten := &tenant{t: t, name: name, nc: natstest.Connect(t, srv)}
	eng, err := engine.Connect(t.Context(), ten.nc, engine.Options{Namespace: name, Node: "n", Labels: map[string]string{"of": name}, Logger: voice(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(eng.Close)
	ten.Engine = eng
	whose := func(ctx context.Context, _ any) (string, error) {
		engine.JobFrom(ctx).Logger().Info("ran", "in", name)
		return name, nil
	}
	fails := func(context.Context, any) (string, error) { return "", errors.New(name) }
	ten.stop = []func(){
		serve(t, eng),
		work(t, eng, engine.WorkerOptions{}, engine.NewJob("job", whose), engine.NewJob("bad", fails), engine.NewJob("order.fulfil", whose)),
	}
	apply(t, eng, byID)
	waitTrigger(t, eng, byID.Name)
	return ten
}

// ids returns all jobs as ID=state, sorted.
func (ten *tenant) ids() (list []string) {
	ten.t.Helper()
	infos, err := ten.List(ten.t.Context())
	if err != nil {
		ten.t.Fatal(err)
	}
	for _, info := range infos {
		list = append(list, info.ID+"="+info.State)
	}
	slices.Sort(list)
	return list
}

// has checks which jobs there are, in which states, and that those which
// succeeded did so here.
func (ten *tenant) has(want ...string) {
	ten.t.Helper()
	if d := cmp.Diff(want, ten.ids()); d != "" {
		ten.t.Errorf("jobs of %s (-want +got):\n%s", ten.name, d)
	}
	infos, err := ten.List(ten.t.Context(), engine.ListOptions{State: "succeeded"})
	if err != nil {
		ten.t.Fatal(err)
	}
	for _, info := range infos {
		if got, err := ten.Get(ten.t.Context(), info.ID); err != nil || string(got.Result) != fmt.Sprintf("%q", ten.name) {
			ten.t.Errorf("%s of %s has result %s, %v", info.ID, ten.name, got.Result, err)
		}
	}
}

// log returns what was said about a job.
func (ten *tenant) log(id string) (lines []string) {
	ten.t.Helper()
	err := ten.Logs(ten.t.Context(), id, engine.LogOptions{}, func(line engine.LogLine) error {
		lines = append(lines, line.Text+" "+string(line.Attrs))
		return nil
	})
	if err != nil {
		ten.t.Fatal(err)
	}
	return lines
}

// fill makes the same jobs in every namespace.
func (ten *tenant) fill() {
	ten.t.Helper()
	for _, s := range []struct {
		kind, id string
		delay    time.Duration
	}{{"job", "now", 0}, {"job", "later", 20 * time.Minute}, {"job", "never", 20 * time.Minute}, {"bad", "now", 0}} {
		if _, err := ten.Submit(ten.t.Context(), s.kind, nil, engine.SubmitOptions{ID: s.id, Delay: s.delay, MaxAttempts: 1}); err != nil {
			ten.t.Fatal(err)
		}
	}
	if _, err := ten.Cancel(ten.t.Context(), "job.never"); err != nil {
		ten.t.Fatal(err)
	}
}

// still returns how many messages each stream has had that changes by what
// somebody does, not by itself.
func (ten *tenant) still() map[string]uint64 {
	ten.t.Helper()
	seen := map[string]uint64{}
	ns := streams.Namespace(ten.name)
	for _, name := range ns.Streams() {
		if name != "KV_"+ns.Bucket(streams.Nodes) && name != "KV_"+ns.Bucket(streams.Leases) && name != ns.CaptureStream() {
			state := streamInfo(ten.t, ten.nc, name).State
			seen[name] = state.LastSeq + 1<<32*state.Msgs
		}
	}
	return seen
}

func testApart(t *testing.T, one, other *tenant) {
	one.fill()
	other.fill()
	publish(t, one.nc, "orders.created", `{"id":"x","total":1}`)
	time.Sleep(time.Minute)
	all := []string{"bad.now=failed", "job.later=scheduled", "job.never=cancelled", "job.now=succeeded", "order.x=succeeded"}
	one.has(all...)
	other.has(all...)
	for _, ten := range []*tenant{one, other} {
		if d := cmp.Diff([]string{`ran {"in":"` + ten.name + `"}`}, ten.log("job.now")); d != "" {
			t.Errorf("log of job.now of %s (-want +got):\n%s", ten.name, d)
		}
		if members, err := ten.Nodes(t.Context()); err != nil || len(members) != 1 || members[0].Labels["of"] != ten.name || !members[0].Owner {
			t.Errorf("%s has nodes %+v, %v", ten.name, members, err)
		}
	}

	// What one does is not felt by the other.
	before := other.still()
	one.upset()
	time.Sleep(5 * time.Minute)
	if d := cmp.Diff(before, other.still()); d != "" {
		t.Errorf("streams of %s changed (-before +after):\n%s", other.name, d)
	}
	other.has(all...)
	one.has("bad.now=pending", "job.alone=pending", "job.later=scheduled")

	// And goes on.
	publish(t, one.nc, "orders.created", `{"id":"y","total":1}`)
	time.Sleep(20 * time.Minute)
	other.has("bad.now=failed", "job.later=succeeded", "job.never=cancelled", "job.now=succeeded", "order.x=succeeded", "order.y=succeeded")
	one.has("bad.now=pending", "job.alone=pending", "job.later=scheduled")
	for _, stop := range other.stop {
		stop()
	}
}

// upset stops all processes of a namespace and deletes what it has.
func (ten *tenant) upset() {
	ten.t.Helper()
	ctx := ten.t.Context()
	_, paused := ten.PauseQueue(ctx, "job")
	errs := []error{paused, ten.Drain(ctx, "n"), ten.DeleteTrigger(ctx, byID.Name)}
	for _, stop := range ten.stop {
		stop()
	}
	for _, id := range []string{"job.now", "job.never", "order.x"} {
		errs = append(errs, ten.Delete(ctx, id))
	}
	_, err := ten.Redrive(ctx, engine.DeadFilter{})
	errs = append(errs, err)
	_, err = ten.Submit(ctx, "job", nil, engine.SubmitOptions{ID: "alone"})
	if err := errors.Join(append(errs, err)...); err != nil {
		ten.t.Fatal(err)
	}
}
