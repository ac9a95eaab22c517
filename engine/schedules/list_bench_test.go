package schedules_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/millrace/millrace/engine/schedules"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/scheduler"
)

// BenchmarkList lists many schedules, and a page of them.
func BenchmarkList(b *testing.B) {
	const many = 100_000
	pub, err := publish.New(natstest.Connect(b, natstest.Start(b, b.TempDir())))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pub.Close)
	if _, err := streams.Ensure(b.Context(), ns, pub, streams.Options{Logger: quiet}); err != nil {
		b.Fatal(err)
	}
	define(b, pub, many)
	all := schedules.Open(pub, schedules.Options{Namespace: ns, Clock: streams.NewClock(ns, pub), Logger: quiet})
	for name, limit := range map[string]int{"all": 0, "page": 100} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				list, err := all.List(context.Background(), schedules.ListOptions{Limit: limit})
				if want := min(many, max(limit, many*(1-min(limit, 1)))); err != nil || len(list) != want {
					b.Fatalf("%d schedules, %v, want %d", len(list), err, want)
				}
			}
		})
	}
}

// define stores so many schedules.
func define(b *testing.B, pub *publish.Publisher, many int) {
	b.Helper()
	stored := scheduler.Bucket(pub, ns, quiet)
	var writes sync.WaitGroup
	for n := range many {
		if err := pub.Room(b.Context()); err != nil {
			b.Fatal(err)
		}
		s := hourly
		s.Name = fmt.Sprintf("s%06d", n)
		writes.Add(1)
		stored.CreateAsync("schedule."+s.Name, scheduler.Stored{Schedule: s}, func(_ uint64, err error) {
			defer writes.Done()
			if err != nil {
				b.Error(err)
			}
		})
	}
	writes.Wait()
}
