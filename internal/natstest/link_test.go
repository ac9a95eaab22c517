package natstest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
)

// on returns a decision that strikes one write and lets all others pass.
func on(number int, fault natstest.Fault) func(natstest.Write) natstest.Fault {
	return func(w natstest.Write) natstest.Fault {
		if w.Number == number {
			return fault
		}
		return natstest.Pass
	}
}

// publish publishes text and waits for up to five seconds for the answer.
func publish(t *testing.T, js jetstream.JetStream, text string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := js.Publish(ctx, "s.a", []byte(text))
	return err
}

// stored returns what the stream S holds, in order.
func stored(t *testing.T, srv *server.Server) string {
	t.Helper()
	s, err := open(t, natstest.Connect(t, srv)).Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for n := s.CachedInfo().State.FirstSeq; n <= s.CachedInfo().State.LastSeq; n++ {
		m, err := s.GetMsg(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(m.Data))
	}
	return strings.Join(texts, " ")
}

// Each fault does to the second of three writes what it says, and nothing to
// the others.
func TestLinkFaults(t *testing.T) {
	tests := []struct {
		fault      natstest.Fault
		unknown    bool // whether the client learns what became of the write
		stored     string
		reconnects uint64
	}{
		{natstest.Pass, false, "one two three", 0},
		{natstest.CutBefore, true, "one three", 1},
		{natstest.LoseAnswer, true, "one two three", 0},
		{natstest.CutAfter, true, "one two three", 1},
		{natstest.Hold, true, "one three", 0},
		{natstest.DownBefore, true, "one three", 1},
		{natstest.DownAfter, true, "one two three", 1},
	}
	for _, test := range tests {
		t.Run(test.fault.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				link := natstest.NewLink(t, srv, on(2, test.fault), "s.>")
				nc := link.Connect(t)
				js := open(t, nc)
				addStream(t, js)
				if err := publish(t, js, "one"); err != nil {
					t.Fatal(err)
				}
				if err := publish(t, js, "two"); (err != nil) != test.unknown {
					t.Errorf("the struck write returned %v", err)
				}
				time.Sleep(time.Minute)
				if isDown := strings.HasPrefix(test.fault.String(), "down"); nc.IsConnected() == isDown {
					t.Errorf("a minute later connected is %v", !isDown)
				}
				link.Up()
				time.Sleep(time.Minute)
				if err := publish(t, js, "three"); err != nil {
					t.Error(err)
				}
				if got := stored(t, srv); got != test.stored {
					t.Errorf("stored %q, want %q", got, test.stored)
				}
				if got := nc.Stats().Reconnects; got != test.reconnects {
					t.Errorf("reconnected %d times, want %d", got, test.reconnects)
				}
				var writes []string
				for _, w := range link.Writes() {
					writes = append(writes, fmt.Sprint(w.Number, " ", w.Subject, " ", string(w.Data), ": ", w.Fault))
				}
				want := []string{"1 s.a one: pass", "2 s.a two: " + test.fault.String(), "3 s.a three: pass"}
				if d := cmp.Diff(want, writes); d != "" {
					t.Errorf("writes (-want +got):\n%s", d)
				}
			})
		})
	}
}

// A held write lands when it is released, however its connection fared, and
// with its headers: here a condition that does not hold any more.
func TestLinkRelease(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		hold := func(w natstest.Write) natstest.Fault {
			if strings.HasPrefix(string(w.Data), "held") {
				return natstest.Hold
			}
			return natstest.Pass
		}
		link := natstest.NewLink(t, srv, hold, "s.>")
		js := open(t, link.Connect(t))
		addStream(t, js)
		_ = publish(t, js, "held 1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := js.Publish(ctx, "s.a", []byte("held 2"), jetstream.WithExpectLastSequence(7)); err == nil {
			t.Error("a held write was answered")
		}
		link.Cut()
		time.Sleep(time.Second)
		if err := publish(t, js, "passed"); err != nil {
			t.Fatal(err)
		}
		link.Release()
		if got, want := stored(t, srv), "passed held 1"; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
}

// After CutAfter nothing arrives that the client had sent behind the write.
func TestLinkCutAfterIsLast(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		link := natstest.NewLink(t, srv, on(3, natstest.CutAfter), "s.>")
		js := open(t, link.Connect(t))
		addStream(t, js)
		for n := range 10 {
			_, err := js.PublishAsync("s.a", fmt.Append(nil, n))
			if err != nil && !errors.Is(err, nats.ErrReconnectBufExceeded) { // it may have heard of the cut
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if got, want := stored(t, srv), "0 1 2"; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
}

// A frozen link breaks nothing: what was sent lands late, when its sender has
// given it up, and is judged then.
func TestLinkFreeze(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		link := natstest.NewLink(t, srv, nil, "s.>")
		nc := link.Connect(t)
		js := open(t, nc)
		addStream(t, js)
		heard, err := nc.SubscribeSync("news")
		if err != nil {
			t.Fatal(err)
		}
		if err := publish(t, js, "one"); err != nil {
			t.Fatal(err)
		}
		link.Freeze()
		if err := publish(t, js, "two"); err == nil {
			t.Error("a write was answered by a frozen link")
		}
		if err := natstest.Connect(t, srv).Publish("news", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := heard.NextMsg(time.Minute); !errors.Is(err, nats.ErrTimeout) {
			t.Errorf("a message came through a frozen link: %v", err)
		}
		if n := len(link.Writes()); n != 1 {
			t.Errorf("%d writes have passed a frozen link, want 1", n)
		}
		link.Thaw()
		if _, err := heard.NextMsg(time.Second); err != nil {
			t.Errorf("a message is lost: %v", err)
		}
		if err := publish(t, js, "three"); err != nil {
			t.Error(err)
		}
		if got, want := stored(t, srv), "one two three"; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
		if n := nc.Stats().Reconnects; n != 0 {
			t.Errorf("reconnected %d times, want none", n)
		}
	})
}

// A client that gives up its frozen connection gets another one after the thaw;
// what it had sent is lost if the server has hung up by then. A link may end
// while it is frozen.
func TestLinkFreezeForLong(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		link := natstest.NewLink(t, srv, nil, "s.>")
		nc := link.Connect(t)
		js := open(t, nc)
		addStream(t, js)
		link.Freeze()
		_ = publish(t, js, "one")
		time.Sleep(time.Hour) // neither side has heard the other's pings
		if nc.IsConnected() {
			t.Error("the client is connected after an hour of silence")
		}
		link.Thaw()
		time.Sleep(time.Minute)
		if err := publish(t, js, "two"); err != nil {
			t.Error(err)
		}
		if got, want := stored(t, srv), "two"; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
		link.Freeze()
	})
}

// A link leads to another server on the same data.
func TestLinkReroute(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := natstest.Start(t, dir)
	link := natstest.NewLink(t, first, nil, "s.>")
	back := make(chan struct{}, 1)
	js := open(t, link.Connect(t, nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} })))
	addStream(t, js)
	if err := publish(t, js, "one"); err != nil {
		t.Fatal(err)
	}
	link.Down()
	first.Shutdown()
	first.WaitForShutdown()
	second := natstest.Start(t, dir)
	link.Reroute(second)
	link.Up()
	<-back
	if err := publish(t, js, "two"); err != nil {
		t.Fatal(err)
	}
	if got, want := stored(t, second), "one two"; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}

// Much traffic in both directions at once does not block a link.
func TestLinkTraffic(t *testing.T) {
	t.Parallel()
	const messages = 5000
	srv := natstest.Start(t, t.TempDir())
	nc := natstest.NewLink(t, srv, nil, "s.>").Connect(t)
	done := make(chan struct{})
	var seen int
	_, err := nc.Subscribe("echo", func(m *nats.Msg) {
		if seen++; seen == messages {
			close(done)
		}
		if err := nc.Publish("elsewhere", m.Data); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range messages {
		if err := nc.Publish("echo", make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the link is stuck")
	}
}
