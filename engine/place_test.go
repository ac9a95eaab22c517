package engine_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// where is a job whose result is the node that ran it.
var where = engine.NewJob("where", func(ctx context.Context, _ int) (string, error) {
	time.Sleep(time.Second)
	return engine.JobFrom(ctx).Node, nil
})

// placed submits a job with a place.
func placed(t testing.TB, eng *engine.Engine, p engine.Place) *engine.Handle[string] {
	t.Helper()
	job, err := where.Submit(t.Context(), eng, 1, engine.SubmitOptions{Place: p})
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	return job
}

// result waits for the node that ran a job.
func result(t testing.TB, job *engine.Handle[string]) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	node, err := job.Wait(ctx)
	if err != nil {
		info, _ := job.Get(t.Context())
		t.Fatalf("%v: %s, pin %+v", err, info.State, info.Pin)
	}
	return node
}

// A job runs where its place says: on a node, on one with some labels, on the one to
// which its key leads, near another job.
func TestPlace(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		all := stations(t, srv, map[string]string{"a": "x", "b": "y", "c": "y"}, where)
		eng := all["a"].Engine
		var last *engine.Handle[string]
		for _, node := range []string{"a", "b", "c", "b"} {
			last = placed(t, eng, engine.Place{Node: node})
			if got := result(t, last); got != node {
				t.Errorf("a job for %s ran on %s", node, got)
			}
		}
		for range 5 {
			if got := result(t, placed(t, eng, engine.Place{Near: last.ID})); got != "b" {
				t.Errorf("a job near one on b ran on %s", got)
			}
			if got := result(t, placed(t, eng, engine.Place{Near: last.ID, Select: map[string]string{"zone": "x"}})); got != "a" {
				t.Errorf("a job for zone x, near one on b, ran on %s", got)
			}
		}
		ran, leads := map[string]int{}, map[string]string{}
		var jobs []*engine.Handle[string]
		for range 40 {
			jobs = append(jobs, placed(t, eng, engine.Place{Select: map[string]string{"zone": "y"}}))
		}
		for _, job := range jobs {
			ran[result(t, job)]++
		}
		if ran["a"] > 0 || ran["b"] < 5 || ran["c"] < 5 {
			t.Errorf("jobs for zone y ran on %v", ran)
		}
		for i := range 30 {
			key := fmt.Sprint(i % 10)
			got := result(t, placed(t, eng, engine.Place{Key: key}))
			if was := leads[key]; was != "" && was != got {
				t.Errorf("key %s leads to %s and to %s", key, was, got)
			}
			leads[key] = got
		}
		if info := get(t, eng, jobs[0].ID); info.Pin.Selector["zone"] != "y" || info.Pin.Incarnation == 0 || info.Pin.Else != "wait" || info.Part != nil {
			t.Errorf("got %+v", info.Pin)
		}
	})
}

// Without its node a job waits, goes to the queue or is refused, as its place says,
// also if the node goes while it waits.
func TestPlaceElse(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		all := stations(t, srv, map[string]string{"a": "x", "b": "y"}, where)
		eng := all["a"].Engine
		for want, p := range map[string]engine.Place{
			"node c is not there":                              {Node: "c", Else: engine.ElseFail},
			"there is no node with labels zone=z":              {Select: map[string]string{"zone": "z"}, Else: engine.ElseFail},
			"a node, and labels, a key or a job as well":       {Node: "a", Key: "k"},
			`its place says only "any"`:                        {Else: engine.ElseAny},
			`without a node it is to "run"`:                    {Node: "a", Else: "run"},
			"node \"a b\" contains ' '":                        {Node: "a b"},
			"job ID \"x\" has 0 dots":                          {Near: "x"},
			"the key of its place has 1025 bytes: use up to 1": {Key: strings.Repeat("k", 1025)},
		} {
			_, err := where.Submit(t.Context(), eng, 1, engine.SubmitOptions{Place: p})
			refused(t, err, want)
		}
		if got := result(t, placed(t, eng, engine.Place{Node: "c", Else: engine.ElseAny})); got == "c" {
			t.Errorf("it ran on %s", got)
		}
		node, zone := placed(t, eng, engine.Place{Node: "c"}), placed(t, eng, engine.Place{Select: map[string]string{"zone": "z"}})
		time.Sleep(time.Hour)
		for _, job := range []*engine.Handle[string]{node, zone} {
			if info, err := job.Get(t.Context()); err != nil || info.State != "pending" {
				t.Errorf("got %s, %v, want pending", info.State, err)
			}
		}
		newStation(t, srv, "c", "z", where)
		for _, job := range []*engine.Handle[string]{node, zone} {
			if got := result(t, job); got != "c" {
				t.Errorf("it ran on %s", got)
			}
		}

		if got := result(t, placed(t, eng, engine.Place{Node: "b", Else: engine.ElseFail})); got != "b" {
			t.Errorf("it ran on %s", got)
		}
		all["b"].link.Down()
		time.Sleep(time.Second)
		waits := map[engine.Else]*engine.Handle[string]{}
		for _, e := range []engine.Else{engine.ElseFail, engine.ElseAny} {
			waits[e] = placed(t, eng, engine.Place{Node: "b", Else: e})
		}
		if got := result(t, waits[engine.ElseAny]); got == "b" {
			t.Errorf("it ran on %s", got)
		}
		_, err := waits[engine.ElseFail].Wait(soon(t))
		refused(t, err, "lost: node b is gone")
	})
}

// Many jobs get their places with one look at the nodes, and one that is submitted
// again under its ID is attached to although its node has gone.
func TestPlaceMany(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		all := stations(t, srv, map[string]string{"a": "x", "b": "y"}, where)
		jobs, err := where.SubmitMany(t.Context(), all["a"].Engine, func(yield func(engine.Submission[int]) bool) {
			for i := range 50 {
				o := engine.SubmitOptions{ID: fmt.Sprint(i), Place: engine.Place{Select: map[string]string{"zone": "y"}, Else: engine.ElseFail}}
				if !yield(engine.Submission[int]{Input: 1, Options: o}) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, job := range jobs {
			if got := result(t, job); got != "b" {
				t.Errorf("%s ran on %s", job.ID, got)
			}
		}
		if err := all["b"].stop(); err != nil {
			t.Fatal(err)
		}
		o := engine.SubmitOptions{ID: "7", Place: engine.Place{Node: "b", Else: engine.ElseFail}}
		if job, err := where.Submit(t.Context(), all["a"].Engine, 1, o); err != nil || job.Created {
			t.Errorf("submitted again: %+v, %v", job, err)
		}
		o.ID = "new"
		_, err = where.Submit(t.Context(), all["a"].Engine, 1, o)
		refused(t, err, "node b is not there")
	})
}
