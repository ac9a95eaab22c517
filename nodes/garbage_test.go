package nodes_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// 5,000 of them come and go within ten minutes, which takes a minute to tell.
var crowdSize = flag.Int("crowd", 1000, "how many nodes TestRegistryGarbage makes")

const (
	// everySoOften is when the next node comes.
	everySoOften = 120 * time.Millisecond
	// forgotten is when nothing is left of those who were there: a description
	// and a verdict go a day after they were written.
	forgotten = 24*time.Hour + time.Minute
)

// Thousands of nodes come and go within minutes, as where every container has an
// ID of its own: some leave, some crash, some stand still, some come back, and
// the owner is another one in between. Each is judged, nobody is who lives, and a
// day later the bucket is as small as before.
func TestRegistryGarbage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		resident := join(t, srv, "resident")
		before := kept(t, pub)
		began := time.Now()
		stop := rule(t, pub, "boss1")
		c := &crowd{t: t, srv: srv, pub: pub, here: make(map[string]*process), gone: make(map[string]uint64)}
		for n, next := range plan() {
			if n == *crowdSize {
				stop()
				stop = rule(t, pub, "boss2")
			}
			time.Sleep(next.at - time.Since(began))
			c.take(next)
		}
		time.Sleep(3 * lease)
		c.checkJudged()
		crowded := kept(t, pub)
		checkAlone(t, pub, resident)

		stop() // who reads all of this every two seconds of a day takes too long for a test
		time.Sleep(forgotten)
		after := kept(t, pub)
		t.Logf("the bucket: %d messages, %d bytes; full %d, %d; a day later %d, %d",
			before.Msgs, before.Bytes, crowded.Msgs, crowded.Bytes, after.Msgs, after.Bytes)
		if after.Msgs != before.Msgs || after.NumSubjects != before.NumSubjects {
			t.Errorf("%d messages of %d keys are left, want %d of %d as before",
				after.Msgs, after.NumSubjects, before.Msgs, before.NumSubjects)
		}
		rule(t, pub, "boss3")
		time.Sleep(5 * lease)
		checkAlone(t, pub, resident)
		members, err := nodes.List(t.Context(), pub, ns)
		if err != nil || len(members) != 1 || members[0].State != nodes.Alive {
			t.Errorf("listed: %+v, %v, want the resident alone", members, err)
		}
	})
}

// step is a moment at which a node comes or goes.
type step struct {
	at   time.Duration
	node string
	how  string
}

// plan is how the crowd moves: each node stays for 1 to 30 s, and one in ten
// comes back once, when its key has surely expired.
func plan() []step {
	random := rand.New(rand.NewPCG(2229, 5))
	stay := func() time.Duration { return time.Second + time.Duration(random.Int64N(int64(29*time.Second))) }
	var steps []step
	for i := range *crowdSize {
		node, how := fmt.Sprint("n", i), []string{"leave", "crash", "freeze"}[i%3]
		come := time.Duration(i) * everySoOften
		end := come + stay()
		steps = append(steps, step{come, node, "come"}, step{end, node, how})
		if i%10 == 0 {
			again := end + gone
			steps = append(steps, step{again, node, "come"}, step{again + stay(), node, "crash"})
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return steps
}

// crowd is the nodes that come and go.
type crowd struct {
	t    *testing.T
	srv  *server.Server
	pub  *publish.Publisher
	here map[string]*process
	gone map[string]uint64 // the last incarnation of those that are not here
}

// take takes one step. Whoever goes has not been judged before.
func (c *crowd) take(s step) {
	c.t.Helper()
	p := c.here[s.node]
	if s.how == "come" {
		c.here[s.node] = join(c.t, c.srv, s.node)
		return
	}
	if got := verdict(c.t, c.pub, s.node); got >= p.Incarnation() || !p.Ready() {
		c.t.Errorf("%s, incarnation %d, lives: verdict %d, ready is %v", s.node, p.Incarnation(), got, p.Ready())
	}
	c.gone[s.node] = p.Incarnation()
	delete(c.here, s.node)
	switch s.how {
	case "leave":
		p.leave()
		p.pub.Conn().Close() // or it pings for a day
	case "freeze": // whoever asks is heard, and not answered
		freeze(c.t, c.pub.Conn(), s.node)
		fallthrough
	default:
		p.crash()
	}
}

// checkJudged checks that all who came are gone, and judged for good.
func (c *crowd) checkJudged() {
	c.t.Helper()
	if len(c.here) != 0 || len(c.gone) != *crowdSize {
		c.t.Errorf("%d nodes are here, %d went, want none of %d", len(c.here), len(c.gone), *crowdSize)
	}
	list, err := verdicts(c.pub).ListStale(c.t.Context(), "dead.*")
	if err != nil || len(list) != *crowdSize {
		c.t.Errorf("%d verdicts, %v, want %d", len(list), err, *crowdSize)
	}
	for _, v := range list {
		if node := v.Key[len("dead."):]; v.Value < c.gone[node] {
			c.t.Errorf("the verdict on %s is %d, below its last incarnation %d", node, v.Value, c.gone[node])
		}
	}
}

// kept is what the bucket holds.
func kept(t *testing.T, pub *publish.Publisher) jetstream.StreamState {
	t.Helper()
	js, err := jetstream.New(pub.Conn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KV_"+ns.Bucket(streams.Nodes))
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State
}

// checkAlone checks that a node lives, nobody else does, and it was never judged.
func checkAlone(t *testing.T, pub *publish.Publisher, p *process) {
	t.Helper()
	alive, err := nodes.Living(t.Context(), pub, ns)
	want := map[string]uint64{p.ID(): p.Incarnation()}
	if d := gocmp.Diff(want, alive); err != nil || d != "" {
		t.Errorf("who lives, %v (-want +got):\n%s", err, d)
	}
	if got := verdict(t, pub, p.ID()); got != 0 || !p.Ready() {
		t.Errorf("%s, which lives: verdict %d, ready is %v", p.ID(), got, p.Ready())
	}
}
