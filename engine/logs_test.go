package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// readLog returns the log of a job, in short, or that there is none.
func readLog(t testing.TB, eng *engine.Engine, id string, opts engine.LogOptions) (lines []string) {
	t.Helper()
	err := eng.Logs(t.Context(), id, opts, func(line engine.LogLine) error {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%d %s %s %s %s", line.Attempt, line.Node, line.Level, line.Text, line.Attrs)))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return lines
}

// What handlers say is in the job's log, over all attempts, and in the log of the
// process; who follows has everything when the job ends.
func TestLogs(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		var said bytes.Buffer
		p, witness := start(t, srv, "a", nil), start(t, srv, "w", nil)
		eng, err := engine.Connect(t.Context(), p.nc, engine.Options{
			Node: "a", Logger: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(eng.Close)
		stop := work(t, eng, engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			j := engine.JobFrom(ctx)
			j.Logger().Info("hello", "attempt_of", 2)
			j.Logger().Debug("nobody wants to know")
			j.Logger().With("page", 7).Warn("slow")
			j.Say("as it is")
			if j.Attempt == 1 {
				return nil, errors.New("boom")
			}
			return nil, nil
		}))
		submit(t, eng, "job", 1)
		want := []string{
			`1 a INFO hello {"attempt_of":2}`, `1 a WARN slow {"page":7}`, `1 a INFO as it is`,
			`2 a INFO hello {"attempt_of":2}`, `2 a WARN slow {"page":7}`, `2 a INFO as it is`,
		}
		if d := cmp.Diff(want, readLog(t, witness.Engine, "job.1", engine.LogOptions{Follow: true})); d != "" {
			t.Errorf("followed (-want +got):\n%s", d)
		}
		if d := cmp.Diff(want[4:], readLog(t, witness.Engine, "job.1", engine.LogOptions{Tail: 2})); d != "" {
			t.Errorf("tail (-want +got):\n%s", d)
		}
		stop()
		if !strings.Contains(said.String(), `level=WARN msg=slow job=job.1 kind=job attempt=1 page=7`) || strings.Contains(said.String(), "hello") {
			t.Errorf("the process says:\n%s", &said)
		}
	})
}

// The log is there also after the node has died.
func TestLogsOfTheDead(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, witness := start(t, srv, "a", nil), start(t, srv, "w", nil)
		p.run(engine.WorkerOptions{Grace: time.Second}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			engine.JobFrom(ctx).Logger().Info("alive")
			time.Sleep(time.Second)
			p.link.Down()
			engine.JobFrom(ctx).Logger().Info("unheard")
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		submit(t, p.Engine, "job", 1)
		time.Sleep(time.Hour)
		if d := cmp.Diff([]string{"1 a INFO alive"}, readLog(t, witness.Engine, "job.1", engine.LogOptions{})); d != "" {
			t.Errorf("log (-want +got):\n%s", d)
		}
	})
}

// A handler that ends while NATS is away said everything before its outcome is
// stored, so who follows misses nothing.
func TestLogsAway(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p, witness := start(t, srv, "a", nil), start(t, srv, "w", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			p.link.Down()
			time.AfterFunc(3*time.Second, p.link.Up)
			for i := range 100 {
				engine.JobFrom(ctx).Say(fmt.Sprint(i))
			}
			return nil, nil
		}))
		submit(t, p.Engine, "job", 1)
		lines := readLog(t, witness.Engine, "job.1", engine.LogOptions{Follow: true})
		if len(lines) != 100 || lines[99] != "1 a INFO 99" {
			t.Errorf("got %d lines", len(lines))
		}
		ended(t, witness.Engine, "job.1", "succeeded", 1, 0)
	})
}

// A log that cannot be written keeps no outcome from being stored.
func TestLogsBroken(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		js, err := jetstream.New(natstest.Connect(t, srv))
		if err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(t.Context(), "mr_default_logs"); err != nil {
			t.Fatal(err)
		}
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			engine.JobFrom(ctx).Logger().Info("unheard")
			return nil, nil
		}))
		submit(t, p.Engine, "job", 1)
		info := ended(t, p.Engine, "job.1", "succeeded", 1, 0)
		if took := info.Finished.Sub(*info.Started); took > 3*time.Second {
			t.Errorf("the job took %v", took)
		}
	})
}

// A job's log goes with the job, and one under the same ID begins anew.
func TestLogsDeleted(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		p := start(t, srv, "a", nil)
		p.run(engine.WorkerOptions{}, engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
			engine.JobFrom(ctx).Say("hello")
			return nil, nil
		}))
		for range 2 {
			submit(t, p.Engine, "job", 1)
			ended(t, p.Engine, "job.1", "succeeded", 1, 0)
			if lines := readLog(t, p.Engine, "job.1", engine.LogOptions{}); len(lines) != 1 {
				t.Errorf("got the lines %q, want one", lines)
			}
			if err := p.Delete(t.Context(), "job.1"); err != nil {
				t.Fatal(err)
			}
			err := p.Logs(t.Context(), "job.1", engine.LogOptions{}, func(engine.LogLine) error { return nil })
			if !errors.Is(err, engine.ErrNotFound) {
				t.Errorf("got %v, want that there is no such job", err)
			}
		}
	})
}

// What cannot be read is said in one line.
func TestLogsRefused(t *testing.T) {
	t.Parallel()
	eng := connect(t, natstest.Start(t, t.TempDir()))
	for _, test := range []struct {
		id   string
		opts engine.LogOptions
		want string
	}{
		{"job", engine.LogOptions{}, "job ID"},
		{"job.1", engine.LogOptions{Tail: -1}, "tail is -1"},
		{"job.1", engine.LogOptions{Follow: true}, "no such job: job.1"},
	} {
		err := eng.Logs(t.Context(), test.id, test.opts, func(engine.LogLine) error { return nil })
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %+v: got %v, want %q", test.id, test.opts, err, test.want)
		}
	}
}
