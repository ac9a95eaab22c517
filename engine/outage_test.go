package engine_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// NATS is away for a while, as a server that comes back or as a new one on the
// same store, while fifty jobs run and more are waiting. Every process resumes
// within 5 s of its return (I9). What ended meanwhile is not started again (I8),
// what obeyed the loss of its lease is, without a failure; and every job ends.
func TestOutage(t *testing.T) {
	for _, away := range []time.Duration{time.Second, 10 * time.Second, time.Minute} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v restart=%t", away, restart), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					o := &outage{T: t, srv: srv, ledger: newLedger()}
					o.run(away, restart)
				})
			})
		}
	}
}

// outage is a namespace with an owner, two workers and a client.
type outage struct {
	*testing.T
	srv       *server.Server
	ledger    *ledger
	processes []*process
}

func (o *outage) run(away time.Duration, restart bool) {
	o.Helper()
	const running, waiting = 50, 100
	for _, node := range []string{"client", "owner", "a", "b"} {
		o.processes = append(o.processes, start(o, o.srv, node, nil))
	}
	client, owner, a, b := o.processes[0], o.processes[1], o.processes[2], o.processes[3]
	serve(o, owner.Engine)
	a.run(engine.WorkerOptions{Slots: running}, o.job())
	b.run(engine.WorkerOptions{Slots: running}, o.job())
	time.Sleep(20 * time.Second) // the owner could judge
	var ids []string
	submit := func(what string, n int, opts engine.SubmitOptions) {
		o.Helper()
		for i := range n {
			opts.ID = what + strconv.Itoa(i)
			h, err := o.job().Submit(o.Context(), client.Engine, what, opts)
			if err != nil {
				o.Fatal(err)
			}
			ids = append(ids, h.ID)
		}
	}
	submit("stubborn", running/2, engine.SubmitOptions{}) // ends within the outage, if that is long
	submit("obedient", running/2, engine.SubmitOptions{})
	submit("quick", waiting, engine.SubmitOptions{})
	submit("delayed", waiting, engine.SubmitOptions{Delay: 3 * time.Second})
	time.Sleep(time.Second)
	if n := o.ledger.running(); n != running {
		o.Fatalf("%d jobs run, want %d", n, running)
	}

	o.outage(away, restart)
	back := time.Now()
	o.resumed(client, back)
	for _, id := range ids {
		info, err := client.Wait(o.Context(), id)
		if err != nil || info.State != "succeeded" || info.Failures != 0 || len(o.ledger.started(id)) != info.Attempt {
			o.Errorf("%s: %+v, %v, started on %v", id, info, err, o.ledger.started(id))
		}
		if info.Attempt > 1 && (info.Input[1] != 'o' || away < client.Lease()) {
			o.Errorf("%s was started %d times", id, info.Attempt)
		}
	}
	time.Sleep(time.Minute)
	if n := items(o, client.nc); n != 0 {
		o.Errorf("%d items are left", n)
	}
}

// outage takes NATS away.
func (o *outage) outage(away time.Duration, restart bool) {
	o.Helper()
	for _, p := range o.processes {
		p.link.Down()
	}
	dir := filepath.Dir(o.srv.StoreDir())
	if restart {
		natstest.Stop(o.srv)
	}
	time.Sleep(away)
	if restart {
		o.srv = natstest.Start(o, dir)
	}
	for _, p := range o.processes {
		if p.link.Up(); restart {
			p.link.Reroute(o.srv)
		}
	}
}

// resumed fails the test unless a job that is submitted when NATS is back starts
// within 5 s of that, and every process is ready by then.
func (o *outage) resumed(client *process, back time.Time) {
	o.Helper()
	for time.Since(back) < time.Minute {
		ctx, cancel := context.WithTimeout(o.Context(), time.Second)
		_, err := o.job().Submit(ctx, client.Engine, "quick", engine.SubmitOptions{ID: "afterwards"})
		cancel()
		if err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	info, err := client.Wait(o.Context(), "job.afterwards")
	if err != nil || info.Started.Sub(back) > 5*time.Second {
		o.Errorf("a job was started %v after the return: %v", info.Started.Sub(back), err)
	}
	for time.Since(back) < 5*time.Second {
		time.Sleep(10 * time.Millisecond)
	}
	for i, p := range o.processes {
		if !p.Ready() {
			o.Errorf("process %d is not ready", i)
		}
	}
}

// job is one that does what its input says: an obedient one ends with its context,
// the others do not.
func (o *outage) job() *engine.Job[string, string] {
	return engine.NewJob("job", func(ctx context.Context, what string) (string, error) {
		defer o.ledger.enter(ctx)()
		switch what {
		case "obedient":
			select {
			case <-ctx.Done():
				return "", context.Cause(ctx)
			case <-time.After(12 * time.Second):
			}
		case "stubborn":
			time.Sleep(8 * time.Second)
		}
		return "", nil
	})
}
