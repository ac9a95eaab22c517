package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// asked are the subjects of all that Connect asks.
var asked = []string{"$JS.API.>", "$KV.>"}

// Any request of Connect, or its answer, is lost with the connection, or the
// answer comes late. It opens the namespace all the same.
func TestConnectLost(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			for step, more := 1, true; more; step++ {
				t.Run(fmt.Sprint(step), func(t *testing.T) {
					natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
						connect(t, srv) // the namespace is there
						link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
							if w.Number == step {
								return fault
							}
							return natstest.Pass
						}, asked...)
						eng, err := engine.Connect(t.Context(), link.Connect(t), engine.Options{Logger: voice(t)})
						if err != nil {
							t.Fatal(err)
						}
						defer eng.Close()
						more = len(link.Writes()) >= step
						link.Release()
					})
				})
			}
		})
	}
}

// Connect waits for NATS for as long as it is told to, and says so.
func TestConnectEarly(t *testing.T) {
	for _, test := range []struct {
		away, patience time.Duration
		took           time.Duration // at least
		told           int
		want           string // error
	}{
		{away: 500 * time.Millisecond, took: 500 * time.Millisecond},
		{away: 10 * time.Second, took: 10 * time.Second, told: 1},
		{away: time.Hour, took: 15 * time.Second, told: 2, want: "streams: ask NATS for JetStream: publish: not sent: not connected to NATS"},
		{away: time.Hour, patience: 5 * time.Second, took: 5 * time.Second, told: 1, want: "not connected to NATS"},
		{away: 39 * time.Second, patience: time.Hour, took: 39 * time.Second, told: 4},
	} {
		t.Run(fmt.Sprintf("%v %v", test.away, test.patience), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				link := natstest.NewLink(t, srv, nil, asked...)
				nc := link.Connect(t)
				link.Down()
				defer time.AfterFunc(test.away, link.Up).Stop()
				var log bytes.Buffer
				began := time.Now()
				eng, err := engine.Connect(t.Context(), nc, engine.Options{
					Patience: test.patience, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				})
				took := time.Since(began)
				if err == nil {
					eng.Close()
				}
				if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if took < test.took || took > test.took+4*time.Second {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				if told := strings.Count(log.String(), "level=WARN"); told != test.told {
					t.Errorf("the logger was told %d times, want %d:\n%s", told, test.told, &log)
				}
			})
		})
	}
}

// The end of the context ends Connect at once, whatever it waits for.
func TestConnectEnds(t *testing.T) {
	for name, fault := range map[string]func(*natstest.Link){"down": (*natstest.Link).Down, "frozen": (*natstest.Link).Freeze} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				link := natstest.NewLink(t, srv, nil, asked...)
				nc := link.Connect(t)
				fault(link)
				ctx, cancel := context.WithTimeout(t.Context(), 3100*time.Millisecond)
				defer cancel()
				began := time.Now()
				_, err := engine.Connect(ctx, nc, engine.Options{Patience: time.Hour, Logger: voice(t)})
				if took := time.Since(began); err == nil || took != 3100*time.Millisecond {
					t.Errorf("it ended with %v after %v", err, took)
				}
			})
		})
	}
}

// JetStream says for a while that it is unavailable, and then that it refuses: only
// the first is tried again.
func TestConnectUnavailable(t *testing.T) {
	for code, want := range map[string]time.Duration{
		`"code":503,"err_code":10008`: 15 * time.Second,
		`"code":503,"err_code":10004`: 15 * time.Second,
		`"code":500,"err_code":10042`: 0,
	} {
		t.Run(code, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				other := natstest.Connect(t, srv)
				_, err := other.Subscribe("$JS.far.API.INFO", func(m *nats.Msg) { _ = m.Respond([]byte(`{"error":{` + code + `}}`)) })
				if err == nil {
					err = other.Flush()
				}
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, err = engine.Connect(t.Context(), natstest.Connect(t, srv), engine.Options{Domain: "far", Logger: voice(t)})
				if took := time.Since(began); err == nil || took < want || took > want+4*time.Second {
					t.Errorf("it ended with %v after %v, want %v", err, took, want)
				}
			})
		})
	}
}

// An engine is ready when it is connected, and a node when it has joined.
func TestJoined(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv)
		if !eng.Ready() || eng.Joined() {
			t.Errorf("before it serves it is ready %v and has joined %v, want ready alone", eng.Ready(), eng.Joined())
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- eng.Serve(ctx) }()
		time.Sleep(time.Second)
		if !eng.Joined() {
			t.Error("it serves and has not joined")
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if eng.Joined() {
			t.Error("it serves no more and has not left")
		}
		if err := eng.Serve(ctx); err != nil {
			t.Errorf("stopped before it joined: %v, want no error", err)
		}
	})
}
