package nodes_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/nodes"
)

// A server that was killed may bring back a key that had expired, and never end
// it again. These are the tests of that.

// comeBack stores a key of the nodes bucket that nobody renews and that never
// expires, under the epoch of a holder that is gone.
func comeBack(t *testing.T, b *kv.Bucket[kv.Held], key string, epoch uint64) (revision uint64) {
	t.Helper()
	revision, err := b.Create(t.Context(), key, kv.Held{Holder: "ghost.x", Token: "x", Epoch: epoch})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// crashed returns a node that has crashed and whose key has expired.
func crashed(t *testing.T, srv *server.Server, id string) *process {
	t.Helper()
	p := join(t, srv, id)
	p.crash()
	time.Sleep(gone)
	return p
}

// at returns the revision of a beat, 0 if there is none.
func at(t *testing.T, pub *publish.Publisher, node string) uint64 {
	t.Helper()
	entry, err := beats(pub).Get(t.Context(), "beat."+node)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		t.Fatal(err)
	}
	return entry.Revision
}

// A beat that came back does not keep its node from being judged.
func TestStaleBeatIsJudged(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := crashed(t, srv, "n1")
		comeBack(t, beats(pub), "beat.n1", p.Incarnation())
		q := join(t, srv, "n2")
		rule(t, pub, "boss")
		took := judged(t, pub, "n1", p.Incarnation())
		if took < 2*lease || took > 3*lease {
			t.Errorf("judged after %v, want after two leases", took)
		}
		if rev := at(t, pub, "n1"); rev != 0 {
			t.Errorf("the stale beat is there at revision %d", rev)
		}
		if got := verdict(t, pub, "n2"); got != 0 || !q.Ready() {
			t.Errorf("n2, which lives: verdict %d, ready is %v", got, q.Ready())
		}
		c := nodes.Claim{Node: "n1", Incarnation: p.Incarnation(), Job: "email.1"}
		if got := ask(t, pub, c); got != nodes.Dead {
			t.Errorf("asked about it: %v, want dead", got)
		}
	})
}

// Nor does one that comes back after the verdict stay.
func TestStaleBeatBelowVerdict(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		p := crashed(t, srv, "n1")
		judged(t, pub, "n1", p.Incarnation())
		before := verdict(t, pub, "n1")
		comeBack(t, beats(pub), "beat.n1", p.Incarnation())
		start := time.Now()
		until(t, "the stale beat is gone", func() bool { return at(t, pub, "n1") == 0 })
		if took := time.Since(start); took > lease {
			t.Errorf("removed after %v", took)
		}
		time.Sleep(3 * lease)
		if got := verdict(t, pub, "n1"); got != before {
			t.Errorf("the verdict went from %d to %d", before, got)
		}
	})
}

// A beat stays whose node answers, though it does not change.
func TestStaleBeatOfWhoAnswers(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		rule(t, pub, "boss")
		p := crashed(t, srv, "n1")
		judged(t, pub, "n1", p.Incarnation())
		below := comeBack(t, beats(pub), "beat.n1", p.Incarnation())
		above := comeBack(t, beats(pub), "beat.n2", 0)
		for _, node := range []string{"n1", "n2"} {
			sub, err := answer(pub.Conn(), node)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = sub.Unsubscribe() })
		}
		time.Sleep(5 * lease)
		if one, two := at(t, pub, "n1"), at(t, pub, "n2"); one != below || two != above {
			t.Errorf("the beats are at %d and %d, want %d and %d", one, two, below, above)
		}
		if got := verdict(t, pub, "n2"); got != 0 {
			t.Errorf("verdict %d on a node that answers", got)
		}
	})
}

// A beat stays while the owner's own lease is not unbroken for two leases, since
// it was the server that was away.
func TestStaleBeatAfterBreak(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		link := network(t, srv, nil)
		rule(t, open(t, link.Connect(t)), "boss")
		beat := comeBack(t, beats(pub), "beat.n1", 0)
		for range 5 {
			time.Sleep(2*lease - time.Second)
			link.Cut()
		}
		time.Sleep(2*lease - time.Second)
		if rev := at(t, pub, "n1"); rev != beat {
			t.Errorf("the beat is at %d, want %d", rev, beat)
		}
		judged(t, pub, "n1", beat)
	})
}

// A renewal that lands while the beat is being removed wins.
func TestStaleBeatRenewed(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		slow := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { return natstest.Hold },
			"$JS.API.STREAM.MSG.DELETE.>")
		rule(t, open(t, slow.Connect(t)), "boss")
		beat := comeBack(t, beats(pub), "beat.n1", 0)
		until(t, "the beat is being removed", func() bool { return len(slow.Writes()) > 0 })
		held := kv.Held{Holder: "ghost.x", Token: "x", Epoch: beat}
		renewed, err := beats(pub).Update(t.Context(), "beat.n1", held, beat)
		if err != nil {
			t.Fatal(err)
		}
		slow.Release()
		time.Sleep(lease)
		if rev, got := at(t, pub, "n1"), verdict(t, pub, "n1"); rev != renewed || got != 0 {
			t.Errorf("the beat is at %d, want %d; the verdict is %d", rev, renewed, got)
		}
	})
}

// A node joins over a beat that came back, later than over one that expires.
func TestExplicitIDStale(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		beat := comeBack(t, beats(pub), "beat.n1", 0)
		start := time.Now()
		p := join(t, srv, "n1")
		if took := time.Since(start); took < 2*lease || took > 2*lease+time.Second {
			t.Errorf("joined after %v, want two leases", took)
		}
		if p.Incarnation() <= beat {
			t.Errorf("incarnation %d follows %d", p.Incarnation(), beat)
		}
	})
}

// A node whose beat the verdict covers is offline, whatever its beat says.
func TestListStale(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		pub := setup(t, srv)
		p := crashed(t, srv, "n1")
		comeBack(t, beats(pub), "beat.n1", p.Incarnation())
		q := join(t, srv, "n2")
		for node, dead := range map[string]uint64{"n1": p.Incarnation(), "n2": q.Incarnation() - 1} {
			if _, err := verdicts(pub).Create(t.Context(), "dead."+node, dead); err != nil {
				t.Fatal(err)
			}
		}
		members, err := nodes.List(t.Context(), pub, ns)
		if err != nil || len(members) != 2 {
			t.Fatalf("the nodes are %+v, %v", members, err)
		}
		if m := members[0]; m.State != nodes.Offline || m.Incarnation != 0 {
			t.Errorf("n1 is %s under incarnation %d, want offline", m.State, m.Incarnation)
		}
		if m := members[1]; m.State != nodes.Alive || m.Incarnation != q.Incarnation() {
			t.Errorf("n2 is %s under incarnation %d, want alive under %d", m.State, m.Incarnation, q.Incarnation())
		}
	})
}
