package wait_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/wait"
)

// An alarm rings at its time and not before, also where time is virtual.
func TestAlarm(t *testing.T) {
	ring := func(t *testing.T) {
		a := wait.NewAlarm()
		defer a.Stop()
		a.Set(time.Hour)
		for _, d := range []time.Duration{-1, 0, 1, time.Microsecond, 1700 * time.Microsecond, 20 * time.Millisecond} {
			at := time.Now().Add(d)
			for {
				left := time.Until(at)
				if a.Set(left); left <= 0 {
					break
				}
				<-a.C
				a.Nap()
			}
			<-a.C
		}
		a.Set(time.Millisecond)
		a.Stop()
		select {
		case <-a.C:
			t.Error("it rings although it was stopped")
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Run("real", ring)
	t.Run("virtual", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			if ring(t); time.Since(began) != 26_701_001 { // to the nanosecond
				t.Errorf("it took %v", time.Since(began))
			}
		})
	})
}

// How late an alarm rings, and a timer.
func BenchmarkAlarm(b *testing.B) {
	late := func(b *testing.B, ring func(time.Duration)) {
		var sum time.Duration
		for i := range b.N {
			d := time.Duration(1+i%7)*time.Millisecond + time.Duration(i%997)*time.Microsecond
			at := time.Now().Add(d)
			ring(d)
			sum += time.Since(at)
		}
		b.ReportMetric(float64(sum.Microseconds())/float64(b.N), "µs-late/op")
	}
	b.Run("alarm", func(b *testing.B) {
		a := wait.NewAlarm()
		defer a.Stop()
		late(b, func(d time.Duration) { a.Set(d); <-a.C; a.Nap() })
	})
	b.Run("timer", func(b *testing.B) { late(b, func(d time.Duration) { <-time.NewTimer(d).C }) })
}
