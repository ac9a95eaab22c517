package natstest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
)

// open returns JetStream over nc.
func open(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// addStream makes a stream S for s.>.
func addStream(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Ten minutes of ack wait pass on the virtual clock, and not a second more.
func TestBubbleTime(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		js := open(t, natstest.Connect(t, srv))
		s := addStream(t, js)
		c, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
			Durable: "C", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 10 * time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "s.a", nil); err != nil {
			t.Fatal(err)
		}
		start, got := time.Now(), []string(nil)
		for range 2 {
			msg, err := c.Next(jetstream.FetchMaxWait(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			meta, err := msg.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(meta.NumDelivered, " after ", time.Since(start).Round(time.Second)))
		}
		want := []string{"1 after 0s", "2 after 10m0s"}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("deliveries (-want +got):\n%s", d)
		}
	})
}

// A second bubble in the same process works as the first did.
func TestBubbleTwice(t *testing.T) {
	for range 2 {
		natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
			addStream(t, open(t, natstest.Connect(t, srv)))
			time.Sleep(time.Hour)
		})
	}
}

// A connection finds the server again on the same port, and the data is there.
func TestListeningRestart(t *testing.T) {
	t.Parallel()
	srv := natstest.StartListening(t, t.TempDir())
	back := make(chan struct{}, 1)
	nc := srv.Connect(nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	js := open(t, nc)
	addStream(t, js)
	if _, err := js.Publish(t.Context(), "s.a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	url := srv.URL()

	srv.Stop()
	srv.Start()
	<-back
	if srv.URL() != url {
		t.Errorf("after a restart the server is at %s, want %s", srv.URL(), url)
	}
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := s.GetMsg(t.Context(), 1)
	if err != nil || string(msg.Data) != "kept" {
		t.Errorf("after a restart got %v, %v; want the message", msg, err)
	}
}
