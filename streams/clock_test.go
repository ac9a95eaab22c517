package streams_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// infoSubject is where the clock asks.
var infoSubject = "$JS.API.STREAM.INFO.KV_" + ns.Bucket(streams.Leases)

// The clock shows the server's time, to the nanosecond where answers take no
// time, and goes on by itself while the server is away.
func TestClock(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, link *natstest.Link) {
		clock := streams.NewClock(ns, publisher(t, w.nc))
		same := func() {
			t.Helper()
			if got := clock.Now(); !got.Equal(time.Now()) || got.Location() != time.UTC {
				t.Errorf("got %v, want %v", got, time.Now().UTC())
			}
		}
		same()
		if err := clock.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Minute)
		same()
		if n := testing.AllocsPerRun(1000, func() { clock.Now() }); n != 0 {
			t.Errorf("the clock allocates %v times", n)
		}
		link.Down()
		time.Sleep(time.Hour)
		oneLine(t, clock.Measure(t.Context()), "streams: measure the time of the server")
		oneLine(t, clock.Fresh(t.Context()), "streams: measure the time of the server")
		same()
	})
}

// Whoever waits until somebody else has measured does so no longer than he wants.
func TestClockGivesUp(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		ensure(t, connect(t, srv), streams.Options{})
		link := natstest.NewLink(t, srv, natstest.HoldFirst(nil), infoSubject)
		clock := streams.NewClock(ns, publisher(t, link.Connect(t)))
		natstest.GivesUp(t, link, clock.Fresh)
	})
}

// The clock runs until it is stopped, measuring every minute and whenever the
// connection is there again.
func TestClockRun(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		ensure(t, connect(t, srv), streams.Options{})
		var asked atomic.Int64
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { asked.Add(1); return natstest.Pass }, infoSubject)
		clock := streams.NewClock(ns, publisher(t, link.Connect(t)))
		measured := func(want int64, when string) {
			t.Helper()
			time.Sleep(time.Second)
			if got := asked.Swap(0); got != 5*want {
				t.Errorf("%s: the server was asked %d times, want %d", when, got, 5*want)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- clock.Run(ctx) }()
		measured(1, "at first")
		time.Sleep(5 * time.Minute)
		measured(5, "in five minutes")
		link.Cut()
		measured(1, "after a reconnect")
		if err := clock.Fresh(t.Context()); err != nil {
			t.Error(err)
		}
		measured(0, "while it is fresh")
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if err := clock.Fresh(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		measured(1, "by ten at once")
	})
}

// The clock gives up only with its connection.
func TestClockClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, link *natstest.Link) {
		clock := streams.NewClock(ns, publisher(t, w.nc))
		ended := make(chan error)
		go func() { ended <- clock.Run(t.Context()) }()
		link.Down()
		time.Sleep(time.Hour)
		select {
		case err := <-ended:
			t.Fatalf("it ended while the server was away: %v", err)
		default:
		}
		w.nc.Close()
		if err := <-ended; !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, publish.ErrClosed) {
			t.Errorf("got %v, want that the connection is closed", err)
		}
	})
}

// sundial answers for the leases stream with what tell says, over a server that
// has no JetStream of its own: a server whose clock is not this machine's.
func sundial(t *testing.T, srv *server.Server, tell func() string) *streams.Clock {
	t.Helper()
	nc := connect(t, srv)
	must(nc.Subscribe(infoSubject, func(msg *nats.Msg) {
		if err := msg.Respond([]byte(tell())); err != nil {
			t.Error(err)
		}
	}))(t)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return streams.NewClock(ns, publisher(t, connect(t, srv)))
}

func info(at time.Time) string {
	data, err := json.Marshal(map[string]any{"type": "io.nats.jetstream.api.v1.stream_info_response", "ts": at})
	if err != nil {
		panic(err)
	}
	return string(data)
}

// Answers that take long make the clock late, never early; the one that took
// least counts. The server's clock may be any time away from this machine's.
func TestClockSamples(t *testing.T) {
	const away = -1000 * time.Hour
	for name, delays := range map[string][]time.Duration{
		"best first": {10, 50, 900, 30, 20},
		"best last":  {50, 900, 30, 20, 10},
		"in between": {999, 999, 10, 999, 999},
		"then none":  {10, 2000}, // milliseconds
	} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
				asked := 0
				clock := sundial(t, natstest.StartWith(t, &server.Options{DontListen: true}), func() string {
					asked++
					at := time.Now().Add(away)
					time.Sleep(delays[asked-1] * time.Millisecond)
					return info(at)
				})
				if err := clock.Measure(t.Context()); err != nil {
					t.Fatal(err)
				}
				if late := time.Now().Add(away).Sub(clock.Now()); late != 10*time.Millisecond {
					t.Errorf("the clock is late by %v, want 10ms", late)
				}
				time.Sleep(5 * time.Second)
			})
		})
	}
}

// A new measurement counts, also if the server's clock was set back.
func TestClockSetBack(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		away := time.Hour
		clock := sundial(t, natstest.StartWith(t, &server.Options{DontListen: true}), func() string { return info(time.Now().Add(away)) })
		for _, away = range []time.Duration{time.Hour, -time.Hour, time.Minute} {
			if err := clock.Measure(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := time.Until(clock.Now()); got != away {
				t.Errorf("the clock is ahead of this machine's by %v, want %v", got, away)
			}
		}
	})
}

// Answers without a time are none.
func TestClockBadAnswers(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		var answer atomic.Value
		clock := sundial(t, natstest.StartWith(t, &server.Options{DontListen: true}), func() string { return answer.Load().(string) })
		for text, want := range map[string]string{
			``:            "read answer",
			`{"ts":1}`:    "read answer",
			`{}`:          "has no time",
			`{"ts":null}`: "has no time",
			`{"error":{"code":404,"err_code":10059,"description":"stream not found"}}`: "stream not found",
		} {
			answer.Store(text)
			oneLine(t, clock.Measure(t.Context()), "streams: measure the time of the server", want)
		}
	})
}

// Setting the machine's clock changes nothing: what is counted from is a time
// with a monotonic clock reading.
func TestClockIsMonotonic(t *testing.T) {
	t.Parallel()
	nc := connect(t, natstest.Start(t, t.TempDir()))
	ensure(t, nc, streams.Options{})
	clock := streams.NewClock(ns, publisher(t, nc))
	for err := clock.Measure(t.Context()); err != nil; err = clock.Measure(t.Context()) {
		if !errors.Is(err, context.DeadlineExceeded) { // which is up to the machine
			t.Fatal(err)
		}
	}
	before := clock.Now()
	streams.StepWallClock(clock, time.Hour)
	if after := clock.Now(); after.Before(before) || after.Sub(before) > 30*time.Minute {
		t.Errorf("the clock went from %v to %v when the machine's was set", before, after)
	}
}
