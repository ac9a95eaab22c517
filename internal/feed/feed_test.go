package feed_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/feed"
	"github.com/millrace/millrace/internal/natstest"
)

// Whoever has stopped is called no more, and waits for the call that is under way.
func TestHear(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		began, heard := make(chan struct{}, 2), 0
		stop, err := feed.Hear(nc, "news.*", func(*nats.Msg) {
			began <- struct{}{}
			time.Sleep(time.Second)
			heard++
		})
		if err != nil {
			t.Fatal(err)
		}
		say := func() {
			t.Helper()
			if err := errors.Join(nc.Publish("news.today", nil), nc.Flush()); err != nil {
				t.Fatal(err)
			}
		}
		say()
		<-began
		stop()
		if heard != 1 {
			t.Errorf("it was stopped when %d calls had returned, want 1", heard)
		}
		say()
		time.Sleep(time.Minute)
		if heard != 1 {
			t.Errorf("it was called %d times, the last one after it was stopped", heard)
		}
	})
}

// To stop does not wait for what a closed connection does not do any more.
func TestStopAfterClose(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		stop, err := feed.Hear(nc, "news.*", func(*nats.Msg) {})
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
		stop()
		if _, err := feed.Hear(nc, "news.*", func(*nats.Msg) {}); !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("to hear over a closed connection: got %v, want %v", err, nats.ErrConnectionClosed)
		}
	})
}
