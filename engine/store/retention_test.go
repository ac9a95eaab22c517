package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/streams"
)

// Where there are too many records of jobs that have ended, further ones are kept
// for less time.
func TestRetentionShrinks(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.Limits = streams.NewLimits(ns, p.pub, streams.LimitsOptions{MostEnded: 20})
		kept := map[int]time.Duration{}
		for i := range 42 {
			id := fmt.Sprint(i)
			p.submit(job(id))
			entry, err := p.Cancel(t.Context(), "q."+id, "asked")
			if err != nil || entry.Value.State != machine.Cancelled {
				t.Fatalf("got %s, %v", entry.Value.State, err)
			}
			kept[i] = entry.Value.Expires.Sub(entry.Value.Finished)
			if got := w.get("q." + id).Value.Expires; !got.Equal(entry.Value.Expires) {
				t.Errorf("job %d: stored are %v, and returned was %v", i, got, entry.Value.Expires)
			}
			time.Sleep(time.Minute)
		}
		const all = 14 * 24 * time.Hour
		for n, want := range map[int]time.Duration{0: all, 20: all, 21: all / 2, 22: all / 4, 41: 10 * time.Minute} {
			if kept[n] != want {
				t.Errorf("after %d others one is kept for %v, want %v", n, kept[n], want)
			}
		}
	})
}
