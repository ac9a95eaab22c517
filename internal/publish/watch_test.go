package publish

import (
	"testing"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// The timer runs while something is in flight, and an idle publisher has none.
func TestTimer(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		if _, err := nc.Subscribe("silent", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		p, err := New(nc)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		armed := func(want bool) {
			t.Helper()
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.mu.armed != want {
				t.Errorf("armed %v, want %v", p.mu.armed, want)
			}
		}
		armed(false)
		start := time.Now()
		var late []time.Duration
		answered := make(chan struct{}, 3)
		for range 3 {
			p.PublishAsync(&nats.Msg{Subject: "silent"}, func(Ack, error) {
				late = append(late, time.Since(start))
				answered <- struct{}{}
			})
			time.Sleep(time.Second)
			armed(true)
		}
		for range 3 {
			<-answered
		}
		for i, want := range []time.Duration{5, 6, 7} {
			if late[i] != want*time.Second {
				t.Errorf("message %d failed after %v, want %d s", i, late[i], want)
			}
		}
		time.Sleep(time.Minute)
		armed(false)
	})
}
