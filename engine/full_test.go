package engine_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// storage allows the account that many bytes more than it has now.
func storage(t testing.TB, srv *server.Server, more int64) {
	t.Helper()
	used := int64(srv.GlobalAccount().JetStreamUsage().Store)
	limits := map[string]server.JetStreamAccountLimits{"": {
		MaxMemory: -1, MaxStore: used + more, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}}
	if err := srv.GlobalAccount().UpdateJetStreamLimits(limits); err != nil {
		t.Fatal(err)
	}
}

// warnings counts what a log says above level info.
type warnings struct {
	slog.Handler
	n *atomic.Int64
}

func (w warnings) Enabled(context.Context, slog.Level) bool { return true }

func (w warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level > slog.LevelInfo {
		w.n.Add(1)
	}
	return nil
}

// Where nothing fits any more, deleting jobs makes room.
func TestDeleteFromFullStorage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		eng := connect(t, srv, engine.Options{Logger: slog.New(slog.DiscardHandler)})
		ids := submit(t, eng, "greet", 20)
		for _, id := range ids[1:] {
			if _, err := eng.Cancel(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		storage(t, srv, 0)
		if _, err := eng.Cancel(t.Context(), ids[0]); err == nil {
			t.Fatal("a write fits: storage is not full")
		}
		for _, id := range ids[1:] {
			if err := eng.Delete(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
		if _, err := eng.Cancel(t.Context(), ids[0]); err != nil {
			t.Errorf("there is still no room: %v", err)
		}
		if left, err := eng.List(t.Context()); err != nil || len(left) != 1 {
			t.Errorf("%d jobs are left, %v, want 1", len(left), err)
		}
	})
}

// While no write fits, jobs wait, and the log does not fill the disk as well.
// Once there is room they go on.
func TestFullStorage(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		const jobs = 100
		log := warnings{slog.DiscardHandler, new(atomic.Int64)}
		eng := connect(t, srv, engine.Options{Logger: slog.New(log)})
		slow := engine.NewJob("full.slow", func(context.Context, string) (string, error) {
			time.Sleep(5 * time.Second)
			return "done", nil
		})
		ids := submit(t, eng, slow.Kind(), jobs)
		work(t, eng, engine.WorkerOptions{}, slow)
		time.Sleep(2 * time.Second)
		storage(t, srv, 0)
		time.Sleep(2 * time.Minute)
		// One line for each outcome, and some each minute for everything else.
		if n := log.n.Load(); n == 0 || n > 30 {
			t.Errorf("the log has %d warnings about two minutes without storage", n)
		}
		if info, err := eng.Get(t.Context(), ids[jobs-1]); err != nil || info.State != "pending" {
			t.Errorf("the last job is %s, %v: storage is not full", info.State, err)
		}
		storage(t, srv, 1<<20)
		time.Sleep(jobs * time.Second)
		for _, id := range ids {
			ended(t, eng, id, "succeeded", 1, 0)
		}
	})
}
