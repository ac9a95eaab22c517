package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// BenchmarkFork submits a broadcast with many parts, cancels it, and deletes it. It
// reports how long each takes.
func BenchmarkFork(b *testing.B) {
	for _, parts := range []int{10, 100, 5000} {
		b.Run(fmt.Sprintf("parts=%d", parts), func(b *testing.B) {
			srv := natstest.StartListening(b, b.TempDir())
			pub := must(publish.New(srv.Connect()))(b)
			b.Cleanup(pub.Close)
			must(streams.Ensure(b.Context(), ns, pub, streams.Options{Lease: lease, Logger: quiet}))(b)
			clock := streams.NewClock(ns, pub)
			if err := clock.Measure(b.Context()); err != nil {
				b.Fatal(err)
			}
			s := store.Open(pub, store.Assets{
				Work: must(streams.NewWork(ns, pub))(b), Timers: must(streams.NewTimers(ns, pub))(b), Limits: streams.NewLimits(ns, pub),
				Clock: clock, Asker: nodes.NewAsker(pub, ns),
			}, store.Options{Namespace: ns, Lease: lease, Logger: quiet})
			took := map[string]time.Duration{}
			timed := func(what string, f func() error) {
				begun := time.Now()
				if err := f(); err != nil {
					b.Fatal(err)
				}
				took[what] += time.Since(begun)
			}
			for b.Loop() {
				timed("fork", func() error {
					_, _, err := s.Submit(b.Context(), machine.Job{
						ID: "q.1", Kind: "q.k", State: machine.Waiting, Created: time.Now().UTC(), Input: []byte(`{}`),
						Fan: &machine.Fan{Shares: strangers(parts), Total: parts, OnLost: machine.ElseFail, Done: machine.GoalAll},
					})
					return err
				})
				timed("cancel", func() error {
					_, err := s.Cancel(b.Context(), "q.1", "asked")
					return err
				})
				timed("delete", func() error { return s.Delete(b.Context(), "q.1") })
			}
			for what, d := range took {
				b.ReportMetric(float64(d.Milliseconds())/float64(b.N), "ms/"+what)
			}
		})
	}
}
