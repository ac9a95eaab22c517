package streams_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// A cluster may have fewer servers than it is going to have. Whoever makes a
// namespace meanwhile waits for the third one, and in the end goes without.
func TestEnsureGathers(t *testing.T) {
	t.Parallel()
	opts := natstest.ClusterOptions(t)
	opts[0].Routes, opts[1].Routes = opts[0].Routes[:2], opts[1].Routes[:2]
	nc := natstest.Connect(t, natstest.StartCluster(t, opts[:2])[0])
	replicas := func(ns streams.Namespace) int {
		return configs(t, open(t, nc))["KV_"+ns.Bucket(streams.Leases)].Replicas
	}
	_, err := streams.Ensure(t.Context(), "two", publisher(t, nc), streams.Options{
		Gather: time.Nanosecond, Patience: time.Hour, Logger: quiet,
	})
	if got := replicas("two"); err != nil || got != 1 {
		t.Fatalf("of two servers: got %d replicas and %v, want 1", got, err)
	}
	_, err = streams.Ensure(t.Context(), "few", publisher(t, nc), streams.Options{
		Replicas: 3, Gather: time.Nanosecond, Patience: time.Hour, Logger: quiet,
	})
	oneLine(t, err, "use 1 replica, or a cluster of three JetStream servers")
	var waiting, late sync.WaitGroup
	for ns, asked := range map[streams.Namespace]int{"late": 0, "patient": 3} {
		waiting.Add(1)
		told := listen("fewer than three", sync.OnceFunc(waiting.Done))
		late.Go(func() {
			_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{
				Replicas: asked, Gather: time.Hour, Patience: time.Hour, Logger: told,
			})
			if got := replicas(ns); err != nil || got != 3 {
				t.Errorf("%s, with a third server that came late: got %d replicas and %v, want 3", ns, got, err)
			}
		})
	}
	waiting.Wait()
	natstest.StartWith(t, opts[2])
	late.Wait()
}

// A server of three has no JetStream for a while, after the first stream of a
// namespace was made. So it is, for a moment, with each server that comes back, and
// each whose route breaks: the others do not know yet what room it has.
func TestEnsurePeerOffline(t *testing.T) {
	t.Parallel()
	opts := natstest.ClusterOptions(t)
	servers := natstest.StartCluster(t, opts)
	var leader, follower int
	for i, srv := range servers {
		if srv.JetStreamIsLeader() {
			leader, follower = i, (i+1)%len(servers)
		}
	}
	again := func(jetStream bool) {
		servers[follower].Shutdown()
		servers[follower].WaitForShutdown()
		opts[follower].JetStream = jetStream
		servers[follower] = natstest.StartWith(t, opts[follower])
	}
	nc := natstest.Connect(t, servers[leader])
	js := open(t, nc)
	leaves := listen("stream made", sync.OnceFunc(func() {
		again(false)
		misses(t, js)
	}))
	returns := listen("no suitable peers", sync.OnceFunc(func() { again(true) }))
	settings, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{
		Patience: time.Hour, Logger: slog.New(slog.NewMultiHandler(leaves.Handler(), returns.Handler())),
	})
	if err != nil || settings.Lease != 15*time.Second {
		t.Fatalf("got settings %+v and %v, want a lease of 15s", settings, err)
	}
	for name, config := range configs(t, js) {
		if ours(ns, name) && config.Replicas != 3 {
			t.Errorf("%s has %d replicas, want 3", name, config.Replicas)
		}
	}
}

// misses waits until the leader refuses a stream of three replicas.
func misses(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for t.Context().Err() == nil {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "probe", Replicas: 3})
		if refused := (*jetstream.APIError)(nil); errors.As(err, &refused) && refused.ErrorCode == publish.NoPeers {
			return
		}
		_ = js.DeleteStream(t.Context(), "probe")
	}
}

// listen returns a logger that calls f when it is told something with these words.
func listen(words string, f func()) *slog.Logger {
	return slog.New(slog.NewTextHandler(&listener{words, f}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// listener calls heard when something is logged.
type listener struct {
	words string
	heard func()
}

func (l *listener) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(l.words)) {
		l.heard()
	}
	return len(line), nil
}

func TestEnsureCluster(t *testing.T) {
	t.Parallel()
	servers := natstest.StartCluster(t, natstest.ClusterOptions(t))
	conns := make([]*nats.Conn, len(servers))
	for i, srv := range servers {
		conns[i] = natstest.Connect(t, srv)
	}
	for _, test := range []struct {
		ns             streams.Namespace
		replicas, want int
	}{
		{"auto", 0, 3},
		{"three", 3, 3},
		{"one", 1, 1},
	} {
		t.Run(string(test.ns), func(t *testing.T) {
			var all sync.WaitGroup
			for i := range 5 { // at once
				pub := publisher(t, conns[i%len(conns)])
				all.Go(func() {
					settings, err := streams.Ensure(t.Context(), test.ns, pub, streams.Options{
						Replicas: test.replicas, Patience: time.Hour, Logger: quiet,
					})
					if err != nil || settings.Lease != 15*time.Second {
						t.Errorf("got settings %+v and %v, want a lease of 15s", settings, err)
					}
				})
			}
			all.Wait()
			js, streamsOf := open(t, conns[0]), 0
			for name, config := range configs(t, js) {
				if !ours(test.ns, name) {
					continue
				}
				if streamsOf++; config.Replicas != test.want {
					t.Errorf("%s has %d replicas, want %d", name, config.Replicas, test.want)
				}
			}
			if streamsOf != 10 {
				t.Errorf("there are %d streams, want 10", streamsOf)
			}
			if got := state(t, js, "KV_"+test.ns.Bucket(streams.Config)).LastSeq; got != 1 {
				t.Errorf("the config bucket is at %d, want the settings written once", got)
			}
		})
	}
	t.Run("work", func(t *testing.T) { clusterWork(t, conns) })
	t.Run("timers", func(t *testing.T) { clusterTimers(t, conns) })
	t.Run("mailbox", func(t *testing.T) { clusterMailbox(t, conns) })
}

// clusterMailbox hears items through each server of a cluster, whoever leads the
// stream, and finds them through each.
func clusterMailbox(t *testing.T, conns []*nats.Conn) {
	const cluster streams.Namespace = "auto"
	offering := &world{t, conns[0], must(streams.NewWork(cluster, publisher(t, conns[0])))(t)}
	var boxes []*streams.Mailbox
	var heard []chan *streams.Delivery
	for i, nc := range conns {
		boxes = append(boxes, must(streams.NewWork(cluster, publisher(t, nc)))(t).Mailbox(fmt.Sprint("n", i), "mail", new(hand)))
		rings := make(chan *streams.Delivery, 10)
		heard = append(heard, rings)
		defer must(boxes[i].Hear(func(d *streams.Delivery, _ error) { rings <- d }))(t)()
		ask(t, nc, "INFO")
	}
	js := open(t, conns[0])
	for round := range 3 {
		local := fmt.Sprint(round)
		for i, box := range boxes {
			for rang := false; !rang; { // until all servers know who listens, and who leads
				_ = offering.work.Offer(t.Context(), streams.Item{Queue: "mail", Local: local, Node: fmt.Sprint("n", i)})
				rang = hears(heard[i], local)
			}
			var last *streams.Delivery
			for last == nil || last.Local != local { // the replica may be behind
				if found := offering.look(box, 10); len(found) > 0 {
					last = found[len(found)-1]
				}
			}
			if err := last.Ack(); err != nil {
				t.Fatalf("node %d found %s and acknowledged it: %v", i, local, err)
			}
			for len(heard[i]) > 0 { // of offers that seemed lost
				<-heard[i]
			}
		}
		ask(t, conns[0], "STREAM.LEADER.STEPDOWN."+cluster.MailStream())
		led(t, js, cluster.MailStream())
	}
}

// hears waits for the ring of an item for a while. Those of earlier offers, which
// seemed lost, may come first.
func hears(rings <-chan *streams.Delivery, local string) bool {
	lost := time.After(time.Second)
	for {
		select {
		case d := <-rings:
			if d.Local == local {
				return true
			}
		case <-lost:
			return false
		}
	}
}

// ask asks the JetStream API until there is an answer, whatever it says.
func ask(t *testing.T, nc *nats.Conn, api string) {
	t.Helper()
	for {
		_, err := nc.Request("$JS.API."+api, nil, 5*time.Second)
		if err == nil {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// clusterTimers reads timers through each server of a cluster right after they
// were set. A server that does not have one yet does not say that it is gone.
func clusterTimers(t *testing.T, conns []*nats.Conn) {
	timers := make([]*streams.Timers, len(conns))
	for i, nc := range conns {
		timers[i] = must(streams.NewTimers("auto", publisher(t, nc)))(t)
	}
	for n := range 100 {
		want := due(noon, fmt.Sprint(n))
		want.Sequence = uint64(n + 1)
		if err := timers[n%len(timers)].Set(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		for i := range timers {
			got, err := timers[i].Get(t.Context(), want.Sequence)
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Fatalf("through server %d: %v (-want +got):\n%s", i+1, err, d)
			}
		}
	}
}

// clusterWork takes items through two servers of a cluster, and through another
// leader of the consumer.
func clusterWork(t *testing.T, conns []*nats.Conn) {
	offering := &world{t, conns[0], must(streams.NewWork("auto", publisher(t, conns[0])))(t)}
	taking := &world{t, conns[1], must(streams.NewWork("auto", publisher(t, conns[1])))(t)}
	taking.serve("mail")
	p := taking.puller()
	js, stream := open(t, conns[0]), streams.Namespace("auto").WorkStream()
	taken := map[string]bool{}
	for local, leader := range map[string]string{
		"same":     "",
		"consumer": "CONSUMER.LEADER.STEPDOWN." + stream + ".mail",
		"stream":   "STREAM.LEADER.STEPDOWN." + stream,
	} {
		came := make(chan *streams.Delivery)
		go func() { came <- taking.eventually(p) }()
		if leader != "" {
			ask(t, conns[0], leader)
			led(t, js, stream)
		}
		var err error = jetstream.ErrNoStreamResponse
		for errors.Is(err, jetstream.ErrNoStreamResponse) { // until the route knows where the leader is
			err = offering.work.Offer(t.Context(), streams.Item{Queue: "mail", Local: local})
		}
		if err != nil {
			t.Fatal(err)
		}
		d := <-came
		for ; d.Local != local; d = taking.eventually(p) { // again, if its leader stepped down before it was acknowledged
			if !taken[d.Local] {
				t.Fatalf("got item %s, want %s", d.Local, local)
			}
			if err := d.Ack(); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Ack(); err != nil {
			t.Fatal(err)
		}
		taken[local] = true
	}
}

// led waits until a stream has a leader.
func led(t *testing.T, js jetstream.JetStream, stream string) {
	t.Helper()
	for t.Context().Err() == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		s, err := js.Stream(ctx, stream)
		cancel()
		if err == nil && s.CachedInfo().Cluster.Leader != "" {
			return
		}
	}
}

// ours reports whether a stream is an asset of the namespace.
func ours(ns streams.Namespace, stream string) bool {
	return strings.HasPrefix(strings.TrimPrefix(stream, "KV_"), "mr_"+string(ns)+"_")
}
