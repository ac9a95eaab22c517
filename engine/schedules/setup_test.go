package schedules_test

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The server's access-time ticker runs for as long as the process does.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

const (
	ns = streams.DefaultNamespace
	// configWrites is where definitions are written.
	configWrites = "$KV.mr_default_config.>"
)

var quiet = slog.New(slog.DiscardHandler)

// process is what a process has of schedules.
type process struct {
	*schedules.Schedules
	t       *testing.T
	pub     *publish.Publisher
	stored  *kv.Bucket[scheduler.Stored]
	cursors *kv.Bucket[tick.Cursor]
}

// join returns a process over a connection, with the assets there.
func join(t *testing.T, nc *nats.Conn) *process {
	t.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	return &process{
		schedules.Open(pub, schedules.Options{Namespace: ns, Clock: streams.NewClock(ns, pub), Logger: quiet}),
		t, pub, scheduler.Bucket(pub, ns, quiet), kv.Open(pub, ns.Bucket(streams.Cursor), cursorCodec),
	}
}

// started returns a process over a server of its own.
func started(t *testing.T) *process {
	t.Helper()
	return join(t, natstest.Connect(t, natstest.Start(t, t.TempDir())))
}

// cursorCodec writes cursors as the owner does.
var cursorCodec = kv.Codec[tick.Cursor]{
	Encode: func(c tick.Cursor) (nats.Header, []byte, error) {
		data, err := json.Marshal(c)
		return streams.Envelope{Type: "cursor", Version: 1}.Header(), data, err
	},
	Decode: kv.JSON[tick.Cursor]().Decode,
}

// bubble runs a test on a virtual clock, over a server of its own.
func bubble(t *testing.T, f func(t *testing.T, p *process, srv *server.Server)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		t.Helper()
		f(t, join(t, natstest.Connect(t, srv)), srv)
	})
}

// hourly is a schedule like many.
var hourly = spec.Schedule{Name: "hourly", Cron: "0 * * * *", Job: "report.build"}

// apply applies a definition and returns what is stored then.
func (p *process) apply(s spec.Schedule) kv.Entry[scheduler.Stored] {
	p.t.Helper()
	must(p.Apply(p.t.Context(), s, false))(p.t)
	return p.definition(s.Name)
}

// definition reads what is stored, and when it says that the schedule began.
func (p *process) definition(schedule string) kv.Entry[scheduler.Stored] {
	p.t.Helper()
	return must(p.stored.Get(p.t.Context(), scheduler.Key(schedule)))(p.t)
}

// begins checks when a schedule was created, and since when its ticks are due.
func (p *process) begins(schedule string, created, since time.Time) {
	p.t.Helper()
	d, err := scheduler.Compile(p.definition(schedule))
	if err != nil {
		p.t.Fatal(err)
	}
	if !d.Created.Equal(created) || !d.Since.Equal(since) {
		p.t.Errorf("%s was created at %v, and ticks since %v: want %v and %v", schedule, d.Created, d.Since, created.UTC(), since.UTC())
	}
}

// raw is the bucket of definitions, for what no process of ours writes.
func (p *process) raw() *kv.Bucket[[]byte] {
	return kv.Open(p.pub, ns.Bucket(streams.Config), kv.Codec[[]byte]{
		Encode: func(b []byte) (nats.Header, []byte, error) { return nil, b, nil },
		Decode: func(_ nats.Header, b []byte) ([]byte, error) { return b, nil },
	})
}

// must returns a value, unless there is an error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
