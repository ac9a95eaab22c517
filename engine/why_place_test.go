package engine_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// submitTo submits a job with a place, and returns its ID.
func submitTo(t *testing.T, eng *engine.Engine, id string, place engine.Place) string {
	t.Helper()
	h, err := eng.Submit(t.Context(), "job", nil, engine.SubmitOptions{ID: id, Place: place})
	if err != nil {
		t.Fatal(err)
	}
	return h.ID
}

// A job for one node says what is the matter with that node.
func TestWhyNode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, a := start(t, srv, "p", nil), start(t, srv, "a", nil)
		a.run(alone(1), endless("job"))
		start(t, srv, "b", nil).run(alone(1, "job"), endless("other"))
		start(t, srv, "c", nil).run(alone(1, "elsewhere"), endless("job"))
		time.Sleep(time.Second)
		on := func(id, node string) string { return submitTo(t, p.Engine, id, engine.Place{Node: node}) }

		why := because(t, p.Engine, on("1", "nobody"), "node", "it is for node nobody, which is not there: it waits until that node is back")
		if why.Node == nil || *why.Node != "nobody" {
			t.Errorf("it is for node %v", why.Node)
		}
		because(t, p.Engine, on("2", "c"), "no_worker", "it is for node c, which does not take from queue job: start it with that")
		on("3", "a")
		time.Sleep(time.Second)
		because(t, p.Engine, "job.3", "running")
		because(t, p.Engine, on("4", "a"), "soon", "it is about to be taken by node a")
		time.Sleep(5 * time.Second)
		busy := because(t, p.Engine, "job.4", "busy", "it lies in the mailbox of node a, which has not taken it yet: its slots (1) may be taken")
		if wait := waitsFor(t, p.Engine, "job.4"); wait != busy.Text {
			t.Errorf("it waits for %q, want %q", wait, busy.Text)
		}
		if _, err := p.PauseQueue(t.Context(), "job"); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, "job.4", "paused", "queue job is paused")
	})
}

// A node without a handler, and one that drains.
func TestWhyNodeTakesNothing(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "p", nil)
		start(t, srv, "a", nil).run(alone(1), endless("job"))
		time.Sleep(time.Second)
		if err := p.Drain(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, submitTo(t, p.Engine, "1", engine.Place{Node: "a"}), "draining",
			"it is for node a, which is draining: it waits until that has ended, or see millrace node undrain")
		because(t, p.Engine, submitTo(t, p.Engine, "2", engine.Place{Select: map[string]string{"zone": "x"}}), "place",
			"it has no place yet: no node with the labels zone=x has kind job, takes from queue job and is not draining")
	})
}

// A broadcast names the nodes that it waits for, and its parts say why they are where
// they are.
func TestWhyParts(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := endless("job")
		all := stations(t, srv, map[string]string{"a": "x", "b": "x", "c": "x"}, job)
		p := start(t, srv, "p", nil)
		sent, err := job.Broadcast(t.Context(), p.Engine, nil, engine.BroadcastOptions{ID: "1", OnLost: engine.LostWaits, Deadline: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		why := because(t, p.Engine, sent.ID, "parts", "it waits for 3 of 3 parts: a (running), b (running), c (running)")
		if wait := waitsFor(t, p.Engine, sent.ID); wait != why.Text {
			t.Errorf("it waits for %q, want %q", wait, why.Text)
		}
		all["b"].link.Down()
		time.Sleep(20 * time.Second)
		because(t, p.Engine, sent.ID, "parts", "it waits for 3 of 3 parts: a (running), b (pending, offline), c (running)")
		because(t, p.Engine, engine.PartID(sent.ID, "b"), "node", "it is for node b, which is not there: it waits until that node is back")
		if _, err := p.Cancel(t.Context(), sent.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		because(t, p.Engine, sent.ID, "ended", "it was cancelled at")
		because(t, p.Engine, engine.PartID(sent.ID, "b"), "ended", "it was cancelled at")
	})
}

// A delayed broadcast waits for its time.
func TestWhyDelayedBroadcast(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := endless("job")
		stations(t, srv, map[string]string{"a": "x"}, job)
		p := start(t, srv, "p", nil)
		sent, err := job.Broadcast(t.Context(), p.Engine, nil, engine.BroadcastOptions{ID: "1", Delay: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		because(t, p.Engine, sent.ID, "delay", "it was submitted for 2000-01-01T00:01:0")
		time.Sleep(62 * time.Second)
		because(t, p.Engine, sent.ID, "parts", "it waits for 1 of 1 parts: a (running)")
	})
}

// Shards are named by their numbers, with their nodes.
func TestWhyShards(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		job := endless("job")
		stations(t, srv, map[string]string{"a": "x", "b": "x"}, job)
		p := start(t, srv, "p", nil)
		sent, err := job.SubmitShards(t.Context(), p.Engine, nil, engine.ShardOptions{ID: "1", Shards: 7})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		because(t, p.Engine, sent.ID, "parts", "it waits for 7 of 7 shards: shard 0 (running, node a)", "shard 4 (", " and 2 more")
	})
}
