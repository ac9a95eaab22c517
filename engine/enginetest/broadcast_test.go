package enginetest_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
)

// A broadcast over three processes, of which one is killed in the middle: the others
// have done their parts, and that of the third is lost.
func TestBroadcast(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		flush := engine.NewJob("cache.flush", func(ctx context.Context, what string) (string, error) {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
				return "", ctx.Err()
			}
			return what + " of " + engine.JobFrom(ctx).Node, nil
		})
		env.Worker(flush)
		env.Worker(flush)
		third := env.Worker(flush)

		all, err := flush.Broadcast(t.Context(), env.Engine(), "prices", engine.BroadcastOptions{Done: engine.DoneQuorum})
		if err != nil {
			t.Fatal(err)
		}
		env.Advance(5 * time.Second)
		third.Kill()
		env.Await(all.ID)
		parts, err := all.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, p := range parts {
			got[p.Node] = p.State + " " + p.Value
		}
		want := map[string]string{
			"worker-1": "succeeded prices of worker-1", "worker-2": "succeeded prices of worker-2", "worker-3": "lost ",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
