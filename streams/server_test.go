package streams_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// users are those of a server where admin may do everything.
func users(limited map[string]*server.Permissions) []*server.User {
	all := []*server.User{{Username: "admin", Password: "x"}}
	for name, permissions := range limited {
		all = append(all, &server.User{Username: name, Password: "x", Permissions: permissions})
	}
	return all
}

// only may publish on the subjects, and listen to anything.
func only(subjects ...string) *server.Permissions {
	return &server.Permissions{Publish: &server.SubjectPermission{Allow: subjects}}
}

// except may do all but publish on the subjects.
func except(subjects ...string) *server.Permissions {
	return &server.Permissions{Publish: &server.SubjectPermission{Deny: subjects}}
}

func TestEnsureWithoutJetStream(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.StartWith(t, &server.Options{DontListen: true}))
	_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{Logger: quiet})
	oneLine(t, err, "has no JetStream", "start nats-server with -js")
}

func TestEnsureAccountWithoutJetStream(t *testing.T) {
	t.Parallel()
	plain := server.NewAccount("plain")
	nc := connect(t, natstest.StartWith(t, &server.Options{
		DontListen: true, JetStream: true, Accounts: []*server.Account{plain},
		Users: []*server.User{{Username: "u", Password: "x", Account: plain}},
	}), nats.UserInfo("u", "x"))
	_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{Logger: quiet})
	oneLine(t, err, "has no JetStream", "use an account that has it")
}

// A user without the right to create anything can use what is there.
func TestEnsureReadOnly(t *testing.T) {
	t.Parallel()
	srv := natstest.StartWith(t, &server.Options{DontListen: true, JetStream: true, Users: users(map[string]*server.Permissions{
		"reader": only("$JS.API.INFO", "$JS.API.STREAM.INFO.>", "$JS.API.STREAM.MSG.GET.KV_mr_default_config"),
	})})
	want := ensure(t, connect(t, srv, nats.UserInfo("admin", "x")), streams.Options{Lease: 4 * time.Second})
	if got := ensure(t, connect(t, srv, nats.UserInfo("reader", "x")), streams.Options{}); got != want {
		t.Errorf("got settings %+v, want %+v", got, want)
	}
}

// Whatever a user lacks is said in one line, and soon, although the server
// does not answer what it denies.
func TestEnsureDenied(t *testing.T) {
	tests := []struct {
		name   string
		may    *server.Permissions
		within time.Duration
		words  []string
	}{
		{"everything", only("none"), time.Second, []string{"$JS.API.INFO", "let this user do that"}},
		{"create", except("$JS.API.STREAM.CREATE.>"), time.Second, []string{`to "$JS.API.STREAM.CREATE.KV_mr_default_leases"`, "let this user do that"}},
		{"lease", except("$KV.mr_default_leases.>"), time.Second, []string{`to "$KV.mr_default_leases.bootstrap"`, "let this user do that"}},
		{"assets", except("$JS.API.STREAM.CREATE.mr_default_work"), time.Second, []string{`to "$JS.API.STREAM.CREATE.mr_default_work"`, "let this user do that"}},
		{"settings", except("$KV.mr_default_config.>"), time.Second, []string{`to "$KV.mr_default_config.settings"`, "let this user do that"}},
		{
			"inbox", &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"none"}}},
			25 * time.Second,
			[]string{"no answer", "its inbox"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
				srv := natstest.StartWith(t, &server.Options{DontListen: true, JetStream: true, Users: users(map[string]*server.Permissions{"u": test.may})})
				pub := publisher(t, connect(t, srv, nats.UserInfo("u", "x")))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := time.Now()
				_, err := streams.Ensure(ctx, ns, pub, streams.Options{Logger: quiet})
				oneLine(t, err, test.words...)
				if took := time.Since(start); took > test.within {
					t.Errorf("it took %v, want %v at most", took, test.within)
				}
			})
		})
	}
}

// The denial of something else, on the same connection, is none of our business.
func TestEnsureForeignDenial(t *testing.T) {
	t.Parallel()
	srv := natstest.StartWith(t, &server.Options{DontListen: true, JetStream: true, Users: users(map[string]*server.Permissions{"u": except("forbidden", "$KV.mr_default_jobs.>")})})
	denials := make(chan error, 10)
	nc := connect(t, srv, nats.UserInfo("u", "x"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denials <- err }))
	pub := publisher(t, nc)
	for _, subject := range []string{"forbidden", "$KV.mr_default_jobs.a.b"} { // the latter before Ensure begins
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-denials; !errors.Is(err, nats.ErrPermissionViolation) {
			t.Fatal(err)
		}
		if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Logger: quiet}); err != nil {
			t.Error(err)
		}
	}
}

// A server that does not answer at all is given up on, after more than an
// election.
func TestEnsureSilence(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { return natstest.LoseAnswer }, steps...)
		start := time.Now()
		_, err := streams.Ensure(t.Context(), ns, publisher(t, link.Connect(t)), streams.Options{Logger: quiet})
		oneLine(t, err, "no answer from JetStream")
		if took := time.Since(start); took < 9*time.Second || took > 30*time.Second {
			t.Errorf("it gave up after %v", took)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		pub, done := publisher(t, link.Connect(t)), make(chan error)
		go func() {
			_, err := streams.Ensure(ctx, ns, pub, streams.Options{Logger: quiet})
			done <- err
		}()
		synctest.Wait()
		cancel(gone)
		start = time.Now()
		oneLine(t, <-done, "streams: ")
		if took := time.Since(start); took > time.Second {
			t.Errorf("it ended %v after its context", took)
		}
	})
}

func TestCheckLevel(t *testing.T) {
	t.Parallel()
	for level := range 2 {
		oneLine(t, streams.CheckLevel(level, "nats://db:4222 runs nats-server 2.11.4,"),
			"streams: nats://db:4222 runs nats-server 2.11.4, which is too old: 2.12 or later is needed")
	}
	for _, level := range []int{2, 3, 5} {
		if err := streams.CheckLevel(level, "nats://db:4222 runs nats-server 2.12.0,"); err != nil {
			t.Errorf("level %d: %v", level, err)
		}
	}
}
