package publish_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A connection on which JetStream gives no sign of life is made again, after the
// time that an election takes, and then every so often. Any answer that is not
// about a missing leader is a sign of life, but not for what nobody takes to store.
func TestSilence(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(*nats.Msg) error // nil: nobody listens
		want   uint64                // connections made again within a minute
		asks   bool                  // and gets answers, all the time
	}{
		{"nobody listens", nil, 5, false},
		{"nobody stores", nil, 5, true},
		{"no answer", func(*nats.Msg) error { return nil }, 5, false},
		{"stored late or never, and answers", func(*nats.Msg) error { return nil }, 0, true},
		{"no leader", func(m *nats.Msg) error {
			return m.Respond([]byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`))
		}, 5, false},
		{"refused", func(m *nats.Msg) error {
			return m.Respond([]byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 1"}}`))
		}, 0, false},
		{"no room", func(m *nats.Msg) error {
			return m.Respond([]byte(`{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}`))
		}, 0, false},
		{"stored", func(m *nats.Msg) error { return m.Respond([]byte(`{"stream":"S","seq":1}`)) }, 0, false},
		{"late", func(m *nats.Msg) error {
			time.AfterFunc(7*time.Second, func() { _ = m.Respond([]byte(`{"stream":"S","seq":1}`)) })
			return nil
		}, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				if test.answer != nil {
					other := natstest.Connect(t, srv)
					if _, err := other.Subscribe("x.>", func(m *nats.Msg) { _ = test.answer(m) }); err != nil {
						t.Fatal(err)
					}
					if err := other.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				nc := natstest.Connect(t, srv, nats.ReconnectWait(100*time.Millisecond), nats.ReconnectJitter(0, 0))
				p := newPublisher(t, nc, publish.Options{Timeout: 4500 * time.Millisecond}) // none ends as another is sent
				for range 60 {
					p.PublishAsync(message("x.a"), func(publish.Ack, error) {})
					if test.asks {
						_ = p.Ask(t.Context(), "INFO", nil, &struct{ publish.Refusal }{}) // it fails when the connection is made again
					}
					time.Sleep(time.Second)
				}
				time.Sleep(8 * time.Second) // the last answers
				synctest.Wait()
				if got := nc.Stats().Reconnects; got != test.want {
					t.Errorf("got %d new connections within a minute, want %d", got, test.want)
				}
			})
		})
	}
}
