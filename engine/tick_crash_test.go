package engine_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
)

// tickTime is when the ticks of the stories begin: some time after a bubble does.
var tickTime = time.Date(2000, 1, 1, 0, 0, 30, 0, time.UTC)

// tickID is the job of the tick that comes so long after the first one.
func tickID(after time.Duration) string {
	return fmt.Sprintf("job.nightly=%d", tickTime.Add(after).UnixMilli())
}

var tickCrashes = map[string]crash{
	"is a tick": {before: defined("", spec.Overlap{}, 0), tick: tickID(0), want: "succeeded"},
	"waits for its turn": {
		before: defined("snooze", spec.Overlap{Policy: spec.OverlapQueue, Limit: 1}, 0, time.Second),
		tick:   tickID(time.Second), want: "succeeded", ends: 2,
	},
	"gets the turn of another": {
		before: defined("wait", spec.Overlap{Policy: spec.OverlapCancelPrevious}, 0, time.Second),
		tick:   tickID(time.Second), want: "succeeded", ends: 2,
	},
	"halts its schedule": {before: defined("fail", spec.Overlap{}, 0), tick: tickID(0), want: "failed"},
}

// Whatever write the owner dies before or after, and whatever answer it does not get, a
// tick is one job, which ends once, and one job of a schedule at a time has a turn. With
// -seeds everything happens at each write, otherwise one thing.
func TestTickCrashPoints(t *testing.T) { crashAll(t, tickCrashes) }

// defined prepares a schedule whose jobs do what their input says.
func defined(input string, overlap spec.Overlap, ticks ...time.Duration) func(*testing.T, *server.Server) {
	return func(t *testing.T, srv *server.Server) {
		t.Helper()
		data, err := json.Marshal(input)
		if err != nil {
			t.Fatal(err)
		}
		s := engine.Schedule{Name: "nightly", Job: "job", Input: data, Overlap: overlap, PauseAfterFailures: 1}
		for _, after := range ticks {
			s.At = append(s.At, tickTime.Add(after))
		}
		if _, err := start(t, srv, "before", nil).Apply(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}
