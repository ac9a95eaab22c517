package follow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/natstest"
)

// Everything that there is, and then everything that comes, until ctx ends. It
// leaves no consumer behind.
func TestRun(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	js := open(t, nc)
	makeStream(t, js)
	store(t, js, "s.a", "s.b", "s.a", "s.c")
	f := start(t, nc, follow.Options{Batch: 2})
	f.want("2b 3a 4c")
	store(t, js, "s.d", "s.b")
	f.want("2b 3a 4c 5d 6b")
	f.stop()
	if err := f.end(); err != nil {
		t.Errorf("ended with %v, want nil", err)
	}
	if left := consumers(t, js); len(left) > 0 {
		t.Errorf("left the consumers %q", left)
	}
}

// A message is visited as it was stored, and without data if only headers are
// read.
func TestRunMessage(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	js := open(t, nc)
	s := makeStream(t, js)
	for _, subject := range []string{"s.a", "s.b"} {
		msg := &nats.Msg{Subject: subject, Header: nats.Header{"K": {"v"}}, Data: []byte("data")}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := s.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for headers, want := range map[bool]string{false: "1 s.a v data 1", true: "1 s.a v  1"} {
		f := start(t, nc, follow.Options{Until: 2, Headers: headers})
		if err := f.end(); err != nil {
			t.Fatal(err)
		}
		m := f.visits()[0]
		if got := fmt.Sprint(m.Sequence, " ", m.Subject, " ", m.Header.Get("K"), " ", string(m.Data), " ", m.Pending); got != want {
			t.Errorf("headers only %v: got %q, want %q", headers, got, want)
		}
		if !m.Time.Equal(stored.Time) {
			t.Errorf("got time %v, want %v", m.Time, stored.Time)
		}
	}
}

// What filters and bounds leave of a stream is visited, and then it ends,
// whatever the state of the stream.
func TestRunUntil(t *testing.T) {
	t.Parallel()
	abcd := []string{"s.a", "s.b", "s.c", "s.d.x"}
	remove := func(sequences ...uint64) func(*testing.T, jetstream.Stream) {
		return func(t *testing.T, s jetstream.Stream) {
			for _, seq := range sequences {
				if err := s.DeleteMsg(t.Context(), seq); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	purge := func(t *testing.T, s jetstream.Stream) {
		if err := s.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		stored []string
		then   func(*testing.T, jetstream.Stream)
		opts   follow.Options
		want   string
	}{
		{"all", abcd, nil, follow.Options{Until: 4}, "1a 2b 3c 4d.x"},
		{"small batches", abcd, nil, follow.Options{Until: 4, Batch: 1}, "1a 2b 3c 4d.x"},
		{"the first", abcd, nil, follow.Options{Until: 1}, "1a"},
		{"the middle", abcd, nil, follow.Options{From: 2, Until: 3}, "2b 3c"},
		{"none", abcd, nil, follow.Options{From: 3, Until: 2}, ""},
		{"more than there is", abcd, nil, follow.Options{From: 4, Until: 9}, "4d.x"},
		{"a stream that lost its end", abcd, nil, follow.Options{From: 9, Until: 9}, "1a 2b 3c 4d.x"},
		{"never written", nil, nil, follow.Options{Until: 1}, ""},
		{"purged", abcd, purge, follow.Options{Until: 4}, ""},
		{"the last deleted", abcd, remove(4), follow.Options{Until: 4}, "1a 2b 3c"},
		{"a gap at the end", abcd, remove(3), follow.Options{Until: 3}, "1a 2b"},
		{"all but the first deleted", abcd, remove(2, 3, 4), follow.Options{Until: 4}, "1a"},
		{"one filter", abcd, nil, follow.Options{Until: 4, Filters: []string{"s.*"}}, "1a 2b 3c"},
		{"two filters", abcd, nil, follow.Options{Until: 4, Filters: []string{"s.d.>", "s.b"}}, "2b 4d.x"},
		{"nothing matches", abcd, nil, follow.Options{Until: 4, Filters: []string{"s.x"}}, ""},
		{"what matches comes later", abcd, nil, follow.Options{Until: 2, Filters: []string{"s.c"}}, ""},
		{"old enough", abcd, nil, follow.Options{Until: 4, Lag: time.Millisecond, Batch: 2}, "1a 2b 3c 4d.x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
			js := open(t, nc)
			s := makeStream(t, js)
			store(t, js, test.stored...)
			if test.then != nil {
				test.then(t, s)
			}
			f := start(t, nc, test.opts)
			if err := f.end(); err != nil {
				t.Fatal(err)
			}
			f.want(test.want)
			if left := consumers(t, js); len(left) > 0 {
				t.Errorf("left the consumers %q", left)
			}
		})
	}
}

// A new message is visited at once: no time passes at all.
func TestRunLive(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		nc := natstest.Connect(t, srv)
		js := open(t, nc)
		makeStream(t, js)
		f := start(t, nc, follow.Options{})
		for range 100 {
			time.Sleep(1234 * time.Millisecond)
			store(t, js, "s.a")
		}
		time.Sleep(time.Second)
		for _, v := range f.visits() {
			if late := v.at.Sub(v.Time); late > time.Millisecond {
				t.Fatalf("message %d was visited %v after it was stored", v.Sequence, late)
			}
		}
		if got := len(f.visits()); got != 100 {
			t.Errorf("visited %d messages, want 100", got)
		}
	})
}

// An error of visit ends it, and nothing is visited after that.
func TestRunRefused(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	js := open(t, nc)
	makeStream(t, js)
	store(t, js, "s.a", "s.b", "s.c")
	enough, visits := errors.New("enough"), 0
	err := follow.Run(t.Context(), publisher(t, nc), follow.Options{Stream: "S"}, func(m follow.Message) error {
		if visits++; m.Subject == "s.b" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || visits != 2 {
		t.Errorf("got %v after %d visits, want the error of the second", err, visits)
	}
}

// A closed connection is an error; the end of ctx never is.
func TestRunClosed(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	js := open(t, nc)
	makeStream(t, js)
	store(t, js, "s.a")
	pub := publisher(t, nc)
	f := start(t, nc, follow.Options{})
	f.want("1a")
	nc.Close()
	if err := f.end(); !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("got %v, want that the connection is closed", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := follow.Run(ctx, pub, follow.Options{Stream: "S"}, nil); err != nil {
		t.Errorf("with an ended context got %v, want nil", err)
	}
}

func TestRunOptions(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	err := follow.Run(t.Context(), publisher(t, nc), follow.Options{Lag: -1, Batch: -1}, nil)
	for _, part := range []string{"stream is required", "lag -1ns is negative", "batch -1 is negative"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want that %s", err, part)
		}
	}
}
