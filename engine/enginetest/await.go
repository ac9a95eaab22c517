package enginetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/machine"
)

// Submit creates a job, from the process of the test itself.
func Submit[In, Out any](env *Env, job *engine.Job[In, Out], in In, opts ...engine.SubmitOptions) *engine.Handle[Out] {
	env.t.Helper()
	env.mustReach("submit " + job.Kind())
	h, err := job.Submit(env.t.Context(), env.Engine(), in, opts...)
	if err != nil {
		env.t.Fatalf("enginetest: submit %s: %v", job.Kind(), err)
	}
	return h
}

// Result waits like [Env.Await] and returns the result of the job. It fails the
// test if the job has none.
func Result[Out any](env *Env, job *engine.Handle[Out]) Out {
	env.t.Helper()
	env.Await(job.ID)
	out, err := job.Wait(env.t.Context())
	if err != nil {
		env.t.Fatalf("enginetest: result: %v", err)
	}
	return out
}

// Get reads a job.
func (env *Env) Get(id string) engine.JobInfo {
	env.t.Helper()
	env.mustReach("get " + id)
	info, err := env.Engine().Get(env.t.Context(), id)
	if err != nil {
		env.t.Fatalf("enginetest: get %s: %v", id, err)
	}
	return info
}

// Await waits until a job has ended, however it did, and returns it. Meanwhile
// time passes by itself, also what is long until a job is due. It fails the test
// if nothing happens to the job for longer than [Options.Patience] allows.
func (env *Env) Await(id string) engine.JobInfo {
	env.t.Helper()
	return env.await(id, "end", func(ctx context.Context) (engine.JobInfo, error) {
		return env.Engine().Wait(ctx, id)
	})
}

// AwaitState waits like [Env.Await] until a job is in a state, such as
// "running", and returns it. It fails the test if the job ends in another one.
func (env *Env) AwaitState(id, state string) engine.JobInfo {
	env.t.Helper()
	if !machine.State(state).Known() {
		env.t.Fatalf("enginetest: await %s: there is no state %q: use one of %v", id, state, machine.States)
	}
	return env.await(id, "be "+state, func(ctx context.Context) (engine.JobInfo, error) {
		return env.watch(ctx, id, state)
	})
}

// await lets wait go on for as long as something may still happen to a job.
func (env *Env) await(id, what string, wait func(context.Context) (engine.JobInfo, error)) engine.JobInfo {
	env.t.Helper()
	for before := env.Get(id); ; {
		limit := env.opts.Patience
		if before.Due != nil {
			limit += max(0, time.Until(*before.Due))
		}
		ctx, cancel := context.WithTimeout(env.t.Context(), limit)
		info, err := wait(ctx)
		late := ctx.Err() != nil
		cancel()
		if err == nil {
			synctest.Wait()
			return info
		}
		if !late {
			env.t.Fatalf("enginetest: await %s: %v", id, err)
		}
		now := env.Get(id)
		if now.Revision == before.Revision {
			env.t.Fatalf("enginetest: await %s: it does not %s: %s", id, what, env.standstill(now, limit))
		}
		before = now
	}
}

// watch waits until a job is in a state.
func (env *Env) watch(ctx context.Context, id, state string) (engine.JobInfo, error) {
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue, _, _ := strings.Cut(id, ".")
	changes := make(chan engine.JobInfo)
	watching.Go(func() {
		defer close(changes)
		err := env.Engine().Watch(ctx, engine.ListOptions{Queue: queue}, func(info engine.JobInfo) {
			if info.ID != id {
				return
			}
			select {
			case changes <- info:
			case <-ctx.Done():
			}
		})
		if err != nil && ctx.Err() == nil {
			env.t.Errorf("enginetest: await %s: %v", id, err)
		}
	})
	for info := range changes {
		switch {
		case info.State == state:
			return info, nil
		case info.Ended():
			return info, fmt.Errorf("it is %s, and will not be %s", info.State, state)
		}
	}
	return engine.JobInfo{}, errors.New("the watch on it has ended")
}

// standstill says in one line how a job stands to which nothing happens.
func (env *Env) standstill(info engine.JobInfo, since time.Duration) string {
	line := fmt.Sprintf("%s for %v, attempt %d, failures %d", info.State, since, info.Attempt, info.Failures)
	if info.Error != nil {
		line += ", the last: " + info.Error.Message
	}
	if info.State == string(machine.Running) && info.Node != nil {
		return line + ", on " + *info.Node
	}
	why, err := env.Engine().Why(env.t.Context(), info.ID)
	if err != nil {
		return line + "; " + err.Error()
	}
	return line + "; " + why.Text
}
