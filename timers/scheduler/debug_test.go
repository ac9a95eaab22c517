package scheduler_test

import (
	"context"
	"encoding/json"
	"time"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/timers/scheduler"
	"github.com/millrace/millrace/timers/tick"
)

func (r *random) debug(name string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = scheduler.Cursors(r.pub, ns).Watch(ctx, "schedule."+name, func(e kv.Event[tick.Cursor]) {
			b, _ := json.Marshal(e.Entry.Value)
			r.mu.Lock()
			r.story = append(r.story, time.Now().Format("15:04:05.000")+" CURSOR "+string(b))
			r.mu.Unlock()
		})
	}()
	r.Cleanup(func() { cancel(); <-done })
}
