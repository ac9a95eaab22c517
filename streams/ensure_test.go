package streams_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// edits are the subjects of everything that changes an asset.
var edits = []string{"$KV.>", "$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.UPDATE.>", "$JS.API.STREAM.DELETE.>"}

// settingsOf returns the bucket in which the settings are.
func settingsOf(t testing.TB, srv *server.Server) *kv.Bucket[streams.Settings] {
	t.Helper()
	return kv.Open(publisher(t, connect(t, srv)), ns.Bucket(streams.Config), kv.JSON[streams.Settings]())
}

// made fails the test unless every asset is there, once, and the settings were
// written once. It returns the configurations.
func made(t testing.TB, srv *server.Server) map[string]jetstream.StreamConfig {
	t.Helper()
	js := open(t, connect(t, srv))
	all := configs(t, js)
	if len(all) != 11 {
		t.Errorf("there are %d streams, want 11: %v", len(all), all)
	}
	if got := state(t, js, "KV_"+ns.Bucket(streams.Config)); got.Msgs != 1 || got.LastSeq != 1 {
		t.Errorf("the config bucket holds %d messages up to %d, want the settings written once", got.Msgs, got.LastSeq)
	}
	return all
}

func TestEnsureOptions(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Start(t, t.TempDir()))
	for _, opts := range []streams.Options{
		{Replicas: 2}, {Replicas: -1}, {Lease: time.Second}, {Lease: 2500 * time.Millisecond}, {Lease: -time.Second},
	} {
		_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), opts)
		oneLine(t, err, "streams: ", "use ")
	}
	if all := configs(t, open(t, nc)); len(all) != 0 {
		t.Errorf("refused options made %v", all)
	}
}

// Whoever wants what exists makes nothing.
func TestEnsureExisting(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	nc := connect(t, srv)
	_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{Existing: true})
	oneLine(t, err, "does not exist", "check --namespace")
	if all := configs(t, open(t, nc)); len(all) != 0 {
		t.Errorf("a refusal made %v", all)
	}
	if _, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{Existing: true}); err != nil {
		t.Errorf("got %v, want the namespace that is there", err)
	}
}

// The second call finds everything there, and writes nothing.
func TestEnsureAgain(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	want := streams.Settings{Version: streams.Version, Lease: 4 * time.Second}
	if got := ensure(t, connect(t, srv), streams.Options{Lease: want.Lease}); got != want {
		t.Errorf("got settings %+v, want %+v", got, want)
	}
	before := made(t, srv)
	link := natstest.NewLink(t, srv, nil, edits...)
	if got := ensure(t, link.Connect(t), streams.Options{Lease: 9 * time.Second, Replicas: 1}); got != want {
		t.Errorf("the second time: got settings %+v, want %+v", got, want)
	}
	if writes := link.Writes(); len(writes) != 0 {
		t.Errorf("the second time: wrote %v", writes)
	}
	if d := cmp.Diff(before, made(t, srv)); d != "" {
		t.Errorf("the second time (-before +after):\n%s", d)
	}
}

// Five processes start at once, each with another idea of the lease.
func TestEnsureAtOnce(t *testing.T) {
	t.Parallel()
	var first map[string]jetstream.StreamConfig
	for round := range 20 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			srv := natstest.Start(t, t.TempDir())
			var (
				settings [5]streams.Settings
				ready    = make(chan struct{})
				all      sync.WaitGroup
			)
			for i := range settings {
				pub := publisher(t, connect(t, srv))
				all.Go(func() {
					<-ready
					var err error
					settings[i], err = streams.Ensure(t.Context(), ns, pub, streams.Options{Lease: time.Duration(i+2) * time.Second, Logger: quiet})
					if err != nil {
						t.Error(err)
					}
				})
			}
			close(ready)
			all.Wait()
			for _, s := range settings {
				if s != settings[0] || s.Version != streams.Version || s.Lease < 2*time.Second {
					t.Errorf("got settings %+v", settings)
				}
			}
			got := made(t, srv)
			if first == nil {
				first = got
			}
			if d := cmp.Diff(first, got); d != "" {
				t.Errorf("configurations differ (-first +now):\n%s", d)
			}
		})
	}
}

// An older build's assets are brought up to date; what it had settled stays.
func TestEnsureUpgrades(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	nc := connect(t, srv)
	ensure(t, nc, streams.Options{Lease: 4 * time.Second})
	want := made(t, srv)
	b, js := settingsOf(t, srv), open(t, nc)
	for _, config := range want {
		config.Metadata = map[string]string{"millrace.version": "0"}
		config.MaxConsumers, config.Description = 100, "old"
		must(js.UpdateStream(t.Context(), config))(t)
	}
	must(b.Edit(t.Context(), "settings", func(s streams.Settings) (streams.Settings, error) {
		s.Version = 0
		return s, nil
	}))(t)
	if got := ensure(t, nc, streams.Options{Lease: 9 * time.Second}); got.Version != streams.Version || got.Lease != 4*time.Second {
		t.Errorf("got settings %+v", got)
	}
	if d := cmp.Diff(want, configs(t, js)); d != "" {
		t.Errorf("after the upgrade (-want +got):\n%s", d)
	}
}

// Version 1 had no timers and no mailboxes, did not republish leases, nor did version 2 definitions,
// and it threw items away where there was a limit. A lease that is held while the
// assets are brought up to date stays, and is republished from then on.
func TestEnsureUpgradesVersion1(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	nc := connect(t, srv)
	ensure(t, nc, streams.Options{})
	want := made(t, srv)
	b, js := settingsOf(t, srv), open(t, nc)
	for _, later := range []string{ns.TimerStream(), ns.MailStream()} {
		if err := js.DeleteStream(t.Context(), later); err != nil {
			t.Fatal(err)
		}
	}
	for name, config := range configs(t, js) {
		config.Metadata = map[string]string{"millrace.version": "1"}
		switch name {
		case "KV_" + ns.Bucket(streams.Leases), "KV_" + ns.Bucket(streams.Config):
			config.RePublish = nil
		case ns.WorkStream():
			config.Discard = jetstream.DiscardOld
			config.MaxBytes, config.MaxMsgs = 1<<30, 1<<20 // an administrator's
			want[name] = limited(want[name], 1<<30, 1<<20)
		}
		must(js.UpdateStream(t.Context(), config))(t)
	}
	must(b.Edit(t.Context(), "settings", func(s streams.Settings) (streams.Settings, error) {
		s.Version = 1
		return s, nil
	}))(t)
	leases := kv.Open(publisher(t, nc), ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
	held := must(leases.Create(t.Context(), "owner", kv.Held{Holder: "a"}))(t)

	if got := ensure(t, nc, streams.Options{}); got.Version != streams.Version {
		t.Errorf("got settings %+v", got)
	}
	if d := cmp.Diff(want, configs(t, js)); d != "" {
		t.Errorf("after the upgrade (-want +got):\n%s", d)
	}
	feed := must(nc.SubscribeSync(ns.LeaseFeed() + ">"))(t)
	must(leases.Update(t.Context(), "owner", kv.Held{Holder: "b"}, held))(t)
	if got := must(feed.NextMsgWithContext(t.Context()))(t).Subject; got != ns.LeaseFeed()+"owner" {
		t.Errorf("the renewal was republished as %s", got)
	}
}

// limited returns c with limits.
func limited(c jetstream.StreamConfig, bytes, messages int64) jetstream.StreamConfig {
	c.MaxBytes, c.MaxMsgs = bytes, messages
	return c
}

// What somebody deleted is made again, and nothing else.
func TestEnsureMakesAgain(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	nc := connect(t, srv)
	ensure(t, nc, streams.Options{})
	want, js := made(t, srv), open(t, nc)
	for name := range want {
		if name == "KV_"+ns.Bucket(streams.Config) {
			continue
		}
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		ensure(t, nc, streams.Options{})
		if d := cmp.Diff(want, made(t, srv)); d != "" {
			t.Errorf("without %s (-want +got):\n%s", name, d)
		}
	}
}

// A build that is too old changes nothing.
func TestEnsureTooOld(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	nc := connect(t, srv)
	ensure(t, nc, streams.Options{})
	js, b := open(t, nc), settingsOf(t, srv)
	refused := func() {
		t.Helper()
		before := configs(t, js)
		_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{Logger: quiet})
		oneLine(t, err, "namespace default was set up by a newer build", "upgrade this process")
		if d := cmp.Diff(before, configs(t, js)); d != "" {
			t.Errorf("streams (-before +after):\n%s", d)
		}
	}
	setVersion := func(version int) {
		t.Helper()
		must(b.Edit(t.Context(), "settings", func(s streams.Settings) (streams.Settings, error) {
			s.Version = version
			return s, nil
		}))(t)
	}
	setVersion(streams.Version + 1)
	refused()

	// A newer build died before it wrote the settings, and an asset is missing.
	setVersion(streams.Version)
	work := must(js.Stream(t.Context(), ns.WorkStream()))(t).CachedInfo().Config
	work.Metadata = map[string]string{"millrace.version": fmt.Sprint(streams.Version + 1)}
	must(js.UpdateStream(t.Context(), work))(t)
	if err := js.DeleteStream(t.Context(), ns.DeadStream()); err != nil {
		t.Fatal(err)
	}
	_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{Logger: quiet})
	oneLine(t, err, "newer build")
	if got := must(js.Stream(t.Context(), ns.WorkStream()))(t).CachedInfo().Config.Metadata["millrace.version"]; got != fmt.Sprint(streams.Version+1) {
		t.Errorf("the newer stream has version %s now", got)
	}
}

// Settings that no process can live with are refused, not used.
func TestEnsureBadSettings(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	nc := connect(t, srv)
	ensure(t, nc, streams.Options{})
	must(settingsOf(t, srv).Edit(t.Context(), "settings", func(s streams.Settings) (streams.Settings, error) {
		s.Lease = 0
		return s, nil
	}))(t)
	_, err := streams.Ensure(t.Context(), ns, publisher(t, nc), streams.Options{Logger: quiet})
	oneLine(t, err, "lease is 0s", "correct the key settings of bucket mr_default_config")
}

// A bootstrap key that never expires, since a server that crashed brought it
// back, holds nobody up for ever.
func TestUnderBootstrapStale(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := connect(t, srv)
		ensure(t, nc, streams.Options{})
		pub := publisher(t, nc)
		leases := kv.Open(pub, ns.Bucket(streams.Leases), kv.JSON[kv.Held]())
		must(leases.Create(t.Context(), "bootstrap", kv.Held{Holder: "ghost", Token: "x"}))(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if err := streams.UnderBootstrap(ctx, ns, pub, "a", func(context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 2*streams.BootstrapTTL || took > 2*streams.BootstrapTTL+time.Second {
			t.Errorf("the lease was free after %v, want %v", took, 2*streams.BootstrapTTL)
		}
	})
}

// The bootstrap lease admits one at a time, and ends the work of whoever loses
// it.
func TestUnderBootstrap(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		link := natstest.NewLink(t, srv, nil, "$KV.>")
		ensure(t, connect(t, srv), streams.Options{})
		first, second := publisher(t, link.Connect(t)), publisher(t, connect(t, srv))
		var all sync.WaitGroup
		holding := make(chan struct{})
		all.Go(func() {
			err := streams.UnderBootstrap(t.Context(), ns, first, "first", func(ctx context.Context) error {
				close(holding)
				<-ctx.Done()
				return ctx.Err()
			})
			if !errors.Is(err, kv.ErrLeaseLost) {
				t.Errorf("got %v, want that the lease was lost", err)
			}
		})
		<-holding

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := streams.UnderBootstrap(ctx, ns, second, "second", func(context.Context) error { return nil })
		oneLine(t, err, "wait for the bootstrap lease of namespace default", "held by first")

		link.Down()
		down := time.Now()
		err = streams.UnderBootstrap(t.Context(), ns, second, "second", func(context.Context) error { return errors.New("its own") })
		if err == nil || err.Error() != "its own" {
			t.Errorf("got %v, want the function's own error", err)
		}
		if took := time.Since(down); took > streams.BootstrapTTL+time.Second {
			t.Errorf("the lease of a process that is gone was free after %v", took)
		}
		all.Wait()

		again := time.Now()
		if err := streams.UnderBootstrap(t.Context(), ns, second, "second", func(context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
		if took := time.Since(again); took > time.Second {
			t.Errorf("the lease was not given up: it was free after %v", took)
		}
	})
}
