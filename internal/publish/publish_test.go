package publish_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// natstest keeps it running on purpose.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.start.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// makeStream makes a stream S of the subjects s.> over a connection of its own.
func makeStream(t testing.TB, srv *server.Server) {
	t.Helper()
	js, err := jetstream.New(natstest.Connect(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
}

func newPublisher(t testing.TB, nc *nats.Conn, opts ...publish.Options) *publish.Publisher {
	t.Helper()
	p, err := publish.New(nc, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func message(subject string, header ...string) *nats.Msg {
	msg := nats.NewMsg(subject)
	for i := 0; i+1 < len(header); i += 2 {
		msg.Header.Set(header[i], header[i+1])
	}
	return msg
}

func TestPublish(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeStream(t, srv)
	p := newPublisher(t, natstest.Connect(t, srv))
	ctx := t.Context()

	msg := message("s.a", jetstream.MsgIDHeader, "1")
	for _, want := range []publish.Ack{{Stream: "S", Sequence: 1}, {Stream: "S", Sequence: 1, Duplicate: true}} {
		if got, err := p.Publish(ctx, msg); err != nil || got != want {
			t.Errorf("publish: got %v, %v, want %v", got, err, want)
		}
	}
	if msg.Reply != "" {
		t.Errorf("the message was changed: its reply is %q", msg.Reply)
	}

	_, err := p.Publish(ctx, message("s.a", jetstream.ExpectedLastSubjSeqHeader, "7"))
	if api := (*jetstream.APIError)(nil); !errors.As(err, &api) || api.ErrorCode != 10071 {
		t.Errorf("wrong revision: got %v, want API error 10071", err)
	}
	if _, err := p.Publish(ctx, message("nobody.listens")); !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("no stream: got %v, want ErrNoStreamResponse", err)
	}
	for _, bad := range []*nats.Msg{
		message("s.a b"),
		{Subject: "s.a", Data: make([]byte, p.Conn().MaxPayload()+1)},
	} {
		_, err := p.Publish(ctx, bad)
		if err == nil || errors.Is(err, publish.ErrUnsent) || errors.Is(err, publish.ErrUnknown) {
			t.Errorf("message that cannot be sent: got %v, want another error", err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	_, err := publish.New(nc, publish.Options{Timeout: -1, MaxPending: -1})
	if err == nil || !strings.Contains(err.Error(), "timeout") || !strings.Contains(err.Error(), "max pending") {
		t.Errorf("got %v, want both complaints", err)
	}
}

func TestCustomInbox(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeStream(t, srv)
	replies := make(chan string, 1)
	spy := natstest.Connect(t, srv)
	if _, err := spy.Subscribe("s.>", func(m *nats.Msg) { replies <- m.Reply }); err != nil {
		t.Fatal(err)
	}
	if err := spy.Flush(); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, natstest.Connect(t, srv, nats.CustomInboxPrefix("_INBOX_worker")))
	if _, err := p.Publish(t.Context(), message("s.a")); err != nil {
		t.Fatal(err)
	}
	if reply := <-replies; !strings.HasPrefix(reply, "_INBOX_worker.") {
		t.Errorf("the answer goes to %s, which the worker may not hear", reply)
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	nc := natstest.Connect(t, srv)
	if _, err := nc.Subscribe("echo", func(m *nats.Msg) { m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	p := newPublisher(t, nc)
	msg, err := p.Request(t.Context(), "echo", []byte("hello"))
	if err != nil || string(msg.Data) != "hello" {
		t.Errorf("got %v, %v, want hello", msg, err)
	}
	if _, err := p.Request(t.Context(), "nobody", nil); !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("nobody: got %v, want ErrNoStreamResponse", err)
	}
}

// Every message is answered once, and with its own sequence.
func TestPipeline(t *testing.T) {
	t.Parallel()
	const senders, each = 4, 5000
	srv := natstest.Start(t, t.TempDir())
	makeStream(t, srv)
	p := newPublisher(t, natstest.Connect(t, srv), publish.Options{MaxPending: 100})

	var answers [senders * each]atomic.Uint64
	var calls, done sync.WaitGroup
	done.Add(len(answers))
	for s := range senders {
		calls.Go(func() {
			for i := range each {
				if err := p.Room(t.Context()); err != nil {
					t.Error(err)
				}
				answer := &answers[s*each+i]
				p.PublishAsync(message(fmt.Sprintf("s.%d.%d", s, i)), func(ack publish.Ack, err error) {
					if err != nil {
						t.Error(err)
					}
					answer.Add(ack.Sequence)
					done.Done()
				})
			}
		})
	}
	calls.Wait()
	done.Wait()
	js, err := jetstream.New(p.Conn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(answers); n += 777 {
		msg, err := stream.GetMsg(t.Context(), answers[n].Load())
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("s.%d.%d", n/each, n%each); msg.Subject != want {
			t.Errorf("sequence %d is %s, want %s", msg.Sequence, msg.Subject, want)
		}
	}
}

// What a callback publishes goes out even when the window is full.
func TestCallbacksNeverWait(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeStream(t, srv)
	p := newPublisher(t, natstest.Connect(t, srv), publish.Options{MaxPending: 1})
	end := make(chan struct{})
	var left atomic.Int64
	left.Store(1000)
	var next func(publish.Ack, error)
	next = func(_ publish.Ack, err error) {
		switch n := left.Add(-1); {
		case err != nil:
			t.Error(err)
			close(end)
		case n == 0:
			close(end)
		case n > 0:
			p.PublishAsync(message("s.a"), next)
			p.PublishAsync(message("s.a"), func(publish.Ack, error) {})
		}
	}
	p.PublishAsync(message("s.a"), next)
	<-end
}

// In a bubble, each fault gives the error that it should, at the time it should.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		fault natstest.Fault
		want  error
		after time.Duration
	}{
		{natstest.Pass, nil, 0},
		{natstest.LoseAnswer, publish.ErrUnknown, 5 * time.Second},
		{natstest.Hold, publish.ErrUnknown, 5 * time.Second},
		{natstest.CutBefore, publish.ErrUnknown, 0},
		{natstest.CutAfter, publish.ErrUnknown, 0},
		{natstest.DownAfter, publish.ErrUnknown, 0},
	} {
		t.Run(strings.ReplaceAll(tt.fault.String(), " ", "-"), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				makeStream(t, srv)
				link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
					if w.Subject == "s.faulty" {
						return tt.fault
					}
					return natstest.Pass
				}, "s.>")
				p := newPublisher(t, link.Connect(t))
				start := time.Now()
				_, err := p.Publish(t.Context(), message("s.faulty"))
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if got := time.Since(start).Truncate(time.Second); got != tt.after {
					t.Errorf("took %v, want %v", got, tt.after)
				}
				if tt.fault == natstest.DownAfter {
					if _, err := p.Publish(t.Context(), message("s.a")); !errors.Is(err, publish.ErrUnsent) || err.Error() != "publish: not sent: not connected to NATS" {
						t.Errorf("while down: got %v, want ErrUnsent for want of a connection", err)
					}
					link.Up()
				}
				time.Sleep(time.Minute) // long enough to reconnect
				if _, err := p.Publish(t.Context(), message("s.a")); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

// Whatever breaks, every message in flight is answered exactly once, an
// acknowledged one is stored, and one that was unsent is not.
func TestOutcomes(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeStream(t, srv)
		faults := []natstest.Fault{natstest.LoseAnswer, natstest.CutBefore, natstest.CutAfter}
		link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
			if w.Number%17 == 0 {
				return faults[w.Number/17%len(faults)]
			}
			return natstest.Pass
		}, "s.>")
		p := newPublisher(t, link.Connect(t))
		const n = 400
		var (
			mu       sync.Mutex
			outcomes = map[string][]error{}
			all      sync.WaitGroup
		)
		all.Add(n)
		for i := range n {
			subject := fmt.Sprint("s.", i)
			p.PublishAsync(message(subject), func(_ publish.Ack, err error) {
				mu.Lock()
				defer mu.Unlock()
				outcomes[subject] = append(outcomes[subject], err)
				all.Done()
			})
			time.Sleep(10 * time.Millisecond)
		}
		all.Wait()
		checkOutcomes(t, srv, outcomes)
	})
}

func checkOutcomes(t *testing.T, srv *server.Server, outcomes map[string][]error) {
	t.Helper()
	js, err := jetstream.New(natstest.Connect(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for subject, errs := range outcomes {
		if len(errs) != 1 {
			t.Fatalf("%s has %d outcomes: %v", subject, len(errs), errs)
		}
		_, err := stream.GetLastMsgForSubject(t.Context(), subject)
		stored := err == nil
		switch err := errs[0]; {
		case err == nil:
			count["stored"]++
			if !stored {
				t.Errorf("%s was acknowledged and is not there", subject)
			}
		case errors.Is(err, publish.ErrUnsent):
			count["unsent"]++
			if stored {
				t.Errorf("%s was not sent and is there", subject)
			}
		case errors.Is(err, publish.ErrUnknown):
			count[fmt.Sprint("unknown, stored ", stored)]++
		default:
			t.Errorf("%s: %v", subject, err)
		}
	}
	for _, kind := range []string{"stored", "unsent", "unknown, stored true", "unknown, stored false"} {
		if count[kind] == 0 {
			t.Errorf("no message is %s; got %v", kind, count)
		}
	}
}

// The end of one connection does not fail what was sent over the next one.
func TestReconnectSparesNewMessages(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeStream(t, srv)
		link := natstest.NewLink(t, srv, nil, "s.>")
		nc := link.Connect(t)
		p := newPublisher(t, nc)
		status := nc.StatusChanged(nats.CONNECTED)
		defer nc.RemoveStatusListener(status)
		for range 100 {
			link.Cut()
			<-status
			if _, err := p.Publish(t.Context(), message("s.a")); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestRoom(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeStream(t, srv)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { return natstest.Hold }, "s.>")
		p := newPublisher(t, link.Connect(t), publish.Options{MaxPending: 8})
		for range 8 {
			p.PublishAsync(message("s.a"), func(publish.Ack, error) {})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Room(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("full window: got %v, want DeadlineExceeded", err)
		}
		free := make(chan error)
		go func() { free <- p.Room(t.Context()) }()
		synctest.Wait()
		select {
		case <-free:
			t.Error("there is room although nothing was answered")
		default:
		}
		link.Release()
		if err := <-free; err != nil {
			t.Error(err)
		}
	})
}

func TestContextEnds(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeStream(t, srv)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { return natstest.Hold }, "s.>")
		p := newPublisher(t, link.Connect(t))
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		_, err := p.Publish(ctx, message("s.a"))
		if !errors.Is(err, publish.ErrUnknown) || !errors.Is(err, cause) {
			t.Errorf("in flight: got %v, want ErrUnknown and the cause", err)
		}
		_, err = p.Publish(ctx, message("s.a"))
		if errors.Is(err, publish.ErrUnknown) || !errors.Is(err, cause) {
			t.Errorf("before it was sent: got %v, want the cause alone", err)
		}
	})
}

func TestClose(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		makeStream(t, srv)
		link := natstest.NewLink(t, srv, func(natstest.Write) natstest.Fault { return natstest.Hold }, "s.>")
		for _, lose := range []string{"publisher", "connection"} {
			p := newPublisher(t, link.Connect(t))
			outcomes := make(chan error, 2)
			done := func(_ publish.Ack, err error) { outcomes <- err }
			p.PublishAsync(message("s.a"), done)
			if lose == "connection" {
				p.Conn().Close()
			} else {
				p.Close()
			}
			if err := <-outcomes; !errors.Is(err, publish.ErrUnknown) {
				t.Errorf("%s closed, in flight: got %v, want ErrUnknown", lose, err)
			}
			p.PublishAsync(message("s.a"), done)
			if err := <-outcomes; !errors.Is(err, publish.ErrUnsent) {
				t.Errorf("%s closed: got %v, want ErrUnsent", lose, err)
			}
			p.Close() // twice does no harm
		}
	})
}
