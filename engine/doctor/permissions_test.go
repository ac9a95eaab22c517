package doctor_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/doctor"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
)

// startWith runs a server in this process until the test ends.
func startWith(t testing.TB, opts *server.Options) *server.Server {
	t.Helper()
	opts.DontListen = true
	return natstest.StartWith(t, opts)
}

// users are those of a server where admin may do everything.
func users(limited map[string]*server.Permissions) []*server.User {
	all := []*server.User{{Username: "admin", Password: "x"}}
	for name, permissions := range limited {
		all = append(all, &server.User{Username: name, Password: "x", Permissions: permissions})
	}
	return all
}

// may returns the permissions that a role needs.
func may(t *testing.T, role, queue string) *server.Permissions {
	t.Helper()
	pub, err := publish.New(natstest.Connect(t, startWith(t, &server.Options{})))
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	out, in := doctor.Grants(pub, role, queue)
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: out},
		Subscribe: &server.SubjectPermission{Allow: append(in, "_INBOX.>")},
	}
}

// denied collects what the server denies a user.
type denied struct {
	mu   sync.Mutex
	what []string
}

func (d *denied) user(name string) []nats.Option {
	return []nats.Option{nats.UserInfo(name, "x"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if what := name + ": " + err.Error(); !slices.Contains(d.what, what) {
				d.what = append(d.what, what)
			}
		}
	})}
}

// With the grants of its role a user can do all that the role does, and nothing
// is denied.
func TestGrantsSuffice(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		srv := startWith(t, &server.Options{JetStream: true, Users: users(map[string]*server.Permissions{
			"client": may(t, "client", "mail"), "worker": may(t, "worker", "mail"), "serve": may(t, "serve", "*"),
		})})
		d := new(denied)
		serve := start(t, srv, "s", d.user("serve")...)
		serve.run(serve.Serve)
		time.Sleep(time.Second)
		worker, client := start(t, srv, "w", d.user("worker")...), start(t, srv, "c", d.user("client")...)
		fails := engine.NewJob("mail.fails", func(context.Context, any) (any, error) { return nil, errors.New("boom") })
		stop := worker.work(instant("mail"), endless("mail.endless"), fails)
		time.Sleep(time.Second) // it is listed
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		watching := make(chan struct{})
		watch, unwatch := context.WithCancel(ctx)
		go func() { defer close(watching); _ = client.Watch(watch, engine.ListOptions{}, func(engine.JobInfo) {}) }()
		client.submit("mail", "1")
		client.submit("mail", "2", engine.SubmitOptions{Delay: time.Minute, Deadline: time.Hour, QueueTimeout: time.Hour})
		client.submit("mail", "3", engine.SubmitOptions{Delay: time.Hour})
		client.submit("mail.endless", "4", engine.SubmitOptions{})
		client.submit("mail.fails", "5")
		client.submit("mail", "6", engine.SubmitOptions{Place: engine.Place{Node: "w"}})
		if _, err := client.Broadcast(ctx, "mail", nil, engine.BroadcastOptions{ID: "7"}); err != nil {
			t.Error(err)
		}
		for _, id := range []string{"8", "9"} { // the second run begins where the first one was
			if _, err := client.SubmitShards(ctx, "mail", nil, engine.ShardOptions{ID: id, Shards: 2}); err != nil {
				t.Error(err)
			}
		}
		unique, err := client.Submit(ctx, "mail", nil, engine.SubmitOptions{Unique: engine.Unique{Key: "10"}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		var errs []error
		wait := func(id string) { _, err := client.Wait(ctx, "mail."+id); errs = append(errs, err) }
		for _, id := range []string{"3", "4"} {
			_, err := client.Cancel(ctx, "mail."+id)
			errs = append(errs, err)
		}
		for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
			wait(id)
		}
		_, err = client.Wait(ctx, unique.ID)
		errs = append(errs, err)
		_, err1 := client.Retry(ctx, "mail.5")
		_, err2 := client.Why(ctx, "mail.5")
		_, err3 := client.List(ctx)
		_, err4 := client.Nodes(ctx)
		_, err5 := client.Reconcile(ctx)
		errs = append(errs, err1, err2, err3, err4, err5, client.Delete(ctx, "mail.1"))
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		unwatch()
		<-watching
		stop()
		time.Sleep(15 * time.Minute)
		for _, role := range doctor.Roles {
			found := examine(t, natstest.Connect(t, srv, nats.UserInfo(role, "x")), doctor.Options{Role: role, Queue: "mail"})
			for _, f := range found {
				if f.Check == "permissions" && f.Level != doctor.Fine {
					t.Errorf("%s: %v", role, f)
				}
			}
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.what) > 0 {
			t.Errorf("denied:\n%s", strings.Join(d.what, "\n"))
		}
	})
}

// A user who may do nothing but connect is told so, and waits for nothing.
func TestLeastPrivileges(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		only := func(publish ...string) *server.Permissions {
			return &server.Permissions{Publish: &server.SubjectPermission{Allow: publish}}
		}
		srv := startWith(t, &server.Options{JetStream: true, Users: users(map[string]*server.Permissions{
			"nobody": only("none"),
			"deaf":   {Subscribe: &server.SubjectPermission{Allow: []string{"none"}}},
			"looker": only("$JS.API.INFO", "$JS.API.STREAM.INFO.>", "$JS.API.STREAM.MSG.GET.>", "$JS.API.DIRECT.GET.>"),
			"worker": may(t, "worker", "mail"),
		})})
		serve := start(t, srv, "s", nats.UserInfo("admin", "x"))
		serve.run(serve.Serve)
		time.Sleep(time.Second)
		as := func(user string, opts doctor.Options) []doctor.Finding {
			began := time.Now()
			defer func() {
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("%s waited %v", user, took)
				}
			}()
			return examine(t, natstest.Connect(t, srv, nats.UserInfo(user, "x")), opts)
		}
		expect(t, as("nobody", doctor.Options{}),
			`unseen sight: could not look at the account: this user may not publish to "\$JS.API.INFO": let this user do that`,
			`unseen sight: could not look at the streams: this user may not publish to "\$JS.API.STREAM.INFO.KV_mr_default_leases": let`)
		expect(t, as("deaf", doctor.Options{}),
			`wrong connection: this user may not subscribe to "_INBOX\S+", so nothing that is asked is answered: let it subscribe to its inbox`)
		expect(t, as("looker", doctor.Options{}),
			`unseen sight: could not look at the consumers of queues: this user may not publish to "\$JS.API.CONSUMER.LIST.mr_default_work"`,
			`warning permissions: this user can only look: as client it may not publish to "\$JS.API.CONSUMER.CREATE\S+", and \d+ more: grant that`)
		expect(t, as("worker", doctor.Options{Role: "worker", Queue: "mail"}), `unseen sight: could not look at the consumers`)
		expect(t, as("worker", doctor.Options{Role: "worker", Queue: "post"}), `unseen sight: could not look at the consumers`,
			`wrong permissions: this user cannot be what it should: as worker it may not publish to "\$JS.ACK\S+", and \d+ more: grant that`)
		expect(t, as("worker", doctor.Options{Role: "serve"}), `unseen sight: could not look at the consumers`,
			`wrong permissions: this user cannot be what it should: as serve it may not publish to`)
	})
}

// Looking at permissions changes nothing.
func TestProbesHaveNoEffect(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWard(t, srv)
		for _, subject := range []string{"log.mail.1", "log.doctor.doctor", "dead.orders.1-1", "timer.1.due.doctor.doctor"} {
			w.publish("mr.default."+subject, nil)
		}
		before := w.messages()
		for range 3 {
			examine(t, w.client.link.Connect(t), doctor.Options{Queue: "mail"})
		}
		// Leases and nodes are renewed all the time.
		for stream, state := range w.messages() {
			if b := before[stream]; state != b && !strings.HasSuffix(stream, "_leases") && !strings.HasSuffix(stream, "_nodes") {
				t.Errorf("stream %s was %+v and is %+v", stream, b, state)
			}
		}
		w.client.submit("mail", "after")
		if info, err := w.client.Wait(t.Context(), "mail.after"); err != nil || info.State != "succeeded" || info.Attempt != 1 {
			t.Errorf("a job afterwards: %+v, %v", info, err)
		}
	})
}

// messages returns the last sequence and the messages of every stream, and how
// many consumers it has.
func (w *ward) messages() map[string][3]uint64 {
	w.Helper()
	states := map[string][3]uint64{}
	list := w.js.ListStreams(w.Context())
	for info := range list.Info() {
		states[info.Config.Name] = [3]uint64{info.State.LastSeq, info.State.Msgs, uint64(info.State.Consumers)}
	}
	if err := list.Err(); err != nil {
		w.Fatal(err)
	}
	return states
}
