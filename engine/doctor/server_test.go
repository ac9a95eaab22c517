package doctor_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/doctor"
	"github.com/millrace/millrace/internal/natstest"
)

// answer is a server that has no JetStream, and somebody who answers as one would.
func answer(t *testing.T, srv *server.Server, subject string, data any) {
	t.Helper()
	body, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	nc := natstest.Connect(t, srv)
	if _, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(body) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// of returns the findings of a check.
func of(check string, found []doctor.Finding) (list []doctor.Finding) {
	for _, f := range found {
		if f.Check == check {
			list = append(list, f)
		}
	}
	return list
}

// Without JetStream there is one thing to say.
func TestNoJetStream(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, startWith(t, &server.Options{}))
	expect(t, examine(t, nc, doctor.Options{}), `wrong jetstream: nats://\S+ has no JetStream: start nats-server with -js, or, on a leaf node, name the domain`)
}

func TestAccountWithoutJetStream(t *testing.T) {
	t.Parallel()
	plain := server.NewAccount("plain")
	nc := natstest.Connect(t, startWith(t, &server.Options{
		JetStream: true, Accounts: []*server.Account{plain}, Users: []*server.User{{Username: "u", Password: "x", Account: plain}},
	}), nats.UserInfo("u", "x"))
	expect(t, examine(t, nc, doctor.Options{}), `wrong jetstream: the account of this user has no JetStream: enable it`)
}

func TestOldServer(t *testing.T) {
	t.Parallel()
	srv := startWith(t, &server.Options{})
	answer(t, srv, "$JS.API.INFO", map[string]any{"api": map[string]int{"level": 1}})
	found := examine(t, natstest.Connect(t, srv), doctor.Options{})
	expect(t, of("server", found), `wrong server: nats://\S+ runs nats-server \S+ with API level 1, which is too old: upgrade it to nats-server 2.12 or later`)
}

// A machine whose clock is wrong is told so.
func TestClock(t *testing.T) {
	t.Parallel()
	for off, want := range map[time.Duration]string{
		-time.Hour: `warning clock: this machine's clock is (59m59|1h0m0)\S+ behind the server's: let NTP`,
		time.Hour:  `warning clock: this machine's clock is 1h0m0\S* ahead of the server's: let NTP`,
	} {
		srv := startWith(t, &server.Options{})
		answer(t, srv, "$JS.API.STREAM.INFO.*", map[string]any{"config": map[string]any{"name": "x"}, "ts": time.Now().Add(-off)})
		answer(t, srv, "$JS.API.INFO", map[string]any{"api": map[string]int{"level": 5}})
		expect(t, of("clock", examine(t, natstest.Connect(t, srv), doctor.Options{})), want)
	}
}

// How the server syncs is told to those who may know.
func TestSync(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		opts server.Options
		want []string
		text string
	}{
		{server.Options{}, nil, "syncs every 2m0s"},
		{server.Options{SyncAlways: true}, nil, "syncs every write"},
		{server.Options{SyncInterval: time.Hour}, []string{`warning sync: server sync syncs every 1h0m0s: a power failure may cost what was stored in that time: lower sync_interval`}, "syncs every 1h0m0s"},
	} {
		test.opts.JetStream, test.opts.ServerName = true, "sync"
		srv := startWith(t, &test.opts)
		const status = "$SYS.REQ.SERVER.PING.JSZ"
		if err := srv.SystemAccount().AddServiceExport(status, nil); err != nil {
			t.Fatal(err)
		}
		if err := srv.GlobalAccount().AddServiceImport(srv.SystemAccount(), status, status); err != nil {
			t.Fatal(err)
		}
		found := of("sync", examine(t, natstest.Connect(t, srv), doctor.Options{}))
		expect(t, found, test.want...)
		if len(found) != 1 || !strings.HasPrefix(found[0].Text, "server sync "+test.text) {
			t.Errorf("got %+v, want it to say %q", found, test.text)
		}
	}
}

// A connection that is down, and one on which nobody answers.
func TestConnection(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWard(t, srv)
		nc := w.client.link.Connect(t)
		w.client.link.Freeze()
		expect(t, examine(t, nc, doctor.Options{}), `wrong connection: nats://\S+ does not answer: .*: see whether the server runs`)
		w.client.link.Thaw()
		w.client.link.Down()
		time.Sleep(time.Second)
		expect(t, examine(t, nc, doctor.Options{}), `wrong connection: there is no connection to NATS: see whether the server runs`)
		w.client.link.Up()
		time.Sleep(time.Second)
		expect(t, examine(t, nc, doctor.Options{}))
	})
}

// JetStream that does not answer, for want of a leader, is said to do so.
func TestSilence(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		newWard(t, srv)
		for subject, want := range map[string]string{
			"$JS.API.STREAM.INFO.>":     "the streams",
			"$JS.API.INFO":              "the account",
			"$JS.API.CONSUMER.LIST.>":   "the consumers of queues",
			"$JS.API.CONSUMER.CREATE.>": "the jobs",
		} {
			link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
				if w.Reply == "" {
					return natstest.Pass
				}
				return natstest.LoseAnswer
			}, subject)
			list := ill(examine(t, link.Connect(t), doctor.Options{}))
			if !strings.Contains(strings.Join(list, "\n"), "unseen sight: could not look at "+want+": ") {
				t.Errorf("without answers to %s: got %q, want it to name %s", subject, list, want)
			}
		}
	})
}
