package follow_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/publish"
)

// No goroutine outlives the test that started it. The server's access-time
// ticker, which natstest starts on purpose, does.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

var quiet = slog.New(slog.DiscardHandler)

// open returns JetStream over nc.
func open(t testing.TB, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// publisher returns a publisher on nc.
func publisher(t testing.TB, nc *nats.Conn) *publish.Publisher {
	t.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	return pub
}

// makeStream makes the stream S for s.>, with one message a subject.
func makeStream(t testing.TB, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>"}, MaxMsgsPerSubject: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// store stores a message on each of some subjects, once, however often it has to ask.
func store(t testing.TB, js jetstream.JetStream, subjects ...string) {
	t.Helper()
	for _, subject := range subjects {
		once := jetstream.WithMsgID(nats.NewInbox())
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := js.Publish(ctx, subject, []byte("data"), once)
			cancel()
			if err == nil {
				break
			}
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
		}
	}
}

// consumers returns the names of the consumers of S.
func consumers(t testing.TB, js jetstream.JetStream) (names []string) {
	t.Helper()
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	list := s.ConsumerNames(t.Context())
	for name := range list.Name() {
		names = append(names, name)
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// feed is a reading that goes on in the background.
type feed struct {
	t    testing.TB
	stop context.CancelFunc
	done chan error

	mu   sync.Mutex
	seen []visit
	more chan struct{} // something was visited
}

// visit is a message, and when it was visited.
type visit struct {
	follow.Message
	at time.Time
}

// start reads S in the background until the test ends or stop is called.
func start(t testing.TB, nc *nats.Conn, opts follow.Options) *feed {
	t.Helper()
	pub := publisher(t, nc)
	ctx, cancel := context.WithCancel(t.Context())
	f := &feed{t: t, stop: cancel, done: make(chan error, 1), more: make(chan struct{}, 1)}
	opts.Stream = "S"
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.done <- follow.Run(ctx, pub, opts, f.visit)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return f
}

func (f *feed) visit(m follow.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, visit{m, time.Now()})
	select {
	case f.more <- struct{}{}:
	default:
	}
	return nil
}

// visits returns what was visited until now.
func (f *feed) visits() []visit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[:len(f.seen):len(f.seen)]
}

// visited is visits as text: the sequence and the last token of the subject.
func (f *feed) visited() string {
	var words []string
	for _, v := range f.visits() {
		words = append(words, fmt.Sprint(v.Sequence, strings.TrimPrefix(v.Subject, "s.")))
	}
	return strings.Join(words, " ")
}

// want waits until as many messages as it says have been visited, such as
// "1a 2b", and compares.
func (f *feed) want(words string) {
	f.t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for len(f.visits()) < len(strings.Fields(words)) {
		select {
		case <-f.more:
		case err := <-f.done:
			f.t.Fatalf("reading ended with %v after %q, want %q", err, f.visited(), words)
		case <-limit.C:
			f.t.Fatalf("visited %q within a minute, want %q", f.visited(), words)
		}
	}
	if d := cmp.Diff(words, f.visited()); d != "" {
		f.t.Errorf("visited (-want +got):\n%s", d)
	}
}

// end waits until the reading ends by itself, and returns with what.
func (f *feed) end() error {
	f.t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case err := <-f.done:
		return err
	case <-limit.C:
		f.t.Fatalf("reading did not end within a minute; visited %q", f.visited())
		return nil
	}
}
