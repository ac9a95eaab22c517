package doctor_test

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/doctor"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
)

// ward is a healthy installation: somebody who serves, a worker of kind mail, a
// client, and jobs that have ended, run and wait for their time.
type ward struct {
	*testing.T
	srv                   *server.Server
	serve, worker, client *process
	js                    jetstream.JetStream
}

func newWard(t *testing.T, srv *server.Server) *ward {
	t.Helper()
	w := &ward{T: t, srv: srv, serve: start(t, srv, "s"), worker: start(t, srv, "w"), client: start(t, srv, "c")}
	w.serve.run(w.serve.Serve)
	time.Sleep(time.Second)
	w.worker.work(instant("mail"), endless("mail.endless"))
	w.client.submit("mail", "1")
	w.client.submit("mail.endless", "2")
	w.client.submit("mail", "3", engine.SubmitOptions{Delay: time.Hour})
	time.Sleep(time.Minute)
	var err error
	if w.js, err = jetstream.New(w.client.nc); err != nil {
		t.Fatal(err)
	}
	return w
}

// update changes the configuration of a stream.
func (w *ward) update(stream string, change func(*jetstream.StreamConfig)) {
	w.Helper()
	s, err := w.js.Stream(w.Context(), stream)
	if err != nil {
		w.Fatal(err)
	}
	config := s.CachedInfo().Config
	change(&config)
	if _, err := w.js.UpdateStream(w.Context(), config); err != nil {
		w.Fatal(err)
	}
}

// publish stores a message.
func (w *ward) publish(subject string, header nats.Header) {
	w.Helper()
	if _, err := w.js.PublishMsg(w.Context(), &nats.Msg{Subject: subject, Header: header, Data: []byte("{}")}); err != nil {
		w.Fatal(err)
	}
}

// join registers a node that does nothing.
func (w *ward) join(id string, info nodes.Info) {
	w.Helper()
	pub, err := publish.New(w.client.nc)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(pub.Close)
	quiet := slog.New(slog.DiscardHandler)
	node, err := nodes.Join(w.Context(), pub, nodes.Options{ID: id, Lease: w.client.Lease(), Info: info, Logger: quiet})
	if err != nil {
		w.Fatal(err)
	}
	w.client.run(node.Run)
}

// expect fails the test unless what is found and not fine matches patterns, one
// for one.
func expect(t testing.TB, found []doctor.Finding, patterns ...string) {
	t.Helper()
	list := ill(found)
	for i, pattern := range patterns {
		if i < len(list) && !regexp.MustCompile("^"+pattern).MatchString(list[i]) {
			t.Errorf("got  %s\nwant %s", list[i], pattern)
		}
	}
	if len(list) != len(patterns) {
		t.Errorf("got %d findings, want %d:\n%s", len(list), len(patterns), strings.Join(list, "\n"))
	}
}

// Where all is well there is nothing to say but that, of every check. Who asks
// for what is not there, or looks at some only, is told.
func TestHealthy(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWard(t, srv)
		found := examine(t, w.client.link.Connect(t), doctor.Options{})
		expect(t, found)
		checks := map[string]bool{}
		for _, f := range found {
			checks[f.Check] = true
			if f.Text == "" || f.Remedy != "" {
				t.Errorf("got %+v", f)
			}
		}
		if len(checks) != len(found) || len(found) < 20 {
			t.Errorf("got %d findings of %d checks", len(found), len(checks))
		}
		nc := w.client.link.Connect(t)
		expect(t, examine(t, nc, doctor.Options{MostScanned: 2}), `unseen scan: there are 3 jobs, and 2 of them were looked at: shorten`)
		expect(t, examine(t, nc, doctor.Options{Namespace: "other"}), `wrong namespace: there is no namespace other: name another one, or start "millrace serve" to make it`)
		expect(t, examine(t, nc, doctor.Options{Domain: "hub"}), `wrong jetstream: there is no JetStream domain hub: set the domain`)
	})
}

// finding is what goes wrong, and what is found then and not fine.
type finding struct {
	name    string
	provoke func(*ward)
	opts    doctor.Options
	want    []string
}

var ofStreams = []finding{
	{"old and changed", func(w *ward) {
		w.publish("mr.default.dead.orders.1-1", nil)
		w.publish("mr.default.dead.orders.1-2", nil)
		w.update("KV_mr_default_cursor", func(c *jetstream.StreamConfig) { c.Metadata["millrace.version"] = "1" })
		w.update("KV_mr_default_jobs", func(c *jetstream.StreamConfig) {
			c.MaxMsgs, c.AllowDirect, c.Discard = 4, false, jetstream.DiscardOld
		})
	}, doctor.Options{}, []string{
		`wrong versions: stream KV_mr_default_cursor is of version 1, and others of version \d: an upgrade did not end: start`,
		`wrong configuration: the configuration of stream KV_mr_default_jobs was changed: discard, allow_direct: set that back`,
		`warning storage: stream KV_mr_default_jobs holds 3 of 4 messages, 75%: from 90% on new jobs are refused: raise its max_msgs limit`,
		`warning dead events: 2 events could not be mapped to jobs: see "millrace event dead list"`,
	}},
	{"missing and full", func(w *ward) {
		if err := w.js.DeleteStream(w.Context(), "mr_default_dead"); err != nil {
			w.Fatal(err)
		}
		w.update("KV_mr_default_jobs", func(c *jetstream.StreamConfig) { c.MaxMsgs = 3 })
	}, doctor.Options{}, []string{
		`wrong namespace: stream mr_default_dead is missing: start "millrace serve"`,
		`wrong storage: stream KV_mr_default_jobs holds 3 of 3 messages, 100%: new jobs are refused: raise`,
	}},
	{"many records", func(w *ward) {
		w.end(8)
		w.publish("$KV.mr_default_jobs.mail.9", nats.Header{"Mr-State": {"melting"}})
	}, doctor.Options{MostEnded: 10}, []string{
		`warning records: 10 records are of jobs that have ended: above 10 they are kept for less time`,
		`wrong readable: 1 job in a state that this program does not know: upgrade`,
	}},
	{"too many records", func(w *ward) { w.end(10) }, doctor.Options{MostEnded: 10}, []string{
		`warning records: 11 records are of jobs that have ended, more than 10: further ones are kept`,
	}},
}

// A job is seen also if its record is written while the doctor looks.
func TestExamineWhileWritten(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const subject = "$KV.mr_default_jobs.post.1"
		client := start(t, srv, "c")
		client.submit("post", "1")
		js, err := jetstream.New(client.nc)
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := js.Stream(t.Context(), "KV_mr_default_jobs")
		if err != nil {
			t.Fatal(err)
		}
		written := 0
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault {
			record, err := jobs.GetLastMsgForSubject(t.Context(), subject)
			if err != nil {
				t.Error(err)
				return natstest.Pass
			}
			delete(record.Header, jetstream.ExpectedLastSubjSeqHeader)
			if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Header: record.Header, Data: record.Data}); err != nil {
				t.Error(err)
			}
			written++
			return natstest.Pass
		}, "$JS.API.CONSUMER.CREATE.KV_mr_default_jobs.>")
		found := ill(examine(t, link.Connect(t), doctor.Options{}))
		if written == 0 || !slices.ContainsFunc(found, func(line string) bool { return strings.Contains(line, "1 job waits in queue post") }) {
			t.Errorf("written %d times, found %q", written, found)
		}
	})
}

var ofJobs = []finding{
	{"jobs that wait", func(w *ward) {
		w.join("d", nodes.Info{Draining: true})
		w.join("f", nodes.Info{Pinned: []string{"fax"}, Kinds: []string{"fax"}, Slots: 1})
		w.client.submit("post.a", "1")
		w.client.submit("post.b", "2")
		w.client.submit("fax", "1")
		w.client.submit("mail.other", "9")
		w.client.submit("mail", "8", engine.SubmitOptions{Queue: "night"})
		w.worker.work(instant("page"))
		time.Sleep(time.Second)
		w.publish("mr.default.work.page.normal.1", nil) // no item of ours
		time.Sleep(45 * time.Second)                    // between two times at which mail.other is offered again
		w.join("n", nodes.Info{Queues: []string{"text"}, Kinds: []string{"text"}, Slots: 1})
		w.client.submit("text", "1") // the owner makes the consumer, somewhat later
	}, doctor.Options{}, []string{
		`warning drained: node d is draining: it takes no jobs: stop it, or`,
		`wrong workers: 1 job waits in queue fax, and no node takes from it: start a worker with kind fax$`,
		`wrong workers: 1 job waits in queue night, and no node takes from it: start a worker with kind mail that takes from queue night$`,
		`wrong workers: 2 jobs wait in queue post, and no node takes from it: start a worker with kinds post.a, post.b$`,
		`wrong kinds: 1 job of kind mail.other waits in queue mail, and no node that takes from it has a handler: w: start`,
		`wrong consumers: queue text has no consumer, so its items reach nobody, although there is node n: let`,
		`warning redelivered: 1 item of queue page came more than once, and only 0 jobs run there: see`,
	}},
	{"jobs that are stuck", func(w *ward) {
		w.serve.link.Down()
		w.client.submit("mail", "4", engine.SubmitOptions{Delay: 10 * time.Second})
		w.client.submit("post", "1")
		w.client.submit("post", "2")
		s, err := w.js.Stream(w.Context(), "mr_default_work")
		if err == nil {
			err = s.Purge(w.Context(), jetstream.WithPurgeSubject("mr.default.work.post.>"))
		}
		if err != nil {
			w.Fatal(err)
		}
		time.Sleep(70 * time.Second)
	}, doctor.Options{}, []string{
		`wrong owner: no node is the owner: nothing fires timers`,
		`wrong workers: 2 jobs wait in queue post`,
		`wrong items: 3 jobs ready for more than 30s have no item, so no worker gets to know: mail.4, post.1, post.2: let the owner`,
		`wrong timers: 1 timer is overdue, by up to 1m0s: see whether there is an owner`,
	}},
	{"dead node", func(w *ward) {
		w.serve.link.Down()
		w.worker.link.Down()
		time.Sleep(10 * time.Second) // its job may still be taken over in time
		expect(w, examine(w, w.client.link.Connect(w), doctor.Options{}), `wrong owner: no node is the owner`)
		time.Sleep(time.Minute)
	}, doctor.Options{}, []string{
		`wrong owner: no node is the owner`,
		`wrong offline: 1 job is said to run on node w, which has been gone for longer than twice the lease of 6s: mail.2: see "millrace job why ID"`,
	}},
	{"jobs for nodes", func(w *ward) {
		w.client.submit("mail", "4", engine.SubmitOptions{Place: engine.Place{Node: "nobody"}})
		w.client.submit("mail", "5", engine.SubmitOptions{Place: engine.Place{Node: "nobody"}})
		w.client.submit("mail", "6", engine.SubmitOptions{Place: engine.Place{Select: map[string]string{"zone": "x"}}})
		w.broadcast("mail.endless")
		time.Sleep(time.Minute)
	}, doctor.Options{}, []string{
		`warning pinned: 1 job waits for a node that fits, and there is none: mail.6: see "millrace job why mail.6"`,
		`warning pinned: 2 jobs wait for node nobody, which is not there: mail.5: start it again, or`,
	}},
	{"nobody counts", func(w *ward) {
		w.serve.link.Down()
		w.broadcast("mail")
		w.client.submit("mail", "7", engine.SubmitOptions{Place: engine.Place{Node: "gone"}})
		s, err := w.js.Stream(w.Context(), "mr_default_mail")
		if err == nil {
			err = s.Purge(w.Context())
		}
		if err != nil {
			w.Fatal(err)
		}
		time.Sleep(time.Minute)
	}, doctor.Options{}, []string{
		`wrong owner: no node is the owner`,
		`wrong items: 1 job ready for more than 30s has no item, so no worker gets to know: mail.7: let`,
		`warning pinned: 1 job waits for node gone, which is not there: mail.7: start`,
		`wrong waiting: 1 job waits for parts, and none of these goes on: mail.b: see "millrace job why ID"`,
	}},
	{"node that started anew", func(w *ward) {
		w.serve.link.Down()
		w.worker.link.Down()
		time.Sleep(10 * time.Second)
		w.join("w", nodes.Info{Queues: []string{"mail"}, Kinds: []string{"mail", "mail.endless"}})
		time.Sleep(13 * time.Second)
	}, doctor.Options{}, []string{`wrong owner: `, `wrong offline: 1 job is said to run on node w, `}},
}

// broadcast submits broadcast mail.b.
func (w *ward) broadcast(kind string) {
	w.Helper()
	if _, err := w.client.Broadcast(w.Context(), kind, nil, engine.BroadcastOptions{ID: "b", Queue: "mail"}); err != nil {
		w.Fatal(err)
	}
	time.Sleep(time.Second)
}

// end lets jobs succeed.
func (w *ward) end(n int) {
	w.Helper()
	for i := range n {
		w.client.submit("mail", fmt.Sprint("more", i))
	}
	time.Sleep(time.Second)
}

// Whatever goes wrong with streams, jobs and nodes is found, and nothing else.
func TestFindings(t *testing.T) { examineAll(t, slices.Concat(ofStreams, ofJobs)) }

// examineAll fails the test unless what is provoked is found.
func examineAll(t *testing.T, all []finding) {
	t.Helper()
	for _, test := range all {
		t.Run(test.name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				w := newWard(t, srv)
				test.provoke(w)
				expect(t, examine(t, w.client.link.Connect(t), test.opts), test.want...)
			})
		})
	}
}

// Who passes what is no option is told.
func TestOptions(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	for want, opts := range map[string]doctor.Options{
		"namespace": {Namespace: "a.b"}, "queue": {Queue: "a b"}, `there is no role "king": use one of client, worker, serve`: {Role: "king"},
	} {
		if _, err := doctor.Examine(t.Context(), nc, opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if found, err := doctor.Examine(ctx, nc, doctor.Options{}); err == nil {
		t.Errorf("got %v of a context that has ended", found)
	}
}
