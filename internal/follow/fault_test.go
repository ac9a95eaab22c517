package follow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/natstest"
)

// world is a server in a bubble, a link to it for the reader, and a connection
// that does not fail for everybody else.
type world struct {
	*testing.T
	link   *natstest.Link
	reader *nats.Conn
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
}

// bubble runs f in a bubble. The link decides what becomes of requests to the
// JetStream API.
func bubble(t *testing.T, decide func(natstest.Write) natstest.Fault, f func(t *testing.T, w *world)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := &world{T: t, link: natstest.NewLink(t, srv, decide, "$JS.API.>")}
		w.reader, w.nc = w.link.Connect(t), natstest.Connect(t, srv)
		w.js = open(t, w.nc)
		w.stream = makeStream(t, w.js)
		f(t, w)
	})
}

// start reads with the connection that may fail.
func (w *world) start(opts follow.Options) *feed { return start(w, w.reader, opts) }

// store stores with the connection that does not fail.
func (w *world) store(subjects ...string) { store(w, w.js, subjects...) }

// replace deletes the stream and makes it anew.
func (w *world) replace() {
	if err := w.js.DeleteStream(w.Context(), "S"); err != nil {
		w.Fatal(err)
	}
	synctest.Wait() // the server removes files after its answer, and refuses the new stream if it meets them
	w.stream = makeStream(w, w.js)
}

// The reader goes on where it was, within seconds, whatever happens to it.
func TestFaults(t *testing.T) {
	tests := []struct {
		name   string
		within time.Duration // of the store after the fault
		fault  func(w *world)
	}{
		{"nothing", 0, func(w *world) {}},
		{"cut", time.Second, func(w *world) { w.link.Cut() }},
		{"cut often", time.Second, func(w *world) {
			for range 20 {
				w.link.Cut()
				time.Sleep(rand.N(300 * time.Millisecond))
			}
		}},
		{"down", time.Second, func(w *world) {
			w.link.Down()
			time.Sleep(10 * time.Minute)
			w.link.Up()
		}},
		{"consumer deleted", time.Second, func(w *world) {
			for _, name := range consumers(w, w.js) {
				if err := w.js.DeleteConsumer(w.Context(), "S", name); err != nil {
					w.Error(err)
				}
			}
		}},
		{"subjects of the stream changed", 0, func(w *world) {
			config := w.stream.CachedInfo().Config
			config.Subjects = []string{"s.>", "t.>"}
			if _, err := w.js.UpdateStream(w.Context(), config); err != nil {
				w.Error(err)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, quietly := range []time.Duration{0, 1700 * time.Millisecond, 10 * time.Minute} { // in the life of a pull
				bubble(t, nil, func(t *testing.T, w *world) {
					w.store("s.a", "s.b")
					f := w.start(follow.Options{})
					f.want("1a 2b")
					time.Sleep(quietly)
					test.fault(w)
					w.store("s.c", "s.a")
					time.Sleep(time.Minute)
					f.want("1a 2b 3c 4a")
					for _, v := range f.visits() {
						if late := v.at.Sub(v.Time); late > test.within {
							t.Errorf("message %d was visited %v after it was stored", v.Sequence, late)
						}
					}
					f.stop()
					if err := f.end(); err != nil {
						t.Error(err)
					}
					if left := consumers(t, w.js); len(left) > 0 {
						t.Errorf("left the consumers %q", left)
					}
				})
			}
		})
	}
}

// A message that went astray is read again, at the latest when the server next
// says how many it has sent.
func TestFaultLost(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		f := w.start(follow.Options{})
		time.Sleep(time.Second)
		for i, after := range []string{"", "s.b"} {
			stolen := make(chan *nats.Msg, 1)
			sub, err := w.nc.ChanSubscribe("thief", stolen)
			if err != nil {
				t.Fatal(err)
			}
			next := "$JS.API.CONSUMER.MSG.NEXT.S." + consumers(t, w.js)[0]
			for len(stolen) == 0 { // the consumer serves those who wait in turn
				if err := w.nc.PublishRequest(next, "thief", []byte("1")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				w.store("s.a")
				synctest.Wait()
			}
			if after != "" {
				w.store(after)
			}
			began := time.Now()
			state, err := w.stream.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			behind := func() bool {
				visits := f.visits()
				return len(visits) == 0 || visits[len(visits)-1].Sequence != state.State.LastSeq
			}
			for behind() && time.Since(began) < time.Minute {
				time.Sleep(10 * time.Millisecond)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("round %d: took %v", i, took)
			}
			if err := sub.Unsubscribe(); err != nil {
				t.Fatal(err)
			}
		}
		w.complete(f)
	})
}

// A request that the server never sees, or whose answer never arrives, is given
// up after seconds, and at once if the connection comes back meanwhile.
func TestFaultDeaf(t *testing.T) {
	for _, subject := range []string{"CONSUMER.CREATE", "STREAM.INFO", "CONSUMER.MSG.NEXT"} {
		for _, fault := range []natstest.Fault{natstest.Hold, natstest.LoseAnswer} {
			for again, within := range map[bool]time.Duration{false: 6 * time.Second, true: time.Second} {
				t.Run(fmt.Sprint(subject, " ", fault, " ", again), func(t *testing.T) {
					var strike atomic.Bool // the next such request
					decide := func(r natstest.Write) natstest.Fault {
						if strings.HasPrefix(r.Subject, "$JS.API."+subject) && strike.CompareAndSwap(true, false) {
							return fault
						}
						return natstest.Pass
					}
					bubble(t, decide, func(t *testing.T, w *world) {
						f := w.start(follow.Options{})
						time.Sleep(time.Second)
						strike.Store(true)
						w.link.Cut()
						time.Sleep(500 * time.Millisecond)
						if strike.Load() {
							t.Error("there was no such request")
						}
						if again {
							w.link.Cut()
						}
						w.store("s.a")
						time.Sleep(20 * time.Second)
						f.want("1a")
						if late := f.visits()[0].at.Sub(f.visits()[0].Time); late > within {
							t.Errorf("visited after %v, want at most %v", late, within)
						}
						w.store("s.b")
						f.want("1a 2b")
					})
				})
			}
		}
	}
}

// Whatever becomes of its requests, the reader visits everything once. The
// first try tells how many there are.
func TestFaultRequests(t *testing.T) {
	program := func(t *testing.T, decide func(natstest.Write) natstest.Fault) (requests int) {
		bubble(t, decide, func(t *testing.T, w *world) {
			w.store("s.a", "s.b", "s.c", "s.d")
			f := w.start(follow.Options{Until: 4, Batch: 2, Lag: time.Second})
			for range 2 {
				time.Sleep(10 * time.Minute) // a pull that fills is not answered, and then the client must find the cut itself
				w.link.Up()
			}
			if err := f.end(); err != nil {
				t.Error(err)
			}
			f.want("1a 2b 3c 4d")
			requests = len(w.link.Writes())
		})
		return requests
	}
	requests := program(t, nil)
	for n := range requests {
		for _, fault := range []natstest.Fault{
			natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold, natstest.DownBefore, natstest.DownAfter,
		} {
			t.Run(fmt.Sprint(n+1, " ", fault), func(t *testing.T) {
				program(t, func(r natstest.Write) natstest.Fault {
					if r.Number == n+1 && r.Reply != "" {
						return fault
					}
					return natstest.Pass
				})
			})
		}
	}
}

// A quiet stream costs few requests.
func TestFaultNone(t *testing.T) {
	for _, lag := range []time.Duration{0, 10 * time.Second} {
		bubble(t, nil, func(t *testing.T, w *world) {
			w.store("s.a")
			w.start(follow.Options{Lag: lag})
			time.Sleep(time.Hour)
			if got := len(w.link.Writes()); got > 400 {
				t.Errorf("with a lag of %v an hour took %d requests", lag, got)
			}
		})
	}
}

// What is purged is not visited, and a reader that is behind or ahead goes on.
func TestFaultPurged(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.store("s.a", "s.b")
		f := w.start(follow.Options{Lag: 10 * time.Second, Batch: 1})
		time.Sleep(5 * time.Second) // one message is fetched and waits
		w.store("s.c")
		if err := w.stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		f.want("1a")
		w.store("s.d")
		time.Sleep(time.Minute)
		f.want("1a 4d")
		if err := w.stream.Purge(t.Context(), jetstream.WithPurgeSequence(100)); err != nil {
			t.Fatal(err)
		}
		w.store("s.e")
		time.Sleep(time.Minute)
		f.want("1a 4d 100e")
	})
}

// A stream that is made anew is read from its beginning, whether it is longer
// or shorter than the old one when the reader sees it.
func TestFaultReplaced(t *testing.T) {
	for _, away := range []bool{false, true} {
		for _, again := range []string{"s.c", "s.c s.d s.e"} {
			t.Run(fmt.Sprint(again, " away ", away), func(t *testing.T) {
				bubble(t, nil, func(t *testing.T, w *world) {
					var log bytes.Buffer
					w.store("s.a", "s.b")
					f := w.start(follow.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
					f.want("1a 2b")
					if away {
						w.link.Down()
					}
					time.Sleep(time.Minute)
					w.replace()
					w.store(strings.Fields(again)...)
					w.link.Up()
					time.Sleep(time.Minute)
					want := "1a 2b 1c 2d 3e"
					f.want(want[:len("1a 2b")+3*len(strings.Fields(again))])
					f.stop()
					f.end()
					if got := strings.Count(log.String(), `"stream started over"`); got != 1 {
						t.Errorf("the log does not say once that the stream started over:\n%s", &log)
					}
				})
			})
		}
	}
}

// A stream that is not there yet is waited for, which the log says once.
func TestFaultNoStream(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		if err := w.js.DeleteStream(t.Context(), "S"); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		f := w.start(follow.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		time.Sleep(time.Minute)
		makeStream(t, w.js)
		w.store("s.a")
		time.Sleep(time.Second)
		f.want("1a")
		f.stop()
		f.end()
		if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), "stream not found") {
			t.Errorf("want one line about the stream that is not found, got:\n%s", &log)
		}
	})
}

// A visit may take longer than the consumer lives.
func TestFaultSlow(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		w.store("s.a", "s.b", "s.c")
		for _, opts := range []follow.Options{{Batch: 2}, {Batch: 2, Lag: time.Second}, {Batch: 2, Until: 3}} {
			opts.Stream, opts.Logger = "S", quiet
			enough, seen := errors.New("enough"), ""
			err := follow.Run(t.Context(), publisher(w, w.reader), opts, func(m follow.Message) error {
				seen += m.Subject[len("s."):]
				time.Sleep(2 * time.Hour)
				if m.Sequence == 3 {
					return enough
				}
				return nil
			})
			if !errors.Is(err, enough) || seen != "abc" {
				t.Errorf("visited %q and ended with %v", seen, err)
			}
		}
	})
}

// Whoever stops while NATS is away does not wait for it.
func TestFaultStop(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		for _, away := range []time.Duration{0, time.Second, 10 * time.Minute} {
			f := w.start(follow.Options{})
			time.Sleep(time.Minute)
			w.link.Down()
			time.Sleep(away)
			stopped := time.Now()
			f.stop()
			if err := f.end(); err != nil {
				t.Errorf("ended with %v, want nil", err)
			}
			if took := time.Since(stopped); took > time.Second {
				t.Errorf("stopped after %v", took)
			}
			w.link.Up()
			time.Sleep(time.Minute)
		}
	})
}

// Random programs of stores and faults: the visits are in order, and nothing
// that stays in the stream is left out.
func TestFaultRandom(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			bubble(t, nil, func(t *testing.T, w *world) {
				opts := follow.Options{Batch: 1 + random.IntN(5), Headers: random.IntN(2) == 0}
				if random.IntN(2) == 0 {
					opts.Lag = time.Duration(random.IntN(3000)) * time.Millisecond
				}
				f := w.start(opts)
				for range 100 {
					w.step(random)
				}
				w.link.Up()
				time.Sleep(time.Minute)
				w.complete(f)
			})
		})
	}
}

// step does one random thing.
func (w *world) step(random *rand.Rand) {
	switch random.IntN(12) {
	case 0:
		w.link.Cut()
	case 1:
		w.link.Down()
	case 2, 3:
		w.link.Up()
	case 4:
		for _, name := range consumers(w, w.js) {
			if err := w.js.DeleteConsumer(w.Context(), "S", name); err != nil {
				w.Error(err)
			}
		}
	case 5:
		time.Sleep(time.Duration(random.IntN(20)) * time.Second)
	case 6, 7:
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
	default:
		for range random.IntN(10) {
			w.store(fmt.Sprint("s.", random.IntN(50)))
		}
	}
}

// complete checks that a feed went forward and has seen all of the stream.
func (w *world) complete(f *feed) {
	seen, last := make(map[uint64]bool), uint64(0)
	for _, v := range f.visits() {
		if v.Sequence <= last {
			w.Errorf("visited %d after %d", v.Sequence, last)
		}
		last = v.Sequence
		seen[last] = true
	}
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	info, err := w.stream.Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		w.Fatal(err)
	}
	for _, seq := range info.State.Deleted {
		seen[seq] = true
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		if !seen[seq] {
			w.Errorf("message %d was not visited", seq)
		}
	}
}
