package logs_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

const ns = streams.DefaultNamespace

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// natstest keeps it running on purpose.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// world is a namespace, one log that writes over a link and another one that
// reads over a connection that does not fail.
type world struct {
	*testing.T
	link    *natstest.Link
	said    strings.Builder // by the log that writes
	writing *logs.Log
	reading *logs.Log
	nc      *nats.Conn
	pub     *publish.Publisher
}

// bubble runs f in a bubble. The link decides what becomes of lines.
func bubble(t *testing.T, decide func(natstest.Write) natstest.Fault, f func(t *testing.T, w *world)) {
	t.Helper()
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := &world{T: t, link: natstest.NewLink(t, srv, decide, "mr.*.log.>")}
		w.nc = natstest.Connect(t, srv)
		w.pub = w.publisher(w.nc)
		quiet := slog.New(slog.DiscardHandler)
		if _, err := streams.Ensure(t.Context(), ns, w.pub, streams.Options{Logger: quiet}); err != nil {
			t.Fatal(err)
		}
		w.reading = logs.Open(w.pub, logs.Options{Namespace: ns, Logger: quiet})
		w.writing = logs.Open(w.publisher(w.link.Connect(t)), logs.Options{
			Namespace: ns, Logger: slog.New(slog.NewTextHandler(&w.said, nil)),
		})
		f(t, w)
	})
}

func (w *world) publisher(nc *nats.Conn) *publish.Publisher {
	w.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(pub.Close)
	return pub
}

// writer returns a writer for an attempt of mail.a, and its logger.
func (w *world) writer(attempt int) (*logs.Writer, *slog.Logger) {
	writer := w.writing.Writer(w.Context(), logs.Source{Job: "mail.a", Attempt: attempt, Fence: uint64(10 * attempt), Node: "n1"})
	w.Cleanup(writer.Close)
	return writer, slog.New(writer.Handler())
}

// flush fails the test unless everything is stored.
func (w *world) flush(writer *logs.Writer) {
	w.Helper()
	if !writer.Flush(w.Context(), time.Minute) {
		w.Error("not everything was stored")
	}
}

// read returns the lines of mail.a.
func (w *world) read(opts logs.ReadOptions) (lines []logs.Line) {
	w.Helper()
	err := w.reading.Read(w.Context(), "mail.a", opts, func(line logs.Line) error {
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		w.Error(err)
	}
	return lines
}

// want fails the test unless the lines of mail.a have these texts.
func (w *world) want(texts ...string) {
	w.Helper()
	var got []string
	for _, line := range w.read(logs.ReadOptions{}) {
		got = append(got, line.Text)
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", texts) {
		w.Errorf("got the lines %q, want %q", got, texts)
	}
}
