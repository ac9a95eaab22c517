package streams_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// steps are the subjects of everything that Ensure sends.
var steps = []string{"$KV.>", "$JS.API.>"}

// atEachStep runs f in a bubble for each step of Ensure on an empty server, with
// a link on which that step suffers the fault, and then once more without any. It
// closes struck when the fault strikes. Reads are steps only if the fault does not
// kill: whoever dies at one has done as much as whoever dies after the write before.
func atEachStep(t *testing.T, fault natstest.Fault, f func(t *testing.T, srv *server.Server, link *natstest.Link, struck <-chan struct{})) {
	steps := steps
	if fault == natstest.DownBefore || fault == natstest.DownAfter {
		steps = edits
	}
	more := true
	for step := 1; more; step++ {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				struck := make(chan struct{})
				link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
					if w.Number != step {
						return natstest.Pass
					}
					close(struck)
					return fault
				}, steps...)
				f(t, srv, link, struck)
				more = len(link.Writes()) >= step
			})
		})
		if step > 100 {
			t.Fatal("there is no end to it")
		}
	}
}

// fresh returns what Ensure makes on an empty server.
func fresh(t *testing.T) map[string]jetstream.StreamConfig {
	t.Helper()
	srv := natstest.Start(t, t.TempDir())
	ensure(t, connect(t, srv), streams.Options{})
	return made(t, srv)
}

// A process dies at any of its steps. The next one finishes, and nobody has to
// clean up.
func TestEnsureKilled(t *testing.T) {
	want := fresh(t)
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter} {
		t.Run(fault.String(), func(t *testing.T) {
			atEachStep(t, fault, func(t *testing.T, srv *server.Server, link *natstest.Link, struck <-chan struct{}) {
				ctx, kill := context.WithCancel(t.Context())
				pub, died := publisher(t, link.Connect(t)), make(chan struct{})
				go func() {
					defer close(died)
					_, _ = streams.Ensure(ctx, ns, pub, streams.Options{Logger: quiet})
				}()
				select {
				case <-struck:
				case <-died: // of old age
				}
				kill()
				start := time.Now()
				got := ensure(t, connect(t, srv), streams.Options{})
				if took := time.Since(start); took > streams.BootstrapTTL+2*time.Second {
					t.Errorf("the next process took %v", took)
				}
				<-died
				if want := (streams.Settings{Version: streams.Version, Lease: 6 * time.Second}); got != want {
					t.Errorf("got settings %+v, want %+v", got, want)
				}
				if d := cmp.Diff(want, made(t, srv)); d != "" {
					t.Errorf("streams (-want +got):\n%s", d)
				}
			})
		})
	}
}

// Any one answer is lost, or a request, or it arrives late. The same process
// finishes all the same, without help.
func TestEnsureLostAnswers(t *testing.T) {
	want := fresh(t)
	for _, fault := range []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.Hold} {
		t.Run(fault.String(), func(t *testing.T) {
			atEachStep(t, fault, func(t *testing.T, srv *server.Server, link *natstest.Link, _ <-chan struct{}) {
				start := time.Now()
				got := ensure(t, link.Connect(t), streams.Options{})
				if took := time.Since(start); took > 12*time.Second {
					t.Errorf("it took %v", took)
				}
				link.Release()
				again := ensure(t, connect(t, srv), streams.Options{Lease: 9 * time.Second})
				if want := (streams.Settings{Version: streams.Version, Lease: 6 * time.Second}); got != want || again != want {
					t.Errorf("got settings %+v and %+v, want %+v", got, again, want)
				}
				if d := cmp.Diff(want, made(t, srv)); d != "" {
					t.Errorf("streams (-want +got):\n%s", d)
				}
			})
		})
	}
}
