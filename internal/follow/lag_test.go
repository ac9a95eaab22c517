package follow_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/natstest"
)

// A message is visited as soon as it is old enough, and never before, however
// many there are.
func TestLag(t *testing.T) {
	const lag = 10 * time.Second
	for _, every := range []time.Duration{time.Minute, 3 * time.Second, 100 * time.Millisecond, time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				nc := natstest.Connect(t, srv)
				js := open(t, nc)
				makeStream(t, js)
				f := start(t, nc, follow.Options{Lag: lag})
				const messages = 200
				for i := range messages {
					store(t, js, fmt.Sprint("s.", i))
					time.Sleep(every)
				}
				time.Sleep(time.Minute)
				if got := len(f.visits()); got != messages {
					t.Errorf("visited %d messages, want %d", got, messages)
				}
				for i, v := range f.visits() {
					if age := v.at.Sub(v.Time); v.Sequence != uint64(i+1) || age < lag || age > lag+lag/100 {
						t.Fatalf("visit %d is message %d at the age of %v, want %v", i+1, v.Sequence, age, lag)
					}
				}
			})
		})
	}
}

// What another message replaces in time is not visited, whatever the load.
func TestLagReplaced(t *testing.T) {
	for _, rate := range []int{1, 10, 50} { // subjects a second, with four writes within three seconds each
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				nc := natstest.Connect(t, srv)
				js := open(t, nc)
				makeStream(t, js)
				f := start(t, nc, follow.Options{Lag: 10 * time.Second})
				subjects := 60 * rate
				for i := range subjects + 3*rate {
					for write := range 4 {
						if n := i - write*rate; n >= 0 && n < subjects {
							store(t, js, fmt.Sprint("s.", n))
						}
					}
					time.Sleep(time.Second / time.Duration(rate))
				}
				time.Sleep(time.Minute)
				if got := len(f.visits()); got < subjects || got > subjects+subjects/20 {
					t.Errorf("%d subjects took %d visits", subjects, got)
				}
			})
		})
	}
}

// The age is that of the given clock.
func TestLagNow(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		js := open(t, nc)
		makeStream(t, js)
		slow := func() time.Time { return time.Now().Add(-time.Minute) }
		fast := func() time.Time { return time.Now().Add(time.Minute) }
		for _, clock := range []struct {
			now  func() time.Time
			want time.Duration
		}{{slow, 70 * time.Second}, {fast, 0}} {
			began := time.Now()
			store(t, js, "s.a")
			f := start(t, nc, follow.Options{Lag: 10 * time.Second, Now: clock.now})
			time.Sleep(2 * time.Minute)
			if len(f.visits()) != 1 {
				t.Fatalf("visited %q", f.visited())
			}
			if got := f.visits()[0].at.Sub(began).Round(time.Second); got != clock.want {
				t.Errorf("visited after %v, want %v", got, clock.want)
			}
			f.stop()
		}
	})
}

// Whoever stops does not wait until a message is old enough.
func TestLagStop(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		js := open(t, nc)
		makeStream(t, js)
		store(t, js, "s.a")
		f := start(t, nc, follow.Options{Lag: time.Hour})
		time.Sleep(time.Minute)
		stopped := time.Now()
		f.stop()
		if err := f.end(); err != nil {
			t.Errorf("ended with %v, want nil", err)
		}
		if took := time.Since(stopped); took > time.Second {
			t.Errorf("stopped after %v", took)
		}
		f.want("")
	})
}
