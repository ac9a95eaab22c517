package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// A broadcast that is over before its parts have ended counts them as they are, also
// one that somebody cancelled: in lists they are as they were when it ended.
func TestCountOfParts(t *testing.T) {
	for name, tc := range map[string]struct {
		opts         engine.BroadcastOptions
		cancel       bool
		listed, read engine.ChildrenInfo
	}{
		"any": {
			opts:   engine.BroadcastOptions{Done: engine.DoneAny},
			listed: engine.ChildrenInfo{Succeeded: 1, Cancelled: 1}, read: engine.ChildrenInfo{Succeeded: 2},
		},
		"rolling": {
			opts:   engine.BroadcastOptions{Done: engine.DoneAny, MaxParallel: 1},
			listed: engine.ChildrenInfo{Succeeded: 1, Unstarted: 1}, read: engine.ChildrenInfo{Succeeded: 1, Unstarted: 1},
		},
		"cancelled": {
			opts: engine.BroadcastOptions{MaxParallel: 1}, cancel: true,
			read: engine.ChildrenInfo{Succeeded: 1, Unstarted: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				stubborn := engine.NewJob("job", func(ctx context.Context, _ any) (any, error) {
					if engine.JobFrom(ctx).Node == "b" {
						time.Sleep(5 * time.Second)
					}
					time.Sleep(5 * time.Second)
					return nil, nil
				})
				eng := stations(t, srv, map[string]string{"a": "", "b": ""}, stubborn)["a"].Engine
				sent, err := stubborn.Broadcast(t.Context(), eng, nil, tc.opts)
				if err != nil {
					t.Fatal(err)
				}
				if tc.cancel {
					time.Sleep(time.Second)
					if _, err := eng.Cancel(t.Context(), sent.ID); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(20 * time.Second)
				for where, got := range map[string][2]*engine.ChildrenInfo{
					"listed": {get(t, eng, sent.ID).Children, &tc.listed}, "read": {broadcastOf(t, eng, sent.ID).Children, &tc.read},
				} {
					is, want := got[0], got[1]
					want.Total, want.OnLost, want.Done, want.MaxParallel = is.Total, is.OnLost, is.Done, is.MaxParallel
					if diff := cmp.Diff(want, is); diff != "" {
						t.Errorf("%s (-want +got):\n%s", where, diff)
					}
				}
			})
		})
	}
}
