package follow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/natstest"
)

// open returns JetStream over nc.
func open(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// makeStream makes the stream S for s.>, with one message a subject.
func makeStream(t testing.TB, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>"}, MaxMsgsPerSubject: 1, AllowDirect: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// store stores each subject's last token as a message.
func store(t testing.TB, js jetstream.JetStream, subjects ...string) {
	t.Helper()
	for _, s := range subjects {
		for range 100 { // a server that has just come back may need some tries
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := js.Publish(ctx, s, []byte(s[strings.LastIndex(s, ".")+1:]))
			cancel()
			if err == nil {
				break
			}
		}
	}
}

// feed is a reading that goes on in the background.
type feed struct {
	t    testing.TB
	stop context.CancelFunc
	done chan error

	mu   sync.Mutex
	seen []follow.Message
	more chan struct{} // something was visited
}

// start reads in the background until the test ends or stop is called.
func start(t testing.TB, nc *nats.Conn, opts follow.Options) *feed {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &feed{t: t, stop: cancel, done: make(chan error, 1), more: make(chan struct{}, 1)}
	if opts.Stream == "" {
		opts.Stream = "S"
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.done <- follow.Run(ctx, nc, opts, f.visit)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

func (f *feed) visit(m follow.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, m)
	select {
	case f.more <- struct{}{}:
	default:
	}
	return nil
}

// visited returns what was visited until now, as sequence and subject.
func (f *feed) visited() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, m := range f.seen {
		lines = append(lines, fmt.Sprint(m.Sequence, " ", m.Subject))
	}
	return lines
}

// await waits until n messages have been visited.
func (f *feed) await(n int) {
	f.t.Helper()
	limit := time.After(time.Minute)
	for {
		got := f.visited()
		if len(got) >= n {
			return
		}
		select {
		case <-f.more:
		case err := <-f.done:
			f.t.Fatalf("reading ended with %v after %q, want %d messages", err, got, n)
		case <-limit:
			f.t.Fatalf("visited %q within a minute, want %d messages", got, n)
		}
	}
}

// want compares what was visited.
func (f *feed) want(lines ...string) {
	f.t.Helper()
	if d := cmp.Diff(lines, f.visited()); d != "" {
		f.t.Errorf("visited (-want +got):\n%s", d)
	}
}

// end waits until the reading ended by itself, and returns with what.
func (f *feed) end() error {
	f.t.Helper()
	select {
	case err := <-f.done:
		return err
	case <-time.After(time.Minute):
		f.t.Fatalf("reading did not end; visited %q", f.visited())
		return nil
	}
}

// Everything that there is, and then everything that comes.
func TestRun(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	js := open(t, nc)
	makeStream(t, js)
	store(t, js, "s.a", "s.b", "s.a", "s.c")
	f := start(t, nc, follow.Options{})
	f.await(3)
	store(t, js, "s.d", "s.b")
	f.await(5)
	f.want("2 s.b", "3 s.a", "4 s.c", "5 s.d", "6 s.b")
	f.stop()
	if err := f.end(); err != nil {
		t.Errorf("ended with %v, want nil", err)
	}
}

// A message has everything that was stored; with Headers it has no data.
func TestRunMessage(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	js := open(t, nc)
	makeStream(t, js)
	before := time.Now()
	for _, subject := range []string{"s.a", "s.b"} {
		msg := &nats.Msg{Subject: subject, Header: nats.Header{"K": {"v"}}, Data: []byte("data")}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	for _, headers := range []bool{false, true} {
		f := start(t, nc, follow.Options{Until: 2, Headers: headers})
		if err := f.end(); err != nil {
			t.Fatal(err)
		}
		f.want("1 s.a", "2 s.b")
		m := f.seen[0]
		want := "v data 1"
		if headers {
			want = "v  1"
		}
		if got := fmt.Sprint(m.Header.Get("K"), " ", string(m.Data), " ", m.Pending); got != want {
			t.Errorf("headers only %v: got %q, want %q", headers, got, want)
		}
		if m.Time.Before(before) || m.Time.After(time.Now()) {
			t.Errorf("got time %v, want about %v", m.Time, before)
		}
	}
}

// An error of visit ends it, and nothing is visited after that.
func TestRunRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	js := open(t, nc)
	makeStream(t, js)
	store(t, js, "s.a", "s.b", "s.c")
	enough, visits := errors.New("enough"), 0
	err := follow.Run(t.Context(), nc, follow.Options{Stream: "S"}, func(m follow.Message) error {
		if visits++; m.Subject == "s.b" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || visits != 2 {
		t.Errorf("got %v after %d visits, want the error of the second", err, visits)
	}
}
