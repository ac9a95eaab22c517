package nodes_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
)

// runsOne answers for a process that runs the job email.1 under the token T.
func runsOne(job, token string) bool { return job == "email.1" && token == "T" }

// ask asks about a claim, and reports an error.
func ask(t *testing.T, pub *publish.Publisher, c nodes.Claim) nodes.Answer {
	t.Helper()
	answer, err := nodes.NewAsker(pub, ns).Ask(t.Context(), c)
	if err != nil {
		t.Errorf("ask: %v", err)
	}
	return answer
}

func TestAskLiveNode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1", Runs: runsOne})
		if err != nil {
			t.Fatal(err)
		}
		now := p.Incarnation()
		for _, tt := range []struct {
			incarnation uint64
			job, token  string
			want        nodes.Answer
		}{
			{now, "email.1", "T", nodes.Yes},
			{now - 1, "email.1", "T", nodes.Yes}, // it has it still, whatever became of the lease
			{now, "email.1", "U", nodes.NoSame},
			{now, "email.2", "T", nodes.NoSame},
			{now - 1, "email.2", "T", nodes.No},
			{now + 1, "email.2", "T", nodes.Silent}, // it cannot speak for its successor
		} {
			c := nodes.Claim{Node: "n1", Incarnation: tt.incarnation, Job: tt.job, Token: tt.token}
			if got := ask(t, pub, c); got != tt.want {
				t.Errorf("%+v: %v, want %v", c, got, tt.want)
			}
		}
	})
}

// A process that has lost its lease says yes, but its no proves nothing.
func TestAskBetweenRegistrations(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		var blocked atomic.Bool
		link := network(t, srv, func(natstest.Write) natstest.Fault {
			if blocked.Load() {
				return natstest.Hold // as if JetStream had no leader
			}
			return natstest.Pass
		})
		p, err := joinOn(t, link, nodes.Options{ID: "n1", Runs: runsOne})
		if err != nil {
			t.Fatal(err)
		}
		blocked.Store(true)
		time.Sleep(2 * lease)
		if p.Ready() {
			t.Fatal("the node still holds its lease")
		}
		c := nodes.Claim{Node: "n1", Incarnation: p.Incarnation(), Job: "email.1", Token: "T"}
		if got := ask(t, pub, c); got != nodes.Yes {
			t.Errorf("about what it runs: %v, want yes", got)
		}
		c.Token = "U"
		if got := ask(t, pub, c); got != nodes.Silent {
			t.Errorf("about what it does not run: %v, want silent", got)
		}
	})
}

// Where nobody answers, the verdict decides, at once or after two time-outs.
func TestAskDeadNode(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		if _, err := verdicts(pub).Create(t.Context(), "dead.n1", 10); err != nil {
			t.Fatal(err)
		}
		for _, frozen := range []bool{false, true} {
			want := time.Duration(0)
			if frozen {
				freeze(t, pub.Conn(), "n1")
				want = 2 * time.Second
			}
			for incarnation, answer := range map[uint64]nodes.Answer{9: nodes.Dead, 10: nodes.Dead, 11: nodes.Silent} {
				start := time.Now()
				if got := ask(t, pub, nodes.Claim{Node: "n1", Incarnation: incarnation, Job: "email.1"}); got != answer {
					t.Errorf("incarnation %d, frozen is %v: %v, want %v", incarnation, frozen, got, answer)
				}
				if took := time.Since(start).Round(100 * time.Millisecond); took != want {
					t.Errorf("frozen is %v: answered after %v, want %v", frozen, took, want)
				}
			}
		}
		if got := ask(t, pub, nodes.Claim{Node: "n2", Incarnation: 1, Job: "email.1"}); got != nodes.Silent {
			t.Errorf("about a node without a verdict: %v, want silent", got)
		}
	})
}

// freeze listens in the place of a node and does not answer.
func freeze(t *testing.T, nc *nats.Conn, node string) *nats.Subscription {
	t.Helper()
	sub, err := nc.Subscribe(ns.CtlSubject(node), func(*nats.Msg) {})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// One lost answer is made good by asking again.
func TestAskTwice(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		asked := 0
		p, err := joinOn(t, network(t, srv, nil), nodes.Options{ID: "n1", Runs: func(string, string) bool {
			if asked++; asked == 1 {
				time.Sleep(1500 * time.Millisecond)
			}
			return true
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, pub, nodes.Claim{Node: "n1", Incarnation: p.Incarnation(), Job: "email.1"}); got != nodes.Yes || asked != 2 {
			t.Errorf("asked %d times: %v, want yes the second time", asked, got)
		}
	})
}

// Without NATS nothing is known: that is an error, and never an answer.
func TestAskWithoutNATS(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		setup(t, srv)
		link := network(t, srv, nil)
		pub := open(t, link.Connect(t))
		link.Down()
		time.Sleep(time.Millisecond)
		for _, node := range []string{"n1", "n.1", "*"} {
			if answer, err := nodes.NewAsker(pub, ns).Ask(t.Context(), nodes.Claim{Node: node, Incarnation: 1}); err == nil {
				t.Errorf("about %s the answer is %v", node, answer)
			}
		}
	})
}

// A request that this build does not know, or that is none, gets an answer that
// says so: the node is there.
func TestUnknownRequests(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		join(t, srv, "n1")
		for header, body := range map[string]string{"ctl/1": `{"do":"dance"}`, "ctl/2": `{"do":"runs"}`, "ctl/1 ": `{`, "": ""} {
			msg := nats.NewMsg(ns.CtlSubject("n1"))
			msg.Header.Set("Mr-Type", header)
			msg.Data = []byte(body)
			answer, err := pub.Conn().RequestMsg(msg, time.Second)
			if err != nil || answer.Header.Get("Mr-Type") != "ctl/1" {
				t.Errorf("%q %q: got %v, %v", header, body, answer, err)
			}
		}
	})
}

func TestAnswerString(t *testing.T) {
	t.Parallel()
	for answer, want := range map[nodes.Answer]string{
		nodes.Silent: "silent", nodes.Yes: "yes", nodes.No: "no", nodes.NoSame: "no same", nodes.Dead: "dead", 7: "answer 7",
	} {
		if got := answer.String(); got != want {
			t.Errorf("answer %d is %q, want %q", int(answer), got, want)
		}
	}
}
